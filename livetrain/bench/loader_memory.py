"""What the process of a loader holds, part by part as it comes up; a table of `livetrain bench loader`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from livetrain.bench.results import Table
from livetrain.bench.sides import race, tree_memory
from livetrain.core.machine import status_bytes

PARTS = (
    "Python and NumPy", "import torch", "import DALI and PyAV", "the rest of livetrain.data", "data set opened",
    "first batch", "the batches that follow",
)  # fmt: skip


def table(caption: str, keys: Sequence[str], num_batches: int) -> Table:
    """Memory after each part, in a process of its own. keys: of the configuration, `key=value`."""
    found = race({"loader": parts}, [tuple(keys), num_batches], rounds=1, title="loader memory", warm_up=False)
    side = found["loader"]
    if side.error:
        raise RuntimeError(side.error)
    rows = Table(caption, ("part", "memory, MiB", "added", "of it the process's own"))
    before = 0
    for name, (memory, own) in zip(PARTS, side.facts["memory"], strict=True):
        rows.rows.append((name, *(round(value / 2**20) for value in (memory, memory - before, own))))
        before = memory
    return rows


def parts(keys: Sequence[str], num_batches: int) -> tuple[float, dict[str, list[tuple[int, int]]]]:
    """Bytes after each part: PSS, and anonymous memory; a side that takes no time (rate 0)."""
    found = []

    def note() -> None:
        found.append((tree_memory(os.getpid()), status_bytes("RssAnon")))

    import numpy  # noqa: F401, ICN001

    note()
    import torch

    note()
    import av  # noqa: F401
    import nvidia.dali.fn  # noqa: F401

    note()
    from livetrain import data
    from livetrain.config import load_config
    from livetrain.core.world import World

    config = load_config([], keys, warn=lambda line: None)
    note()
    dataset = data.Dataset.open(config.data.shards, config.data)
    note()
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    world = World(torch.device("cpu"))
    with data.train_loader(dataset, config, world=world, mean=mean, std=std, num_steps=num_batches + 8) as loader:
        batches = iter(loader)
        next(batches)
        note()
        for _ in itertools.islice(batches, num_batches - 1):
            pass
        note()
    return 0.0, {"memory": found}
