"""Options of every benchmark."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from livetrain.core.machine import num_cores


def recipe() -> str:
    """Eight hexadecimal digits that change with the code that makes clips and shards.

    Data made by an older version is not used.
    """
    here = Path(__file__).resolve().parent
    makers = [here / name for name in ("clips.py", "corpus.py", "shards.py", "synthetic.py")]
    makers += sorted((here.parents[1] / "shards").rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in makers)).hexdigest()[:8]


@dataclass(frozen=True)
class Options:
    """Options of all benchmarks.

    quick: the short form, for the regression guard. rounds: passes of each side that count. data: where clips and
    shards to measure with are kept. device: "cpu" or "cuda". height: of the clips to measure with, 0 for all there are.
    workers: threads or processes a side may use.
    """

    quick: bool = False
    rounds: int = 5
    data: Path = Path("data/bench")
    device: str = "cpu"
    height: int = 0
    workers: int = num_cores()
