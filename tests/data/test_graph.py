"""The graph against plain NumPy and Pillow: crop, rotation, flip, normalisation, sources, and no hidden state."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def, types
from PIL import Image

from livetrain.config import AugmentConfig
from livetrain.data import augment
from livetrain.data.crop import even_box, pixel_box, resize
from livetrain.data.decode import decode_video
from livetrain.data.graph import Graph, GraphError, GraphOptions, colour_params, corrected
from shards.format.colour import Colours
from tests.shards.format import test_colour
from tests.videos import numbered_frames, write_video

SIZE, NUM_FRAMES = 32, 3
MEAN, STD = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # so that the graph gives back 0 … 255


def params(n: int, box: tuple[float, ...] = (0, 0, 1, 1), angle: float = 0.0, flip: int = 0) -> dict[str, np.ndarray]:
    return {
        "box": np.tile(np.array(box, np.float32), (n, 1)),
        "angle": np.full(n, angle, np.float32),
        "flip": np.full(n, flip, np.int32),
    }


def make_graph(
    decoder: str = "cpu", augmentations: list | None = None, example: dict | None = None, **options
) -> Graph:
    defaults = {
        "image_size": SIZE,
        "num_frames": NUM_FRAMES,
        "max_clips": 4,
        "mean": MEAN,
        "std": STD,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "num_threads": 2,
    }
    return Graph(decoder, augmentations or [], example or params(1), GraphOptions(**(defaults | options)))


def clip(seed: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """uint8 [F, height, width, 3], smooth and unlike others."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (NUM_FRAMES, 6, 6, 3), dtype=np.uint8)
    pictures = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in small]
    return np.stack([np.asarray(picture) for picture in pictures])


def small(pictures: Iterable[np.ndarray], box: Sequence[float] = (0, 0, 1, 1)) -> np.ndarray:
    """Pictures as they enter the graph from the CPU's decoder."""
    small = []
    for picture in pictures:
        top, left, bottom, right = pixel_box(np.array(box), *picture.shape[:2])
        small.append(resize(picture[top:bottom, left:right].copy(), SIZE))
    return np.stack(small)


FRAMES = np.zeros((4, NUM_FRAMES), np.int64)


def test_whole_picture_of_the_right_size_passes_unchanged() -> None:
    clips = [clip(seed) for seed in range(4)]
    out = make_graph().run(clips, FRAMES, params(4))
    assert out.shape == (4, NUM_FRAMES, 3, SIZE, SIZE) and out.dtype == torch.float32
    assert (out.numpy() == np.stack(clips).transpose(0, 1, 4, 2, 3)).all()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_turns_pixels_and_changes_none(rotation: int) -> None:
    frames = clip(1)
    out = make_graph().run([frames], FRAMES[:1], params(1, angle=-rotation))[0].numpy()
    assert (out == np.rot90(frames, -rotation // 90, axes=(1, 2)).transpose(0, 3, 1, 2)).all()


def test_flip_mirrors_left_and_right() -> None:
    frames = clip(2)
    out = make_graph().run([frames], FRAMES[:1], params(1, flip=1))[0].numpy()
    assert (out == frames[:, :, ::-1].transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize(("height", "width"), [(96, 128), (480, 640), (24, 20)])
@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.25, 0.1, 0.75, 0.9), (0.5, 0.25, 0.625, 0.5)])
def test_crop_and_resize_are_the_same_on_every_way(height: int, width: int, box: tuple[float, ...]) -> None:
    """Shrunk and enlarged: in the graph, and before it, agree on boxes as the plan gives them."""
    pixels = even_box(np.array([box]), np.array([height]), np.array([width]))[0]
    box = tuple(pixels / [height, width, height, width])
    files = jpegs(clip(3, height, width))
    in_graph = make_graph("image").run([files], FRAMES[:1], params(1, box=box))
    before = small([np.array(Image.open(io.BytesIO(file))) for file in files], box)
    difference = (in_graph - make_graph().run([before], FRAMES[:1], params(1))).abs()
    assert difference.max() <= 2 and difference.mean() < 0.3  # torch rounds between rows and columns


