"""The state of a run: which dev evaluation is the best so far."""

from __future__ import annotations

import math

import pytest

from livetrain.config.schema import EvalConfig
from livetrain.training.state import TrainState, chosen_by


@pytest.mark.parametrize(
    ("criterion", "better", "worse"),
    [("eer", 0.1, 0.2), ("auc", 0.9, 0.8), ("loss", 0.3, 0.4)],
)
def test_a_better_figure_is_kept_and_a_worse_one_counted(criterion: str, better: float, worse: float) -> None:
    state = TrainState(eval_due=True)
    first = {"loss": 0.5, criterion: worse}
    assert state.take_dev(first, criterion) and (state.num_worse, state.eval_due) == (0, False)
    assert not state.take_dev(first, criterion) and state.num_worse == 1, "equal is no better"
    assert state.take_dev({"loss": 0.5, criterion: better}, criterion) and state.num_worse == 0
    assert not state.take_dev(first, criterion) and not state.take_dev(first, criterion) and state.num_worse == 2


def test_a_tie_is_decided_by_the_loss() -> None:
    state = TrainState()
    assert state.take_dev({"loss": 0.5, "eer": 0.2}, "eer") and state.take_dev({"loss": 0.4, "eer": 0.2}, "eer")


@pytest.mark.parametrize(("on", "criterion", "loss"), [
    ("dev", "eer", 0.1), ("shifted", "eer", 0.2), ("worst", "eer", 0.2), ("worst", "auc", 0.1), ("worst", "loss", 0.2)
])  # fmt: skip
def test_the_best_is_chosen_on_dev_or_shifted_dev_or_the_worse(on: str, criterion: str, loss: float) -> None:
    figures = {"dev": {"loss": 0.1, "eer": 0.1, "auc": 0.7}, "shifted": {"loss": 0.2, "eer": 0.3, "auc": 0.9}}
    assert chosen_by(figures, EvalConfig(select_on=on, criterion=criterion))["loss"] == loss


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_a_figure_that_does_not_exist_beats_nothing_but_none(nothing: float | None) -> None:
    """Dev of one class: the loss alone decides, until there is a figure."""
    state = TrainState()
    assert state.take_dev({"loss": 0.5, "eer": nothing}, "eer")
    assert state.take_dev({"loss": 0.9, "eer": 0.4}, "eer") and not state.take_dev({"loss": 0.1, "eer": nothing}, "eer")


def test_without_the_best_weights_the_next_are_the_best() -> None:
    state = TrainState()
    state.take_dev({"loss": 0.1, "eer": 0.0}, "eer")
    state.forget_best()
    assert state.take_dev({"loss": 0.9, "eer": 0.5}, "eer")


def test_a_run_without_a_checkpoint_begins_with_nothing() -> None:
    assert TrainState.of(None) == TrainState()
