"""Videos to measure with: the demo generator's people at any size, as a phone would store them.

A picture is rendered small, scaled up and given the noise of a sensor at full size, so that the bit rate is a real
one; then libx264 with its own defaults (B-frames, references, one key frame in 250), or with a GOP of your choice.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

from livetrain.core.files import atomic_write, write_text
from livetrain.core.progress import progress
from shards.demo import corpus

RENDERED_HEIGHT = 180
NOISE = 3.0  # standard deviation of the sensor noise, of 255


@dataclass(frozen=True)
class ClipSet:
    """What the clips are: pixels, seconds, frames a second, frames between key frames (0: libx264's own 250)."""

    width: int = 640
    height: int = 480
    seconds: float = 4.0
    fps: int = 25
    gop: int = 0
    num_clips: int = 16

    @property
    def num_frames(self) -> int:
        return round(self.seconds * self.fps)

    @property
    def name(self) -> str:
        gop = f"gop{self.gop}" if self.gop else "long-gop"
        return f"{self.height}p-{self.num_frames}f-{gop}-{self.num_clips}"


def make_clips(folder: Path, what: ClipSet) -> list[Path]:
    """The clips of a set, in `folder`/`what.name`, with a label.csv beside them; made once, then found again."""
    home = folder / what.name
    videos = [home / "videos" / f"{index:04d}.mp4" for index in range(what.num_clips)]
    missing = [index for index, video in enumerate(videos) if not video.exists()]
    if missing:
        with ProcessPoolExecutor() as pool, progress(f"clips {what.name}", len(missing), "clips") as advance:
            for _ in pool.map(partial(_write, what, home / "videos"), missing):
                advance()
    splits = {what.num_clips // 2 - 1: "dev", what.num_clips // 2 - 2: "test"}  # by person
    rows = [
        f"{video.name},{index % 2},person{index // 2},{splits.get(index // 2, 'train')}"
        for index, video in enumerate(videos)
    ]
    write_text(home / "label.csv", "\n".join(["fname,liveness_score,subject,split", *rows, ""]))
    return videos


def _write(what: ClipSet, folder: Path, index: int) -> None:
    small = corpus.Format(
        round(RENDERED_HEIGHT * what.width / what.height / 2) * 2, RENDERED_HEIGHT, Fraction(what.fps)
    )
    clip = corpus.Clip(0, index, 0, corpus.KINDS[index % len(corpus.KINDS)], small)
    random = np.random.default_rng(index)
    noise = random.normal(0, NOISE, (what.height + 64, what.width + 64)).round().astype(np.int16)
    with (
        atomic_write(folder / f"{index:04d}.mp4") as path,
        av.open(str(path), "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=what.fps, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = what.width, what.height, "yuv420p"
        if what.gop:
            stream.codec_context.gop_size = what.gop
        for pixels in corpus.render(clip, what.num_frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(what.width, what.height, "yuv420p")
            planes = frame.to_ndarray()  # luma rows first
            top, left = random.integers(64, size=2)
            luma = planes[: what.height]
            luma[:] = (luma + noise[top : top + what.height, left : left + what.width]).clip(16, 235)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
