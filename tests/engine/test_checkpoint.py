"""Checkpoints: exact, whole or absent, the newest good one found, the old ones pruned after the new one stands."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from livetrain.engine import checkpoint
from livetrain.engine.checkpoint import Checkpoint
from livetrain.errors import UserError


def make(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    model = {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last),
        "count": torch.tensor(step),
        "half": torch.randn(5, generator=generator).bfloat16(),
    }
    state = {
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        "carry": {"best": 0.5},
    }
    whole = checkpoint.snapshot({"model": model, "ema": {"w": torch.ones(3)}, "state": state}, {})
    return Checkpoint(step, whole["model"], whole["ema"], whole["state"])


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    before = make(7)
    after = checkpoint.load(checkpoint.save(tmp_path, before, keep_last=2))
    assert after.step == 7 and after.ema is not None and torch.equal(after.ema["w"], torch.ones(3))
    assert after.model.keys() == before.model.keys()
    assert all(torch.equal(after.model[k], v) and after.model[k].dtype == v.dtype for k, v in before.model.items())
    assert after.state["carry"] == {"best": 0.5}


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10, 11):
        checkpoint.save(tmp_path, make(step), keep_last=2)
    assert [path.name for path in checkpoint.list_steps(tmp_path)] == ["step-00000010", "step-00000011"]


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "no manifest", "empty manifest"])
def test_damaged_newest_is_passed_over_with_a_warning(damage: str, tmp_path: Path) -> None:
    for step in (5, 6):
        checkpoint.save(tmp_path, make(step), keep_last=3)
    folder = tmp_path / "step-00000006"
    if damage == "flip":
        flip_byte(folder / checkpoint.STATE)
    elif damage == "cut":
        (folder / checkpoint.MODEL).write_bytes((folder / checkpoint.MODEL).read_bytes()[:-5])
    elif damage == "missing":
        (folder / checkpoint.EMA).unlink()
    elif damage == "no manifest":
        (folder / checkpoint.MANIFEST).unlink()
    else:
        (folder / checkpoint.MANIFEST).write_text("")
    warnings: list[str] = []
    found = checkpoint.newest(tmp_path, warnings.append)
    assert found is not None and found.step == 5
    assert len(warnings) == 1 and "step-00000006" in warnings[0]


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nowhere", print) is None
    assert checkpoint.load_best(tmp_path) is None


def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, make(1), keep_last=1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="step-00000002.*No space left"):
        checkpoint.save(tmp_path, make(2), keep_last=1)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001"]
    assert checkpoint.newest(tmp_path, print) is not None


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    """A state file that would run code when unpickled: refused, and the code does not run."""
    marker = tmp_path / "owned"

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (marker,))

    evil = Checkpoint(3, {"w": torch.ones(1)}, None, {"optimizer": Evil()})
    folder = checkpoint.save(tmp_path, evil, keep_last=1)
    with pytest.raises(UserError, match="state.pt"):
        checkpoint.load(folder)
    assert not marker.exists()


def test_best_replaces_best(tmp_path: Path) -> None:
    checkpoint.save_best(tmp_path, 5, {"w": torch.zeros(2)}, {"dev": {"eer": 0.5}})
    checkpoint.save_best(tmp_path, 9, {"w": torch.ones(2)}, {"dev": {"eer": 0.1}})
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-00000009"]
    best = checkpoint.load_best(tmp_path)
    assert best is not None and best[1]["dev"] == {"eer": 0.1} and torch.equal(best[0]["w"], torch.ones(2))
    with pytest.raises(UserError, match="choose a step"):
        checkpoint.load(tmp_path / "best-00000009")
