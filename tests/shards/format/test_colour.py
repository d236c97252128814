"""Colours against the standard formulas in float64: of every matrix and range, however stated, through every store."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from livetrain.data.decode import decode_video
from shards import stores
from shards.format.colour import Colours, ToRgb
from shards.format.probe import probe
from shards.stores import StoreOptions

# ITU-R BT.601-7, BT.709-6, BT.2020-2, SMPTE 240M, FCC: the weights of red and blue in luma.
WEIGHTS = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
}
NUMBERS = {"bt709": 1, "unspecified": 2, "fcc": 4, "bt601": 6, "smpte240m": 7, "bt2020": 9}  # H.273, table 4
SUBSAMPLING = {"yuv420p": (2, 2), "yuv422p": (1, 2), "yuv444p": (1, 1)}


def doubled(plane: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Linear interpolation at (i + 0.5) / 2 - 0.5, clamped at the ends; `length` samples of it."""
    at = np.clip((np.arange(length) + 0.5) / 2 - 0.5, 0, plane.shape[axis] - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, plane.shape[axis] - 1)
    share = (at - below).reshape(-1, 1) if axis == 0 else at - below
    return np.take(plane, below, axis) * (1 - share) + np.take(plane, above, axis) * share


def formula(y: np.ndarray, u: np.ndarray, v: np.ndarray, matrix: str, *, full: bool) -> np.ndarray:
    """RGB of planes of 8 bits, chroma as it is or halved: float64 [height, width, 3], clipped, not rounded."""
    u, v = u.astype(np.float64) - 128, v.astype(np.float64) - 128
    for axis in (0, 1):
        if u.shape[axis] != y.shape[axis]:
            u, v = (doubled(plane, axis, y.shape[axis]) for plane in (u, v))
    y = (y.astype(np.float64) - (0 if full else 16)) * (1 if full else 255 / 219)
    u, v = (plane * (1 if full else 255 / 224) for plane in (u, v))
    kr, kb = WEIGHTS[matrix]
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255)


def planes(frame: Any) -> list[np.ndarray]:
    """Y, U, V of a frame of 8 bits in planes."""
    found = []
    for plane in frame.planes[:3]:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        found.append(rows[: plane.height, : plane.width])
    return found


def exactly(frame: Any, matrix: str, *, full: bool) -> np.ndarray:
    """`formula` of a frame."""
    return formula(*planes(frame), matrix, full=full)


