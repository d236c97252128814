"""Decoders of a GPU as their users call them, for `livetrain bench gpu`: `side(task) -> wanted frames per second`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from livetrain.bench.peers import MEAN, STD, Task, random_frames

HOST_ROUNDS = 64  # batches
Decode = Callable[[Path, NDArray[np.int64]], torch.Tensor]


def torchcodec(task: Task) -> float:
    """Torchcodec with device="cuda", in the process that trains: CUDA does not live through a fork."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (OSError, RuntimeError):
        raise ImportError("torchcodec finds no FFmpeg libraries (Debian: apt-get install ffmpeg)") from None

    def decode(path: Path, frames: NDArray[np.int64]) -> torch.Tensor:
        return VideoDecoder(str(path), device=task.device, seek_mode="approximate").get_frames_at(frames.tolist()).data

    return task.rate(_batches(task, decode))


def pynvvideocodec(task: Task) -> float:
    """NVIDIA's PyNvVideoCodec, its SimpleDecoder by frame numbers."""
    import PyNvVideoCodec as nvc  # not in requirements.lock: NVIDIA's own terms

    if task.device == "cpu":
        raise ImportError("PyNvVideoCodec decodes on GPUs alone")

    def decode(path: Path, frames: NDArray[np.int64]) -> torch.Tensor:
        decoder = nvc.SimpleDecoder(str(path), use_device_memory=True, output_color_type=nvc.OutputColorType.RGBP)
        return torch.stack([torch.from_dlpack(f) for f in decoder.get_batch_frames_by_index(frames.tolist())])

    return task.rate(_batches(task, decode))


def jpegs_alone(task: Task) -> float:
    """The frames' JPEG files decoded by torchvision (nvJPEG on a GPU), from memory, and nothing more."""
    from torchvision.io import decode_jpeg

    files = sorted(task.jpegs.rglob("*.jpg"))
    data = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in files]
    size = task.batch_size * task.frames_per_clip

    def batches() -> Iterator[Any]:
        for number in range(task.num_clips // task.batch_size):
            chosen = [data[(number * size + at) % len(data)] for at in range(size)]
            yield (
                decode_jpeg(chosen, device=task.device)
                if task.device != "cpu"
                else [decode_jpeg(one) for one in chosen]
            )
            if task.device != "cpu":
                torch.cuda.synchronize()

    return task.rate(batches())


def host_side(task: Task) -> float:
    """What the loader's thread does in Python for JPEGs that a GPU decodes.

    Their bytes out of the shards, and the graph's inputs as dense arrays, a clip's parameters for each of its frames.
    """
    from livetrain import data
    from livetrain.config import load_config
    from livetrain.data.plan import Samples, plan_train

    keys = [f"data.shards={task.frame_shards}", f"data.num_frames={task.frames_per_clip}", "data.train_split=train"]
    config = load_config([], [*keys, f"train.global_batch={task.batch_size}"], warn=lambda line: None)
    dataset = data.Dataset.open(config.data.shards, config.data)
    samples = Samples.of_training(dataset, config)
    plans = [plan_train(samples, config, number, 0, 0, 1) for number in range(HOST_ROUNDS)]
    started = time.perf_counter()
    for plan in plans:
        media = [
            np.frombuffer(jpeg, np.uint8)
            for row, frames in zip(plan.rows.tolist(), plan.frames, strict=True)
            for jpeg in dataset.jpeg_bytes(row, frames)
        ]
        inputs = [
            np.ascontiguousarray(np.repeat(values, task.frames_per_clip, axis=0)) for values in plan.params.values()
        ]
        assert len(media) == len(inputs[0])
    seconds = time.perf_counter() - started
    return HOST_ROUNDS * task.batch_size * task.frames_per_clip / seconds


def copied(task: Task) -> float:
    """The same JPEGs' bytes copied within memory: what no reader is faster than."""
    files = [np.frombuffer(path.read_bytes(), np.uint8) for path in sorted(task.jpegs.rglob("*.jpg"))]
    wanted = HOST_ROUNDS * task.batch_size * task.frames_per_clip
    started = time.perf_counter()
    for number in range(wanted):
        files[number % len(files)].copy()
    return wanted / (time.perf_counter() - started)


def _batches(task: Task, decode: Decode) -> Iterator[torch.Tensor]:
    """Batches of clips, resized to the training size and normalised on the device."""
    from torchvision.transforms import v2

    size = [task.image_size, task.image_size]
    transform = v2.Compose(
        [v2.Resize(size, antialias=True), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    for number in range(task.num_clips // task.batch_size):
        first = number * task.batch_size
        clips = [
            transform(decode(task.videos[index * 7 % len(task.videos)], random_frames(task, index)))
            for index in range(first, first + task.batch_size)
        ]
        batch = torch.stack(clips)
        if task.device != "cpu":
            torch.cuda.synchronize()
        yield batch


VIDEO: dict[str, Callable[[Task], float]] = {"torchcodec": torchcodec, "PyNvVideoCodec": pynvvideocodec}
