"""What every bench is told."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """quick: the short form, for the regression guard. rounds: passes of each side that count. data: where clips and
    shards to measure with are kept. device: "cpu" or "cuda". height: of the clips to measure with, 0 for all there are.
    workers: threads or processes a side may use."""

    quick: bool = False
    rounds: int = 5
    data: Path = Path("data/bench")
    device: str = "cpu"
    height: int = 0
    workers: int = len(os.sched_getaffinity(0))
