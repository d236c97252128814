"""Weights, gradients and optimizer states in shards: the curve of DDP, and checkpoints that do not know the difference.

Two CPU processes over gloo, by launch/fsdp2.yaml. What differs from DDP is the order of sums alone; why losses are held
to 1e-3 says tests/test_two_processes.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from livetrain.engine import checkpoint
from tests.runs import launch, losses, records, weights

pytestmark = pytest.mark.slow  # whole runs, each started as a user starts it

OPTIONS = ("train.max_steps=8", "optim.warmup_steps=2", "optim.clip_grad_norm=0.5", "train.save_every_steps=4")
FSDP = "fsdp2.yaml"


@pytest.fixture(scope="module")
def one(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, without shards."""
    run_dir = tmp_path_factory.mktemp("one") / "run"
    done = launch(demo_shards, run_dir, *OPTIONS)
    assert done.returncode == 0, done.stderr
    return run_dir


@pytest.fixture(scope="module")
def two(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes with shards."""
    run_dir = tmp_path_factory.mktemp("two") / "run"
    done = launch(demo_shards, run_dir, *OPTIONS, processes=2, file=FSDP)
    assert done.returncode == 0, done.stderr
    return run_dir


def test_shards_train_as_one_process_does(one: Path, two: Path) -> None:
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)
    norms = [[record["grad_norm"] for record in records(run)] for run in (one, two)]
    assert norms[1][:3] == pytest.approx(norms[0][:3], rel=1e-3) and min(norms[0]) > 0.5, "clipped, all of them"
    scores = [(run / "scores" / "test.csv").read_text().splitlines() for run in (one, two)]
    assert len(scores[0]) == len(scores[1]) > 1


def test_a_checkpoint_gives_whole_tensors(one: Path, two: Path) -> None:
    whole, gathered = weights(one), weights(two)
    assert {n: w.shape for n, w in whole.items()} == {n: w.shape for n, w in gathered.items()}
    assert all(torch.allclose(whole[name], gathered[name], atol=2e-2) for name in whole)
    saved = [checkpoint.load(run / "checkpoints" / "step-00000008") for run in (one, two)]
    inner = [item.part("state", "optimizer")["state"] for item in saved]
    assert {n: v["exp_avg"].shape for n, v in inner[0].items()} == {n: v["exp_avg"].shape for n, v in inner[1].items()}
    files = sorted(path.name[:11] for path in (two / "checkpoints" / "step-00000008" / "tensors").iterdir())
    assert files == ["shard-00001", "shard-00002"], "each process wrote its own"


@pytest.mark.parametrize("file", [FSDP, "two_cpus.yaml"])
def test_a_run_goes_on_with_shards_or_without(two: Path, demo_shards: Path, tmp_path: Path, file: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(two, run, ignore=shutil.ignore_patterns("step-00000008", "best-*", "metrics.jsonl"))
    done = launch(demo_shards, run, *OPTIONS, processes=2, file=file)
    assert done.returncode == 0, done.stderr
    assert [record["step"] for record in records(run)] == [5, 6, 7, 8]
    tolerance = {"abs": 0.0, "rel": 0.0} if file == FSDP else {"abs": 1e-3}
    assert losses(run) == pytest.approx(losses(two)[4:], **tolerance)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train.ema_decay=0.9", "train.ema_decay is not kept with FSDP2"),
        ("optim.name=lamb", "optim.name=lamb is not tried"),
        ("optim.clip_agc=0.01", "optim.clip_agc needs whole weights"),
    ],
)
def test_what_would_not_be_right_is_refused(
    option: str, message: str, demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from livetrain.engine import sharded
    from livetrain.errors import UserError
    from tests.runs import small_config

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(UserError, match=message):
        sharded.plugin(small_config(demo_shards, tmp_path, option))
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UserError, match="fsdp_version: 2"):
        sharded.plugin(small_config(demo_shards, tmp_path))


def test_units_are_the_backbones_blocks() -> None:
    import timm

    from livetrain.engine.sharded import unit_names

    names = {"test_vit": ["Block"], "resnet18": ["BasicBlock"], "convnext_atto": ["ConvNeXtBlock"]}
    assert {name: unit_names(timm.create_model(name)) for name in names} == names
