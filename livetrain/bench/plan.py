"""`livetrain bench plan`: what opening shards, the first batch and planning cost as a data set grows.

Every size is a fresh process that imports everything first; then the clock runs: open the folder, find the split's
rows, start the loader, wait for the first batch. At step 0, and as a run resumed at step one million.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.bench.clips import ClipSet
from livetrain.bench.corpus import make_task
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import Measured, race, ratio
from livetrain.bench.synthetic import make_folder
from livetrain.core.machine import status_bytes
from livetrain.core.world import World

SAMPLES_A_SHARD = 1000
FAR = 1_000_000  # the step of a resumed run
BATCH = 32


def run(options: Options) -> Report:
    """Growth of the start with real folders, and of planning with counted ones."""
    real = make_task(ClipSet(320, 240, num_clips=8), options, "resize").shards
    sizes = (10**3, 10**6) if options.quick else (10**3, 10**4, 10**5, 10**6, 10**7)
    starts = Table(
        f"A process with everything imported: until the first batch of {BATCH} clips, and memory of index and rows "
        "beyond what the imports took: private, and pages of the mapped index that were looked at (the kernel may drop "
        "them).",
        ("samples", "shards", "open, ms", "rows of the split, ms", "first batch, s", f"at step {FAR:,}, s",
         "private, MiB", "mapped, MiB"),
    )  # fmt: skip
    folders = {
        size: make_folder(real, options.data / f"index-{size}", size, max(1, size // SAMPLES_A_SHARD)) for size in sizes
    }
    far_sizes = sizes[-1:] if options.quick else sizes
    sides = {_side(size, 0): partial(first_batch, folder) for size, folder in folders.items()}
    sides |= {_side(size, FAR): partial(first_batch, folders[size], FAR) for size in far_sizes}
    found = race(sides, [], rounds=options.rounds, title="first batch", fresh=True, warm_up=False)
    for size in sizes:
        start, far = found[_side(size, 0)], found.get(_side(size, FAR), Measured())
        facts = start.facts
        if not facts:
            raise RuntimeError(start.error)
        starts.rows.append(
            (size, max(1, size // SAMPLES_A_SHARD), facts["open"] * 1e3, facts["rows"] * 1e3, 1 / start.rate,
             1 / far.rate, facts["private"] / 2**20, facts["mapped"] / 2**20)
        )  # fmt: skip
    smallest, largest = found[_side(sizes[0], 0)], found[_side(sizes[-1], 0)]
    ratios = {
        "start: first batch at step 0 over at step 1e6": ratio(found[_side(sizes[-1], FAR)], largest),
        f"start: {sizes[0]:,} over {sizes[-1]:,} samples": ratio(largest, smallest),
    }
    plans = _planning(options)
    last = starts.rows[-1]
    summary = (
        f"With {last[0]:,} samples in {last[1]:,} shards the first batch comes {last[4]:.2f} s after the imports, "
        f"{last[5]:.2f} s at step {FAR:,}; index and rows hold {last[6]:.0f} MiB of private memory. "
        f"Planning a batch of {BATCH} clips of {plans.rows[-1][0]:,} samples takes {plans.rows[-1][1]:.2f} ms."
    )
    return Report("Start-up and growth", summary, [starts, plans], ratios)


def first_batch(folder: Path, step: int = 0) -> tuple[float, dict[str, float]]:
    """One over the seconds until the first batch, with the parts of it, in a process that has imported everything."""
    import torch

    from livetrain.bench.peers import MEAN, STD
    from livetrain.config import load_config
    from livetrain.data import Dataset, train_loader

    keys = [f"data.shards={folder}", "data.train_split=train", f"train.global_batch={BATCH}", "data.image_size=112"]
    config = load_config([], keys, warn=lambda line: None)
    before = _memory()
    started = time.perf_counter()
    dataset = Dataset.open(folder, config.data)
    opened = time.perf_counter()
    rows = dataset.rows("train")
    found = time.perf_counter()
    after = _memory()
    loader = train_loader(
        dataset, config, world=World(torch.device("cpu")), mean=MEAN, std=STD,
        start_step=step, num_steps=step + 2,
    )  # fmt: skip
    with loader:
        next(iter(loader))
        seconds = time.perf_counter() - found
    facts = {name: after[name] - before[name] for name in before}
    facts |= {"open": opened - started, "rows": found - opened, "num_rows": float(len(rows))}
    dataset.close()
    return 1 / (seconds + opened - started), facts


def _side(size: int, step: int) -> str:
    return f"{size:,} samples at step {step:,}"


def _memory() -> dict[str, float]:
    """Bytes of this process: private ones, and pages of mapped files."""
    return {"private": float(status_bytes("RssAnon")), "mapped": float(status_bytes("RssFile"))}


class _Counted:
    """A column of `size` samples that takes no memory: `value`, or the row itself."""

    def __init__(self, size: int, value: float | None = None) -> None:
        self._size, self._value = size, value

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return rows if self._value is None else np.full(len(rows), self._value)


def _planning(options: Options) -> Table:
    from livetrain.config import load_config
    from livetrain.data.plan import Samples, plan_train

    config = load_config([], ["data.shards=none", f"train.global_batch={BATCH}"], warn=lambda line: None)
    table = Table(
        f"Planning one batch of {BATCH} clips with all augmentations, median, at step 0 and at step {FAR:,}.",
        ("samples", "at step 0, ms", f"at step {FAR:,}, ms"),
    )
    for size in (10**3, 10**6, 10**9) if options.quick else [10**power for power in range(3, 10)]:
        values = {"num_frames": 100, "duration_seconds": 4, "fps": 25, "height": 480, "width": 640, "rotation": 0} | {
            "coded_height": 480,
            "coded_width": 640,
            "sample_aspect_ratio": 1,
        }
        columns: Mapping[str, Any] = {name: _Counted(size, value) for name, value in values.items()}
        samples = Samples(_Counted(size), columns)  # type: ignore[arg-type]
        milliseconds = []
        for first in (0, FAR):
            seconds = []
            for step in range(first, first + 200):
                started = time.perf_counter()
                plan_train(samples, config, step, 0, 0, 1)
                seconds.append(time.perf_counter() - started)
            milliseconds.append(1e3 * statistics.median(seconds))
        table.rows.append((size, *milliseconds))
    return table