def test_normalisation_is_of_rgb_in_0_to_1() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    frames = clip(4)
    out = make_graph(mean=mean, std=std).run([frames], FRAMES[:1], params(1))[0].numpy()
    want = (frames / 255 - mean) / std
    assert np.abs(out - want.transpose(0, 3, 1, 2)).max() < 1e-5


def test_half_precision() -> None:
    frames = clip(4)
    out = make_graph(dtype=torch.float16).run([frames], FRAMES[:1], params(1))
    assert out.dtype == torch.float16 and (out[0].numpy() == frames.transpose(0, 3, 1, 2)).all()


def augmented(n: int, seed: int) -> tuple[AugmentConfig, dict[str, np.ndarray]]:
    """Parameters of all augmentations for n clips, about half of them on."""
    config = AugmentConfig()
    for item in augment.AUGMENTATIONS:
        setattr(config, item.name, 0.5)
    u = np.random.default_rng(seed).random((n, augment.NUM_UNIFORMS * len(augment.AUGMENTATIONS)))
    drawn = params(n)
    for item in augment.AUGMENTATIONS:
        drawn |= item.draw(u[:, augment.uniform_columns(item)], config, SIZE)
    return config, drawn


def take(values: dict[str, np.ndarray], rows: list[int]) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in values.items()}


def test_same_inputs_give_the_same_pixels_in_any_batch() -> None:
    """All augmentations on; alone, in other company, in another order, in another pipeline with other threads."""
    config, drawn = augmented(4, 0)
    active = augment.active_augmentations(config)
    assert len(active) == len(augment.AUGMENTATIONS)
    clips = [clip(seed) for seed in range(4)]
    graph = make_graph(augmentations=active, example=drawn)
    together = graph.run(clips, FRAMES, drawn)
    backwards = graph.run(clips[::-1], FRAMES, take(drawn, [3, 2, 1, 0]))
    assert torch.equal(together, backwards.flip(0))
    other = make_graph(augmentations=active, example=drawn, num_threads=1, max_clips=1)
    for index in range(4):
        alone = other.run([clips[index]], FRAMES[:1], take(drawn, [index]))
        assert torch.equal(alone[0], together[index])


def test_two_batches_in_flight_come_out_in_order() -> None:
    graph = make_graph()
    graph.push([clip(0)], FRAMES[:1], params(1))
    graph.push([clip(1), clip(2)], FRAMES[:2], params(2))
    first, second = graph.pull(), graph.pull()
    assert (first[0].numpy() == clip(0).transpose(0, 3, 1, 2)).all()
    assert (second[1].numpy() == clip(2).transpose(0, 3, 1, 2)).all()


def jpegs(frames: np.ndarray) -> list[bytes]:
    out = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format="JPEG", quality=95, subsampling=0)
        out.append(buffer.getvalue())
    return out


def test_jpeg_frames_take_the_same_way() -> None:
    """Stored JPEGs against the same pictures fed as frames, augmentations on: the parameters reach each frame."""
    config, drawn = augmented(3, 1)
    drawn["jpeg_on"][:] = drawn["downscale_on"][:] = False  # their rounding would amplify the decoders' differences
    active = augment.active_augmentations(config)
    files = [jpegs(clip(seed, 60, 80)) for seed in range(3)]
    decoded = [small([np.array(Image.open(io.BytesIO(file))) for file in clip_files]) for clip_files in files]
    as_jpegs = make_graph("image", active, drawn).run(files, FRAMES[:3], drawn)
    as_frames = make_graph("cpu", active, drawn).run(decoded, FRAMES[:3], drawn)
    assert as_jpegs.shape == as_frames.shape
    assert (as_jpegs - as_frames).abs().mean() < 1.0 and (as_jpegs - as_frames).abs().max() < 16


