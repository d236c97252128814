"""The clips of a bench in every form a side may want: videos, shards of them, shards of frames, JPEG files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from livetrain.bench.clips import ClipSet, make_clips
from livetrain.bench.options import Options
from livetrain.bench.peers import Task, decode_pyav
from livetrain.core.engines import LocalEngine
from livetrain.core.errors import UserError
from livetrain.core.files import write_text
from shards import build, build_request
from shards.format import manifest
from shards.stores import QUALITY, StoreOptions

STANDARD = (ClipSet(640, 480), ClipSet(1920, 1080))  # 4 s at 25 frames/s, libx264's defaults
QUICK = (ClipSet(640, 480, seconds=2.0, num_clips=6),)


def clip_sets(options: Options) -> tuple[ClipSet, ...]:
    """What to measure with."""
    chosen = QUICK if options.quick else STANDARD
    found = tuple(what for what in chosen if options.height in (0, what.height))
    if not found:
        raise UserError(f"--height {options.height}: there are {', '.join(str(what.height) for what in chosen)}")
    return found


def make_task(what: ClipSet, options: Options, level: str, *, frames: bool = False) -> Task:
    """The clips and their shards, built where they are missing; with `frames` also frame shards and JPEG files."""
    home = options.data / what.name
    videos = make_clips(options.data, what)
    shards, frame_shards, jpegs = home / "shards", home / "frame-shards", home / "jpegs"
    _build(home, shards, StoreOptions())
    if frames:
        _build(home, frame_shards, StoreOptions("frames", num_frames=16))
        _extract(videos, jpegs, what.num_frames)
    return Task(
        tuple(videos), what.num_frames, shards, frame_shards, jpegs, level, workers=options.workers,
        batch_size=4 if what.height > 720 else 8, count=2 if what.height > 720 else 4 if options.quick else 6,
        device=options.device,
    )  # fmt: skip


def build_shards(options: Options, what: ClipSet, store: str) -> Path:
    """Shards of the set's clips in another store, built where they are missing."""
    home = options.data / what.name
    make_clips(options.data, what)
    _build(home, home / f"{store}-shards", StoreOptions(store))
    return home / f"{store}-shards"


def is_built(shards: Path) -> bool:
    """Whether there are shards of the format of this version: what an older one left is built again."""
    try:
        manifest.read(shards)
    except (UserError, ValueError):
        return False
    return True


def _build(home: Path, out: Path, media: StoreOptions) -> None:
    if not is_built(out):
        options = build_request.Options(media=media, shard_mb=16)
        build.build(home / "videos", home / "label.csv", out, options, engine=LocalEngine(2), overwrite=True)


def _extract(videos: list[Path], folder: Path, num_frames: int) -> None:
    """Every frame of every video as folder/<video>/<number>.jpg."""
    from PIL import Image

    def extract(video: Path) -> None:
        if (folder / video.stem / "done").exists():
            return
        (folder / video.stem).mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(decode_pyav(video, np.arange(num_frames))):
            Image.fromarray(pixels).save(folder / video.stem / f"{number:05d}.jpg", quality=QUALITY["frames"])
        write_text(folder / video.stem / "done", "")

    with ThreadPoolExecutor() as pool:
        list(pool.map(extract, videos))
