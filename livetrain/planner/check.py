"""The planner's formulas against every measurement in benchmarks/: `livetrain plan --check benchmarks`.

A bench writes NAME.json beside NAME.md. Its `measurements` are rows

    {"kind": "update" | "training" | "loading", "name": …, "measured": number, "inputs": {argument: value}}

Inputs were measured on the same machine in the same run: of its parts, never of the whole. A JSON without measurements
must be named in NOT_PREDICTED; any other one is an error, so that nothing is passed over in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livetrain.core.errors import UserError
from livetrain.planner import formulas

TOLERANCE = 0.30  # of the measured value
FORMULAS: dict[str, Callable[..., float]] = {
    "update": formulas.update_seconds,  # seconds
    "training": formulas.training_rate,  # clips/s
    "loading": formulas.loader_rate,  # frames/s
}
# Their inputs (CPU seconds a frame) are taken from the very passes that are predicted: no test of the formula.
DERIVED = ("loading",)
NOT_PREDICTED = {
    "decode": "the loader's rate is predicted, decoding is a part of it",
    "shards": "shards are built before a run",
    "checkpoint": "checkpoints are written beside training",
    "keys": "options are chosen, not predicted",
    "predict": "prediction is no training run",
    "startup": "seconds, once a run",
    "plan": "a start takes seconds of a run of days",
    "gpu": "its figures are those of loader, step and ddp on another device",
    "memory": "of CPU processes; what is predicted is a GPU's",
    "download": "bytes, simulated",
    "evaluation": "microseconds a video",
}
RATIOS = "ratios.json"  # of `make bench-quick`: no measurement of its own


@dataclass(frozen=True)
class Checked:
    """One measurement and what the formula makes of its inputs."""

    bench: str
    name: str
    kind: str
    measured: float
    predicted: float

    @property
    def is_derived(self) -> bool:
        """Whether the prediction was made from the measurement that it is compared with."""
        return self.kind in DERIVED

    @property
    def error(self) -> float:
        """Relative: 0.1 where the prediction is a tenth above what was measured."""
        return self.predicted / self.measured - 1


def check(folder: Path) -> list[Checked]:
    """Every measurement in the JSON files of `folder`. Raises UserError for a file without any that is not excused."""
    found: list[Checked] = []
    for path in sorted(folder.glob("*.json")):
        if path.name == RATIOS:
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            mine = [_checked(path.stem, row) for row in content["measurements"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a result of `livetrain bench` ({type(error).__name__}: {error})") from None
        if not mine and path.stem not in NOT_PREDICTED:
            raise UserError(f"{path} has no measurement to check the planner against, and no reason why is known")
        found += mine
    return found


def _checked(bench: str, row: dict[str, Any]) -> Checked:
    predicted = FORMULAS[row["kind"]](**row["inputs"])
    return Checked(bench, row["name"], row["kind"], float(row["measured"]), predicted)


def format_text(found: list[Checked]) -> str:
    """A table, and how many lie within the tolerance."""
    from livetrain.core.tables import markdown

    rows = [
        (c.bench, c.name, c.kind, c.measured, c.predicted, f"{c.error:+.0%}", "yes" if c.is_derived else "")
        for c in found
    ]
    predictions = [c for c in found if not c.is_derived]
    num_derived = len(found) - len(predictions)
    good = sum(abs(c.error) <= TOLERANCE for c in predictions)
    table = markdown(("bench", "what", "kind", "measured", "predicted", "error", "derived"), rows)
    left_out = "; ".join(f"{name} ({why})" for name, why in NOT_PREDICTED.items())
    return (
        f"{table}\n\n{good} of {len(predictions)} predictions within {TOLERANCE:.0%}; {num_derived} rows are derived "
        "from the measurement itself, and count for nothing. Update: seconds; training: clips/s; loading: frames/s. "
        f"Not predicted: {left_out}."
    )
