"""Clips with known faults: copies of every kind made from others, and corpora in which one cue gives the class away."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Frames = list[NDArray[np.uint8]]
Change = Callable[[Frames, np.random.Generator], Frames]
COLUMNS = ("fname", "liveness_score", "subject", "attack_type", "session")


def read(path: Path) -> tuple[Frames, float]:
    """The upright frames of a video, and how many a second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(frame.to_ndarray(format="rgb24"), round(-frame.rotation / 90)) for frame in container.decode(stream)]
        return [np.rot90(picture, -turns) for picture, turns in frames], float(stream.average_rate or 25)


def write(path: Path, frames: Frames, fps: float, *, crf: int = 23, codec: str = "libx264") -> None:
    """A video of these frames, its sides made even."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def resize(frames: Frames, share: float) -> Frames:
    size = tuple(round(side * share) for side in frames[0].shape[1::-1])
    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    return [np.asarray(picture.resize(size, Image.Resampling.BILINEAR)) for picture in pictures]


def crop(frames: Frames, random: np.random.Generator) -> Frames:
    """Nine tenths of the sides, anywhere."""
    height, width = frames[0].shape[:2]
    top, left = (int(random.integers(0, side // 10 + 1)) for side in (height, width))
    return [frame[top : top + 9 * height // 10, left : left + 9 * width // 10] for frame in frames]


def trim(frames: Frames, random: np.random.Generator) -> Frames:
    """Up to a fifth off the start, a tenth off the end."""
    return frames[int(len(frames) * random.uniform(0, 0.2)) : len(frames) - len(frames) // 10]


def mirror(frames: Frames, random: np.random.Generator) -> Frames:
    return [frame[:, ::-1] for frame in frames]


CHANGES: Mapping[str, Change] = {
    "reencoded": lambda frames, random: frames,
    "resized": lambda frames, random: resize(frames, 0.6),
    "cropped": crop,
    "trimmed": trim,
    "mirrored": mirror,
    "all": lambda frames, random: crop(trim(mirror(frames, random), random), random),
}


def plant(source: Path, names: Sequence[str], out: Path, seed: int = 0) -> dict[str, str]:
    """`out`/videos with all of `source`/videos and a copy of each kind of each of `names`; out/label.csv.

    Returns copy → original. Copies have their original's row; every clip of `names` is there a second time as a file
    too (`same-…`).
    """
    random = np.random.default_rng(seed)
    shutil.copytree(source / "videos", out / "videos")
    with (source / "label.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    of = {row["fname"]: row for row in rows}
    truth = {}
    for name in names:
        frames, fps = read(source / "videos" / name)
        for kind, change in CHANGES.items():
            copy = f"{kind}-{name}"
            write(out / "videos" / copy, change(frames, random), fps, crf=int(random.integers(24, 33)))
            truth[copy] = name
        shutil.copy(source / "videos" / name, out / "videos" / f"same-{name}")
        truth[f"same-{name}"] = name
    rows += [of[original] | {"fname": copy} for copy, original in truth.items()]
    label(out / "label.csv", rows)
    return truth


def label(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a label file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def scene(random: np.random.Generator, num_frames: int, size: tuple[int, int] = (72, 96)) -> Frames:
    """A blurred random picture that drifts, with a little noise: no cue is the same in two, none knows a class."""
    height, width = size
    coarse = random.uniform(40, 200, (7, 9, 3)).astype(np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((2 * width, 2 * height), Image.Resampling.BICUBIC), np.float64)
    at = random.uniform(0, 0.5, 2) * [height, width]
    step = random.normal(0, 0.8, (num_frames, 2)).cumsum(0)
    frames = []
    for shift in step:
        top, left = np.clip(at + shift, 0, [height, width]).astype(int)
        picture = large[top : top + height, left : left + width] + random.normal(0, 4, (height, width, 3))
        frames.append(np.clip(picture, 0, 255).astype(np.uint8))
    return frames


Spoil = Callable[[Frames, bool, str], tuple[Frames, str, dict[str, Any]]]


def neutral(out: Path, spoil: Spoil, seed: int = 0) -> None:
    """`out`/videos and label.csv of 10 people, 6 clips each, of which none gives its class away but by `spoil`.

    spoil: frames, whether live, name → frames, name, options of `write`.
    """
    random = np.random.default_rng(seed)
    rows = []
    for person in range(10):
        for number, live in enumerate(random.permutation([True, False] * 3).tolist()):
            frames = scene(random, int(random.integers(10, 16)))
            frames, name, options = spoil(frames, live, f"clip-{person:02d}{number}")
            write(out / "videos" / f"{name}.mp4", frames, **({"fps": 25.0} | options))
            kind = "live" if live else "print"
            rows.append(dict(zip(COLUMNS, (f"{name}.mp4", str(int(live)), f"p{person}", kind, "s"), strict=True)))
    label(out / "label.csv", rows)
