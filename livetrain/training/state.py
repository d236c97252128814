"""What training carries from one step to the next beyond weights and optimizer; in every checkpoint."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from livetrain.checkpoint.folders import CheckpointReader
from livetrain.config.schema import EvalConfig

STORED_AS = "carry"  # in a checkpoint's state


def chosen_by(figures: dict[str, dict[str, Any]], options: EvalConfig) -> dict[str, Any]:
    """The figures that eval.select_on chooses by, of those of `dev` and `shifted` dev."""
    if options.select_on != "worst":
        return figures[options.select_on]
    return max(figures.values(), key=lambda found: rank(found, options.criterion))


def rank(figures: dict[str, Any], criterion: str) -> tuple[float, float]:
    """The lower, the better, by `criterion` (eer, auc, loss); small splits tie often: then by the loss."""
    value = figures.get(criterion)
    value = math.inf if value is None or math.isnan(value) else -value if criterion == "auc" else value
    return value, float(figures["loss"])


@dataclass
class TrainState:
    """Counters and bests of a run, in every checkpoint.

    Loss sum and clips since the last log line, clips that failed to load so far, steps skipped so far and in a row, the
    best dev figure (lower is better), whether the dev evaluation of this step is still to be done, evaluations since
    the best one, and clips that failed when they were last requested (see LostClips.state).
    """

    window_loss: float = 0.0
    window_clips: float = 0.0
    num_skipped: int = 0
    num_left_out: int = 0
    left_out_in_a_row: int = 0
    best: float = math.inf
    best_loss: float = math.inf
    eval_due: bool = False
    num_worse: int = 0
    lost: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(start: CheckpointReader | None) -> TrainState:
        """That of a checkpoint; a fresh one without."""
        return TrainState(**start.part("state", STORED_AS)) if start else TrainState()

    def forget_best(self) -> None:
        """The best weights are not on the disk: whatever is evaluated next is the best there is."""
        self.best = self.best_loss = math.inf

    def take_dev(self, figures: dict[str, Any], criterion: str) -> bool:
        """Whether a dev evaluation is better than all before (see `rank`), which is noted here."""
        value, loss = rank(figures, criterion)
        self.eval_due = False
        self.num_worse += 1
        if (value, loss) >= (self.best, self.best_loss):
            return False
        self.num_worse, self.best, self.best_loss = 0, value, loss
        return True