def test_video_files_take_the_same_way(tmp_path: Path) -> None:
    """DALI's own decoder in the graph against PyAV's frames: NVDEC's path, with the codec DALI's CPU side has."""
    options = {"cpu-used": "8", "deadline": "realtime", "g": "8"}
    data = write_video(tmp_path / "a.webm", 24, codec="libvpx-vp9", height=96, width=128, options=options).read_bytes()
    wanted = np.array([[2, 13, 13], [23, 0, 7]])
    box = (0.25, 0.125, 0.75, 0.875)
    drawn = params(2, box=box, angle=-90) | colour_params([Colours("bt601", False)] * 2)
    as_video = make_graph("nvdec", example=drawn).run([data, data], wanted, drawn)
    frames = [small(decode_video(data, row, 24), box) for row in wanted]
    as_frames = make_graph("cpu").run(frames, wanted, drawn)
    assert (as_video - as_frames).abs().max() <= 20 and (as_video - as_frames).abs().mean() < 1.5  # YUV to RGB differs
    assert (as_frames[0, 0] - as_frames[0, 1]).abs().mean() > 2  # frames differ, so the numbers were obeyed
    assert torch.equal(as_video[0, 1], as_video[0, 2])


@pipeline_def(batch_size=1, num_threads=1, device_id=None)
def correcting(rgb: np.ndarray, colours: Colours) -> Any:
    """The graph's own step on RGB as DALI gives it, [1, height, width, 3]."""
    frames = fn.cast(fn.external_source(source=lambda: [rgb], layout="FHWC"), dtype=types.FLOAT)
    return corrected(frames, {name: types.Constant(value[0]) for name, value in colour_params([colours]).items()})


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", test_colour.WEIGHTS)
def test_dalis_colours_become_those_of_the_stream(matrix: str, full: bool) -> None:
    """DALI reads all streams by BT.601, with 127.5 for grey chroma (its numbers, in float64, rounded and clipped as it
    does), and the graph sets that right: within a level where nothing was clipped.
    """
    rng = np.random.default_rng(0)
    kr, kb = test_colour.WEIGHTS[matrix]
    red, green, blue = rng.uniform(60, 180, (3, 64, 64))
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    u, v = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    y = luma if full else 16 + luma * 219 / 255
    u, v = (128 + plane * (1 if full else 224 / 255) for plane in (u, v))
    samples = [np.rint(plane).astype(np.uint8) for plane in (y, u, v)]
    theirs = [[1.0, 0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0]]
    if not full:
        theirs = [[1.164, 0, 1.596], [1.164, -0.392, -0.813], [1.164, 2.017, 0]]
    black = np.array([0 if full else 0.0625 * 255, 127.5, 127.5])
    given = np.einsum("cp,phw->hwc", theirs, np.stack(samples) - black[:, None, None])
    assert given.min() > 0 and given.max() < 255
    pipeline = correcting(np.ascontiguousarray(np.rint(given).astype(np.uint8)[None]), Colours(matrix, full))
    pipeline.build()
    got = pipeline.run()[0].as_array()[0, 0].astype(float)
    want = test_colour.formula(*samples, matrix, full=full)
    assert np.abs(got - want).max() <= 1.3 and np.abs(got - want).mean() < 0.4
    assert np.abs(np.rint(given) - want).mean() > 0.4, "there was something to set right"


def test_damaged_jpeg_is_a_graph_error() -> None:
    graph = make_graph("image")
    with pytest.raises(GraphError):
        graph.run([[b"\xff\xd8 no jpeg"] * NUM_FRAMES], FRAMES[:1], params(1))


@pytest.mark.gpu
def test_gpu_agrees_with_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config, drawn = augmented(4, 2)
    active = augment.active_augmentations(config)
    clips = [clip(seed) for seed in range(4)]
    cpu = make_graph(augmentations=active, example=drawn).run(clips, FRAMES, drawn)
    gpu = (
        make_graph(augmentations=active, example=drawn, device=torch.device("cuda", 0)).run(clips, FRAMES, drawn).cpu()
    )
    assert (cpu - gpu).abs().mean() < 2.0
    numbers = numbered_frames(NUM_FRAMES, 60, 80)
    assert len(numbers) == NUM_FRAMES