def frame_of(y: np.ndarray, u: np.ndarray, v: np.ndarray, pixel_format: str, matrix: str = "", *, full: bool = False):
    """An av.VideoFrame of these planes, which states `matrix` and its range."""
    frame = av.VideoFrame(y.shape[1], y.shape[0], pixel_format)
    for plane, values in zip(frame.planes, (y, u, v), strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[: values.shape[0], : values.shape[1]] = values
        plane.update(rows.tobytes())
    frame.colorspace = NUMBERS[matrix or "unspecified"]
    frame.color_range = 2 if full else 1
    return frame


def noise(height: int, width: int, pixel_format: str = "yuv420p", matrix: str = "bt601", *, full: bool = False) -> Any:
    """A frame of independent random samples."""
    rng = np.random.default_rng(0)
    rows, columns = SUBSAMPLING[pixel_format]
    small = (-(-height // rows), -(-width // columns))
    values = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((height, width), small, small))
    return frame_of(*values, pixel_format, matrix, full=full)  # type: ignore[misc]


def shape_of(frame: Any) -> tuple[int, int]:
    return frame.height, frame.width


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixel_format", SUBSAMPLING)
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize(("height", "width"), [(48, 64), (97, 33), (6, 50), (1, 1), (2, 5), (15, 17)])
def test_as_the_formula_says(height: int, width: int, matrix: str, pixel_format: str, full: bool) -> None:
    """Rounded once: never more than half a level away, but for 16-bit arithmetic."""
    frame = noise(height, width, pixel_format, matrix, full=full)
    rgb = ToRgb()(frame, shape_of(frame))
    assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8
    difference = np.abs(rgb - exactly(frame, matrix, full=full))
    assert difference.max() <= 1.01 and difference.mean() <= 0.27


@pytest.mark.parametrize("full", [False, True])
def test_every_level_of_grey(full: bool) -> None:
    levels = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    grey = np.full((8, 128), 128, np.uint8)
    frame = frame_of(levels, grey, grey, "yuv420p", "bt709", full=full)
    want = levels if full else np.clip((levels.astype(float) - 16) * 255 / 219, 0, 255)
    got = ToRgb()(frame, (16, 256)).astype(float)
    assert np.abs(got - want[..., None]).max() <= 0.51
    assert np.ptp(got, axis=-1).mean() < 0.02, "grey has no colour, but for halves that are rounded"


@pytest.mark.parametrize("pixel_format", SUBSAMPLING)
@pytest.mark.parametrize(
    "box", [(0, 0, 150, 90), (2, 2, 4, 4), (63, 31, 130, 88), (64, 10, 66, 90), (148, 88, 150, 90)]
)
def test_a_part_is_cut_from_the_whole(box: tuple[int, int, int, int], pixel_format: str) -> None:
    frame = noise(150, 90, pixel_format)
    top, left, bottom, right = box
    whole = ToRgb()(frame, (150, 90))
    assert np.array_equal(ToRgb(box=box)(frame, (150, 90)), whole[top:bottom, left:right])


@pytest.mark.parametrize(
    "name",
    ["yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuv420p10le", "yuva420p", "nv12", "gbrp", "rgb24",
     "bgra", "yuv410p", "yuyv422", "p010le"],
)  # fmt: skip
def test_every_format_shows_the_same_colours(name: str) -> None:
    """Full range too; the picture's own RGB but for the rounding of samples, whole and in part."""
    rows, columns = np.mgrid[0:48, 0:64]
    picture = np.stack([40 + rows * 3, 60 + columns * 2, 200 - rows - columns], axis=2).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=name, dst_colorspace=5)
    frame.colorspace = 6
    for box in ((0, 0, 48, 64), (8, 4, 40, 60)):
        top, left, bottom, right = box
        difference = np.abs(ToRgb(box=box)(frame, (48, 64)).astype(int) - picture[top:bottom, left:right])
        assert difference.mean() < 1.5 and difference[2:-2, 2:-2].max() <= 5


def test_another_size_is_scaled() -> None:
    assert ToRgb()(noise(48, 64), (30, 20)).shape == (30, 20, 3)
    assert ToRgb(box=(2, 2, 20, 10), size=(9, 9))(noise(48, 64), (30, 20)).shape == (9, 9, 3)


@pytest.mark.parametrize("colours", [0, 2, 3, 8, 10, 14, 18, 255])
def test_whatever_a_stream_says_of_its_colours(colours: int) -> None:
    """libswscale does not know some of them (ITU-T H.273, table 4), and some are none: as if nothing were stated."""
    frame = noise(64, 64)
    frame.colorspace = colours
    matrix = {10: "bt2020"}.get(colours, "bt601")
    assert Colours.of(frame).matrix == matrix
    assert np.abs(ToRgb()(frame, (64, 64)) - exactly(frame, matrix, full=False)).max() <= 1.01


@pytest.mark.parametrize(("height", "matrix"), [(718, "bt601"), (720, "bt709")])
def test_what_is_not_stated_goes_by_the_lines(height: int, matrix: str) -> None:
    frame = av.VideoFrame(32, height, "yuv420p")
    assert Colours.of(frame) == Colours(matrix, False)


def test_wide_colours_are_named() -> None:
    frame = av.VideoFrame(32, 32, "yuv420p10le")
    frame.colorspace, frame.color_trc = 9, 18
    assert Colours.of(frame) == Colours("bt2020", False, "hlg")


# --- through files and stores -------------------------------------------------------------------------------------

GREEN = (40, 180, 60)
PATCHES = np.array([GREEN, (230, 230, 230), (20, 20, 20), (190, 60, 50)], np.uint8)  # of 32 x 32 pixels each


def samples(matrix: str, *, full: bool, height: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y, U, V (4:2:0) of the four patches beside each other, repeated down to `height`."""
    kr, kb = WEIGHTS[matrix]
    red, green, blue = np.repeat(PATCHES[None], height, axis=0).repeat(32, axis=1).astype(float).transpose(2, 0, 1)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    u, v = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    y = luma if full else 16 + luma * 219 / 255
    u, v = (128 + plane[::2, ::2] * (1 if full else 224 / 255) for plane in (u, v))
    return tuple(np.rint(plane).clip(0, 255).astype(np.uint8) for plane in (y, u, v))  # type: ignore[return-value]


def video(
    matrix: str,
    *,
    full: bool,
    said: str,
    codec: str = "libx264",
    suffix: str = "mp4",
    height: int = 64,
    quiet: bool = False,
) -> bytes:
    """Four frames of `samples`, which state the matrix `said` ("": nothing), and if `quiet` no range either."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format={"mkv": "matroska"}.get(suffix, suffix)) as container:
        options = {"libx264": {"crf": "1", "preset": "ultrafast"}, "mjpeg": {"qscale": "2"}}.get(codec, {})
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = 128, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        context = stream.codec_context
        context.color_range = 0 if quiet else 2 if full else 1
        if said:
            context.colorspace = NUMBERS[said]
        for number in range(4):
            frame = frame_of(*samples(matrix, full=full, height=height), stream.pix_fmt, said, full=full)
            if quiet:
                frame.color_range = 0
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def shown(data: bytes) -> np.ndarray:
    """The colours of the patches of a video, by what it states itself: float [4, 3]."""
    frames = decode_video(data, np.arange(4), 4)
    return patches(frames[2])


def patches(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    part = picture[height // 4 : -height // 4].reshape(-1, 4, width // 4, 3)
    return part[:, :, width // 16 : -width // 16].mean(axis=(0, 2))


CASES = [
    ("bt601", "bt601", 64), ("bt709", "bt709", 64), ("bt601", "", 64), ("bt709", "", 720), ("bt2020", "bt2020", 64),
]  # fmt: skip


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "said", "height"), CASES)
@pytest.mark.parametrize(
    "media",
    [StoreOptions("original"), StoreOptions("remux"), StoreOptions("transcode", gop=2, short_side=48),
     StoreOptions("transcode", gop=2, codec="hevc"), StoreOptions("frames", num_frames=4)],
    ids=lambda media: f"{media.store}{media.codec}",
)  # fmt: skip
def test_every_store_shows_the_same_colours(
    media: StoreOptions, matrix: str, said: str, height: int, full: bool
) -> None:
    data = video(matrix, full=full, said=said, height=height)
    facts = probe(data)
    assert facts.colours == Colours(matrix, full)
    kept = stores.store("clip.mp4", data, facts, media)
    if media.store == "frames":
        got = patches(np.asarray(Image.open(io.BytesIO(kept.payloads[2][1]))))
        assert kept.facts.colours == Colours("rgb", True)
    else:
        stored = kept.payloads[0][1]
        got = shown(stored)
        assert probe(stored).colours == kept.facts.colours  # the index, and whoever has the file alone
    assert np.abs(got - PATCHES).max() < 2.5, got.round(1).tolist()


@pytest.mark.parametrize("store", ["original", "remux", "transcode", "frames"])
@pytest.mark.parametrize(
    ("codec", "suffix", "said"),
    [("mjpeg", "avi", ""), ("mjpeg", "mov", "bt601"), ("ffv1", "mkv", "bt709"), ("libx265", "mkv", "bt709"),
     ("libvpx-vp9", "webm", "bt709"), ("libsvtav1", "mkv", "bt709"), ("mpeg4", "avi", "")],
)  # fmt: skip
def test_every_codec_shows_its_colours(codec: str, suffix: str, said: str, store: str) -> None:
    matrix, full = said or "bt601", codec not in ("mpeg4", "libvpx-vp9")
    data = video(matrix, full=full, said=said, codec=codec, suffix=suffix)
    facts = probe(data)
    assert facts.colours == Colours(matrix, full)
    kept = stores.store(f"clip.{suffix}", data, facts, StoreOptions(store, gop=2, num_frames=4))
    if store == "frames":
        got = patches(np.asarray(Image.open(io.BytesIO(kept.payloads[2][1]))))
    else:
        got = patches(decode_video(kept.payloads[0][1], np.arange(4), 4, shape=ToRgb(kept.facts.colours))[2])
        assert np.abs(shown(kept.payloads[0][1]) - got).max() == 0
    assert np.abs(got - PATCHES).max() < 4, got.round(1).tolist()


@pytest.mark.parametrize("codec", ["libx264rgb", "png", "ffv1"])
def test_samples_that_are_rgb_stay_so(codec: str) -> None:
    picture = np.repeat(np.repeat(PATCHES[None], 64, axis=0), 32, axis=1)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov" if codec == "png" else "matroska") as container:
        stream: Any = container.add_stream(codec, rate=25, options={"crf": "0"} if codec == "libx264rgb" else {})
        stream.width, stream.height = 128, 64
        stream.pix_fmt = {"libx264rgb": "rgb24", "png": "rgb24", "ffv1": "bgr0"}[codec]
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = buffer.getvalue()
    facts = probe(data)
    assert facts.colours == Colours("rgb", True)
    assert np.abs(shown(data) - PATCHES).max() == 0
    kept = stores.store("clip.mkv", data, facts, StoreOptions("transcode", gop=2))
    assert kept.facts.colours == Colours("bt601", False)
    assert np.abs(shown(kept.payloads[0][1]) - PATCHES).max() < 2.5


def stated_by_the_container(data: bytes) -> bytes:
    """A video in Matroska that says it is of full range, whatever its stream says."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format="matroska") as output:
        stream = source.streams.video[0]
        target: Any = output.add_stream_from_template(stream, opaque=True)
        target.codec_context.color_range = 2
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = target
                output.mux(packet)
    return buffer.getvalue()


def test_a_range_that_the_container_alone_states() -> None:
    """It is the video's range; the GPU's decoder, which reads the coded stream, is not asked."""
    silent = video("bt601", full=True, said="")
    assert probe(silent).is_range_coded
    data = stated_by_the_container(video("bt601", full=True, said="", quiet=True))
    facts = probe(data)
    assert facts.colours == Colours("bt601", True) and not facts.is_range_coded
    assert np.abs(shown(data) - PATCHES).max() < 2.5
    for store in ("remux", "transcode"):
        kept = stores.store("clip.mkv", data, facts, StoreOptions(store, gop=2))
        assert np.abs(shown(kept.payloads[0][1]) - PATCHES).max() < 2.5


def test_decoding_follows_the_index() -> None:
    """What the index says is what is shown, be the file silent (a remux of a cropped 712 lines has 720)."""
    data = video("bt709", full=False, said="")
    assert np.abs(shown(data) - PATCHES).max() > 5
    got = decode_video(data, np.arange(4), 4, shape=ToRgb(Colours("bt709", False)))
    assert np.abs(patches(got[0]) - PATCHES).max() < 2.5
