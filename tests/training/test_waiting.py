"""Nothing waits for the device between log lines: every read of a tensor's value by Python is counted.

On a GPU each such read waits for all that was asked of the device. `StepResult.figures` is the one that may be: its
numbers were sent to the host beforehand, and are looked at an update later.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode, resolve_name

from livetrain.training.step import StepResult, Updater
from livetrain.training.trainer import Trainer
from tests.runs import small_config, train_here

READS = {"item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "nonzero", "equal"}


class Reads(TorchFunctionMode):
    """Counts reads of tensors' values by update, of this thread alone: the loader has threads of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self.updates: Counter[int] = Counter()  # within Updater.update
        self.step = 0
        self.is_updating = self.is_excused = False
        self.optimizer: Any = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = (resolve_name(function) or "").rpartition(".")[2]
        if name in READS and not self.is_excused and not self.is_step_count(args[0]):
            self.counts[self.step] += 1
            self.updates[self.step] += self.is_updating
        return function(*args, **(kwargs or {}))

    def is_step_count(self, tensor: torch.Tensor) -> bool:
        """An optimizer's count of its steps is kept on the CPU whatever the device is."""
        states = self.optimizer.state.values() if self.optimizer else ()
        return any(state.get("step") is tensor for state in states)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    mode = Reads()
    update, figures, train = Updater.update, StepResult.figures, Trainer.train

    def counted_update(self: Updater, step: int, *args: Any, **options: Any) -> StepResult:
        mode.step, mode.is_updating, mode.optimizer = step + 1, True, self.optimizer
        try:
            return update(self, step, *args, **options)
        finally:
            mode.is_updating = False

    def excused_figures(self: StepResult) -> Any:
        mode.is_excused = True
        try:
            return figures(self)
        finally:
            mode.is_excused = False

    def counted_train(self: Trainer) -> None:
        with mode:
            train(self)

    monkeypatch.setattr(Updater, "update", counted_update)
    monkeypatch.setattr(StepResult, "figures", excused_figures)
    monkeypatch.setattr(Trainer, "train", counted_train)
    return mode


OPTIONS = (
    "train.max_steps=12", "train.log_every=5", "train.ema_decay=0.9", "train.accumulation=2", "optim.clip_grad_norm=1",
    "optim.clip_grad_value=1", "optim.clip_agc=0.1", "augment.mixup=0.5", "loss.attack_types=[print,replay]",
    "train.precision=bf16",
)  # fmt: skip


@pytest.mark.slow
def test_only_log_lines_and_evaluations_wait(demo_shards: Path, tmp_path: Path, reads: Reads) -> None:
    train_here(small_config(demo_shards, tmp_path / "run", *OPTIONS))
    assert sum(reads.updates.values()) == 0
    assert {step for step, count in reads.counts.items() if count} == {5, 10, 12}, reads.counts


@pytest.mark.slow
def test_leaving_updates_out_waits_in_each(demo_shards: Path, tmp_path: Path, reads: Reads) -> None:
    """The count sees what it is there to see."""
    train_here(small_config(demo_shards, tmp_path / "run", *OPTIONS, "train.on_non_finite=skip"))
    assert all(reads.updates[step] == 1 for step in range(1, 13)), reads.updates
