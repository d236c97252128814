"""Where a process stands among those of its run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from livetrain.core.world import World

CPU = torch.device("cpu")


def test_it_is_what_accelerate_and_torchrun_say(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator: Any = SimpleNamespace(device=CPU, process_index=5, num_processes=8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert World.of(accelerator) == World(CPU, rank=5, size=8, local_size=4) and not World.of(accelerator).is_first
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert World.of(accelerator).local_size == 8, "all on one machine"


def test_alone() -> None:
    assert World(CPU) == World(CPU, 0, 1, 1) and World(CPU).is_first
