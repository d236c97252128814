"""Checkpoints as one file: the same tensors, and what cannot be loaded is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import HashStore

from livetrain import cli
from livetrain.checkpoint import folders
from livetrain.checkpoint.barrier import RankBarrier
from livetrain.checkpoint.folders import Checkpoint


def save(folder: Path, ema: dict[str, torch.Tensor] | None) -> Path:
    """A checkpoint whose tensors two processes wrote."""
    model = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(9)}
    store = HashStore()
    for rank in (1, 0):
        team = RankBarrier(rank, 2, store)
        whole = Checkpoint(3, model, ema, {"optimizer": {"state": {0: {"exp_avg": 2 * model["a"]}}}})
        outline, share = folders.share_of(whole, lambda name: True, team)
        path = folders.save(folder, outline, keep_last=1, share=share, team=team)
    assert len(list(path.rglob("*.safetensors"))) == 2
    return path


def test_weights_average_or_all_become_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path, {"a": torch.zeros(2, 3), "b": torch.zeros(9)})
    out = tmp_path / "one.safetensors"
    assert cli.main(["consolidate", str(folder), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    found = load_file(out)
    assert torch.equal(found["a"], torch.arange(6.0).reshape(2, 3)) and found["b"].sum() == 9
    assert cli.main(["consolidate", str(folder), "--out", str(out), "--averaged"]) == 0
    assert sum(float(tensor.abs().sum()) for tensor in load_file(out).values()) == 0
    assert cli.main(["consolidate", str(folder), "--out", str(out), "--all"]) == 0
    assert sorted(load_file(out)) == ["ema/a", "ema/b", "model/a", "model/b", "state/optimizer/state/0/exp_avg"]


def test_what_cannot_be_had_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path, None)
    for arguments, message in (
        ([str(folder), "--out", "x.pt"], "must end in .safetensors"),
        ([str(tmp_path / "nowhere"), "--out", "x.safetensors"], "no such folder"),
        ([str(folder), "--out", "x.safetensors", "--averaged"], "has no average of the weights"),
    ):
        assert cli.main(["consolidate", *arguments]) == 2
        assert message in capsys.readouterr().err
