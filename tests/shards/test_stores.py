"""What each store keeps of each kind of video: remuxed files frame by frame, JPEGs with their times, sizes, codecs."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from PIL import Image

from livetrain.data.decode import decode_video
from shards import stores
from shards.format import index_table
from shards.format.colour import ToRgb
from shards.format.probe import probe
from shards.stores import StoreOptions, transcode
from shards.stores.remux import digest
from tests.shards import clips
from tests.shards.kinds import KINDS, Kind, plain_frames, reference

REMUX = StoreOptions("remux")
NOT_IN_MP4 = ("vp8", "prores", "qtrle", "huffyuv", "raw")
X264 = {"preset": "ultrafast", "bf": "2", "g": "6", "sc_threshold": "0"}


def stored(kind: Kind, media: StoreOptions) -> tuple[bytes, stores.Stored]:
    result = stores.store(f"clip.{kind.suffix}", kind.data, probe(kind.data), media)
    return result.payloads[0][1], result


def coded_size(data: bytes) -> tuple[int, int]:
    """(width, height) of the frames that a decoder hands out."""
    frame = next(plain_frames(data))
    return frame.width, frame.height


@pytest.mark.parametrize("name", sorted(KINDS))
def test_remux_keeps_every_frame(name: str) -> None:
    """The same samples in the same order, by another decoder loop than the store's own; or the file as it was."""
    kind = KINDS[name]
    data, result = stored(kind, REMUX)
    facts = result.facts
    assert (facts.width, facts.height, facts.rotation) == (kind.width, kind.height, kind.rotation)
    assert (facts.coded_width, facts.coded_height) == coded_size(data)
    assert result.store == ("original" if name.startswith(NOT_IN_MP4) else "remux")
    if result.store == "original":
        assert data == kind.data and result.payloads[0][0] == kind.suffix
        return
    assert data.index(b"moov") < data.index(b"mdat")
    before, after = (
        [digest(frame, kind.width, kind.height) for frame in plain_frames(content)] for content in (kind.data, data)
    )
    assert after == before and len(after) == kind.num_shown
    with av.open(io.BytesIO(data)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    if name.startswith("h264"):
        assert facts.coded_width % 16 == facts.coded_height % 16 == 0


@pytest.mark.parametrize(("width", "height", "coded"), [(96, 70, (96, 80)), (90, 64, (96, 64)), (96, 80, (96, 80))])
def test_remux_takes_the_crop_out(width: int, height: int, coded: tuple[int, int], tmp_path: Path) -> None:
    """The index keeps the size to show, the container and the stream say whole macroblocks; what is decoded through the
    index is the same picture.
    """
    kind = Kind(width=width, height=height, options=X264)
    folder = tmp_path / "c"
    (folder / "videos").mkdir(parents=True)
    names = [f"{number}.mp4" for number in range(6)]
    for number, name in enumerate(names):
        (folder / "videos" / name).write_bytes(clips.marked(kind.data, number))
    rows: list[dict[str, Any]] = [{"fname": name, "liveness_score": number % 2} for number, name in enumerate(names)]
    clips.write_labels(folder / "label.csv", rows, ("fname", "liveness_score"))
    assert clips.build(folder, tmp_path / "s", "--store", "remux") == 0
    row = index_table.read(tmp_path / "s" / "index.arrow").to_pylist()[0]
    data = (tmp_path / "s" / "shard-000000.tar").read_bytes()[row["offset"] : row["offset"] + row["size"]]
    assert (row["width"], row["height"], row["coded_width"], row["coded_height"]) == (width, height, *coded)
    with av.open(io.BytesIO(data)) as container:
        context = container.streams.video[0].codec_context
        assert (context.width, context.height) == coded
    shown = decode_video(data, np.arange(14), 14)[:, :height, :width]
    # Chroma at the cut's edge may be interpolated from beyond it.
    assert np.array_equal(shown[:, :-1, :-1], np.stack(reference(kind.data))[:, :-1, :-1])


def test_remux_of_the_same_file_gives_the_same_bytes() -> None:
    kind = KINDS["h264_cropped.mp4"]
    assert stored(kind, REMUX)[0] == stored(kind, REMUX)[0]


@pytest.mark.parametrize("name", ["h264_turned_90.mp4", "hevc.mp4", "h264_full_range.mp4", "vp9.webm", "h264_vfr.mp4"])
def test_frames_say_which_they_were_and_when(name: str) -> None:
    """JPEGs at full size are the frames of training within what quality 95 loses, with chroma at full size."""
    kind = KINDS[name]
    result = stored(kind, StoreOptions("frames", num_frames=4))[1]
    assert result.frame_numbers == [1, 5, 8, 12] and result.store == "frames"
    times = [frame.time or 0.0 for frame in plain_frames(kind.data)]
    assert result.facts.frame_seconds == pytest.approx(
        [times[number] - times[0] for number in result.frame_numbers], abs=1e-3
    )
    frames = decode_video(kind.data, np.array(result.frame_numbers), kind.num_frames)
    for (_, jpeg), frame in zip(result.payloads, frames, strict=True):
        picture = Image.open(io.BytesIO(jpeg))
        upright = np.rot90(frame, -kind.rotation // 90)
        assert picture.layer[1][1:3] == (1, 1)  # type: ignore[attr-defined]
        assert np.abs(np.asarray(picture).astype(int) - upright).mean() < 2.5, name


@pytest.mark.parametrize("name", sorted(name for name in KINDS if "interlaced" in name or "camcorder" in name))
@pytest.mark.parametrize(
    "media", [StoreOptions(), REMUX, StoreOptions("transcode", gop=4), StoreOptions("frames", num_frames=14)]
)
def test_interlaced_frames_are_woven(name: str, media: StoreOptions) -> None:
    """Both fields in a picture, as they were decoded, in every store: no row becomes that of the other field."""
    kind = KINDS[name]
    facts = probe(kind.data)
    assert facts.is_interlaced
    result = stored(kind, media)[1]
    if media.store == "frames":
        shown = np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for _, jpeg in result.payloads])
    else:
        data = result.payloads[0][1]
        shape = ToRgb(result.facts.colours)
        shown = decode_video(
            data, np.arange(14), 14, is_regular=result.facts.is_regular, shape=shape
        )[:, : kind.height, : kind.width]  # fmt: skip
    want = np.stack(reference(kind.data)).astype(int)
    assert np.abs(shown - want).mean() < (6 if media.store in ("transcode", "frames") else 0.01)
    for number in (3, 9):  # a field would be nearer to its own rows moved by one
        moved = np.roll(want[number], 1, axis=0)
        assert np.abs(shown[number] - want[number]).mean() < np.abs(shown[number] - moved).mean()


