"""Model packages: a folder that needs neither the run nor its configuration, and that timm loads."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import timm
import torch

from livetrain import cli
from livetrain.config import config_from
from livetrain.core.errors import UserError
from livetrain.inference import package
from livetrain.inference.model_card import model_card
from livetrain.inference.package import Trained, load, write
from livetrain.model import build_model


def untrained(**model: object) -> Trained:
    """A small model with random weights, as if it had been trained with these `model` keys."""
    values = {"data": {"image_size": 96}, "model": {"backbone": "test_vit", **model}, "eval": {"num_frames": 3}}
    config = config_from(values, "test")
    torch.manual_seed(0)
    return Trained(Path(), config, build_model(config.model, config.loss, 96).eval(), 0.25)


@pytest.fixture(scope="module")
def packed(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the run `plain`, made by the command."""
    out = tmp_path_factory.mktemp("package") / "model"
    assert cli.main(["package", str(plain), "--out", str(out), "--version", "1.2"]) == 0
    return out


def test_a_package_is_the_runs_best_checkpoint(plain: Path, packed: Path) -> None:
    run, again = load(plain), load(packed)
    verdict = json.loads((plain / "verdict.json").read_text())
    assert again.threshold == run.threshold == verdict["threshold"]
    assert again.facts["metrics"]["test"] == verdict["test"] and again.facts["version"] == "1.2"
    assert (again.model.mean, again.model.std) == (run.model.mean, run.model.std)
    assert again.config.data.image_size == 96 and again.config.eval.num_frames == 2
    ours, theirs = run.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not again.model.training and all(not module.training for module in again.model.modules())


def test_whoever_may_read_files_here_may_read_a_package(plain: Path, tmp_path: Path) -> None:
    """safetensors makes files for their owner alone."""
    before = os.umask(0o027)
    try:
        out = write(load(plain), tmp_path / "shared")
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in out.rglob("*") if path.is_file()} == {"0o640"}
    (best,) = (plain / "checkpoints").glob("best-*")
    assert (best / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~before


def test_a_package_needs_nothing_else(packed: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(packed, moved)
    assert str(packed) not in "".join((moved / name).read_text() for name in ("livetrain.json", "config.json"))
    assert load(moved).config == load(packed).config


def test_timm_loads_the_backbone_of_a_package(packed: Path) -> None:
    trained = load(packed)
    backbone = timm.create_model(f"local-dir:{packed}", pretrained=True).eval()
    pictures = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        # Not to the bit: some CPUs' kernels round by where in memory a tensor begins.
        assert (backbone(pictures) - trained.model.features(pictures[None])[0]).abs().max() < 1e-5
    kept = trained.model.backbone.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in backbone.state_dict().items())
    assert tuple(backbone.pretrained_cfg["mean"]) == trained.model.mean
    assert backbone.pretrained_cfg["input_size"] == (3, 96, 96)


@pytest.mark.parametrize("model", [{"pool": "attention"}, {"pool": "max", "normalization": "imagenet"}])
def test_pooling_and_normalisation_are_kept(model: dict[str, object], tmp_path: Path) -> None:
    trained = untrained(**model)
    again = load(write(trained, tmp_path / "model"))
    clips = torch.randn(2, 3, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(again.model(clips), trained.model(clips))
    assert again.model.mean == trained.model.mean and again.threshold == 0.25


def test_a_backbone_from_another_folder_is_packed_whole(tmp_path: Path) -> None:
    source = write(untrained(), tmp_path / "source")
    trained = untrained(backbone=f"local-dir:{source}")
    out = write(trained, tmp_path / "model")
    shutil.rmtree(source)
    ours, theirs = trained.model.state_dict(), load(out).model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_known_of_a_model_stays_known(tmp_path: Path) -> None:
    facts = {"step": 7, "criterion": "bpcer20", "temperature": 1.5, "metrics": {"dev": {"auc": 0.9}}}
    first = write(dataclasses.replace(untrained(), facts=facts), tmp_path / "first", version="3")
    again = load(write(load(first), tmp_path / "again"))
    assert again.facts == facts | {"version": "3"} and again.threshold == 0.25


def test_the_model_card_says_threshold_input_and_errors(packed: Path, plain: Path) -> None:
    card = (packed / "README.md").read_text()
    verdict = json.loads((plain / "verdict.json").read_text())
    assert f"p_live >= {verdict['threshold']:.6g}" in card and "version 1.2" in card
    assert "size: 96, 96" in card and f"| BPCER | {100 * verdict['dev']['bpcer']:.4g} %" in card


def test_a_step_checkpoint_has_no_threshold_of_its_own(plain: Path) -> None:
    step = max((plain / "checkpoints").glob("step-*"))
    assert load(step).threshold is None
    assert "none is known" in model_card(package.describe(load(step), ""))


def test_mistakes(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(packed, broken)
    weights = broken / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"broken is damaged: head\.safetensors"):
        load(broken)
    content = json.loads((packed / "livetrain.json").read_text())
    (broken / "livetrain.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(UserError, match="format 99, this version of livetrain reads 1"):
        load(broken)
    (broken / "livetrain.json").write_text("{")
    with pytest.raises(UserError, match="not a complete package"):
        load(broken)
    with pytest.raises(UserError, match="is none of these"):
        load(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "absent")
    assert cli.main(["package", str(packed), "--out", str(broken)]) == 2
    assert "holds something already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]