def test_frames_at_a_rate() -> None:
    kind = KINDS["h264.mp4"]  # 14 frames, 25 a second
    assert len(stored(kind, StoreOptions("frames", frames_per_second=5))[1].payloads) == 3
    assert len(stored(kind, StoreOptions("frames", frames_per_second=0.1))[1].payloads) == 1
    assert len(stored(kind, StoreOptions("frames", frames_per_second=100))[1].payloads) == 14


def test_pixels_that_are_not_square() -> None:
    """A pixel's shape turns with the picture."""
    from fractions import Fraction

    for rotation, aspect in ((0, 4 / 3), (90, 3 / 4)):
        kind = Kind(options=X264, tags={"sample_aspect_ratio": Fraction(4, 3)}, rotation=rotation)
        assert probe(kind.data).sample_aspect_ratio == pytest.approx(4 / 3)
        assert probe(kind.data, quick=True).sample_aspect_ratio == pytest.approx(4 / 3)
        assert stored(kind, StoreOptions("frames", num_frames=2))[1].facts.sample_aspect_ratio == pytest.approx(aspect)
        assert stored(kind, StoreOptions("transcode", gop=4))[1].facts.sample_aspect_ratio == pytest.approx(aspect)
        assert stored(kind, REMUX)[1].facts.sample_aspect_ratio == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("media", "size", "codec"),
    [
        (StoreOptions("transcode", gop=4), (160, 128), "h264"),
        (StoreOptions("transcode", gop=4, long_side=96), (96, 80), "h264"),
        (StoreOptions("transcode", gop=4, short_side=64, codec="hevc"), (80, 64), "hevc"),
        (StoreOptions("transcode", gop=4, short_side=1000), (160, 128), "h264"),
    ],
)
def test_transcoded_sides_are_whole_macroblocks(media: StoreOptions, size: tuple[int, int], codec: str) -> None:
    kind = Kind(width=162, height=130, options=X264)
    data, result = stored(kind, media)
    assert coded_size(data) == (result.facts.width, result.facts.height) == size
    assert result.facts.codec == codec and result.facts.num_frames == 14
    with av.open(io.BytesIO(data)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert keys == [number % 4 == 0 for number in range(14)]
    assert {stored(kind, media)[0] for _ in range(5)} == {data}


def test_rounded_sides_keep_the_shape_that_is_shown() -> None:
    kind = Kind(width=162, height=130, options=X264, rotation=90)
    for media in (StoreOptions("transcode", gop=4, short_side=40), StoreOptions("frames", num_frames=1, short_side=40)):
        facts = stored(kind, media)[1].facts
        assert facts.width * facts.sample_aspect_ratio / facts.height == pytest.approx(130 / 162)
    assert (facts.width, facts.height) == (40, 50) and facts.sample_aspect_ratio != 1


def test_quality_is_heard() -> None:
    kind = KINDS["h264_4k.mp4"]
    for media in (StoreOptions("frames", num_frames=1, long_side=640), StoreOptions("transcode", gop=8, long_side=640)):
        sizes = [len(stored(kind, StoreOptions(**{**vars(media), "quality": quality}))[0]) for quality in (20, 45)]
        assert (sizes[0] < sizes[1]) == (media.store == "frames")


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p", "gray"])
def test_transcoded_greys_are_those_of_the_source(codec: str, pixels: str) -> None:
    """Limited, full, and grey alone: black, white and what lies between stay where they are.

    Full-range luma used to be copied into a stream that says limited: 230 became 249, 20 became 4.
    """
    greys, full = [0, 20, 128, 230, 255], ColorRange.JPEG
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        if pixels != "yuv420p":
            stream.codec_context.color_range = full.value
        for number, grey in enumerate(greys):
            picture = np.full((48, 64, 3), grey, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format=pixels, dst_color_range=full if pixels != "yuv420p" else None)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = buffer.getvalue()
    made = transcode.store(data, probe(data), StoreOptions("transcode", codec=codec, quality=4, gop=5))
    wanted = np.arange(len(greys))
    before = decode_video(data, wanted, len(greys)).mean(axis=(1, 2, 3))
    after = decode_video(made.payloads[0][1], wanted, len(greys)).mean(axis=(1, 2, 3))
    assert before == pytest.approx(greys, abs=2) and after == pytest.approx(before, abs=2)
