"""`livetrain protocol`: every fold leaves its target alone until the end, and the table says who chose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from livetrain.config import load_config, split_arguments
from livetrain.core.errors import UserError
from livetrain.data import Dataset
from livetrain.jobs import protocol
from livetrain.tracking.run_dir import RunDir
from tests.runs import SMALL, records, train_here


@pytest.fixture
def root(demo_shards: Path, tmp_path: Path) -> Path:
    """The demo shards under the four names; so their clips are in several splits."""
    (tmp_path / "shards").mkdir()
    for name in protocol.FOLDERS.values():
        (tmp_path / "shards" / name).symlink_to(demo_shards)
    return tmp_path / "shards"


@pytest.mark.parametrize("name", list(protocol.PROTOCOLS))
def test_a_fold_trains_on_its_sources_and_is_tested_on_all_of_its_target(name: str, root: Path, tmp_path: Path) -> None:
    for fold in map(protocol.Fold, protocol.PROTOCOLS[name]):
        words = ["data.allow_leak=true", *fold.overrides(root, tmp_path)]
        config = load_config([], words, warn=lambda line: None)
        dataset = Dataset.of(config.data)
        of = {
            split: {dataset.text("domain", int(row)) for row in dataset.rows(getattr(config.data, f"{split}_split"))}
            for split in ("train", "dev", "test")
        }
        assert of == {"train": set(fold.sources), "dev": set(fold.sources), "test": {fold.target}}
        assert fold.target not in fold.sources and len(fold.sources) == {"ocim": 3, "mi": 2}[name]
        everything = [row for row in range(len(dataset)) if dataset.text("domain", row) == fold.target]
        assert dataset.rows(config.data.test_split).tolist() == everything
        assert config.eval.watch == config.data.test_split


@pytest.mark.slow
def test_two_folds_make_a_table_twice(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def train(arguments: Sequence[str]) -> int:
        assert arguments[:2] == ["--config_file", "launch/one_cpu.yaml"]
        config = load_config(*split_arguments(arguments[2:]), warn=lambda line: None)
        started.append(config.name)
        train_here(config)
        return 0

    monkeypatch.setattr(protocol, "train", train)
    out = tmp_path / "runs"
    options = ["mi", "--root", str(root), "--out", str(out), "--config_file", "launch/one_cpu.yaml"]
    words = [*SMALL, "data.allow_leak=true", "train.max_steps=4", "train.eval_every_epochs=0.05", "optim.lr=0.01"]
    assert protocol.main([*options, *words]) == 0
    assert started == ["MI-C", "MI-O"]
    first, second = (out / "protocol.md").read_text().split("As papers do")
    found = json.loads((out / "protocol.json").read_text())
    for result, name in zip(found, started, strict=True):
        watched = records(out / name, "watch")
        assert len(watched) > 1 and result["watched"]["eer"] == min(record["eer"] for record in watched)
        verdict = RunDir(out / name).read_verdict()
        assert f"{100 * verdict['test']['hter']:.2f} %" in first
        assert f"{100 * result['watched']['eer']:.2f} %" in second
        assert any("eval.watch=all@" in line and "flattered" in line for line in verdict["notices"])
    assert "chosen on the target itself" in second and first.count("| mean") == second.count("| mean") == 1
    assert protocol.main([*options, *words]) == 0 and len(started) == 2, "what is finished is not trained again"
    with pytest.raises(UserError, match="seed was 0 and is 1"):
        protocol.main([*options, *words, "seed=1"])


def test_losses_that_know_domains_get_those_of_the_fold(root: Path, tmp_path: Path) -> None:
    fold = protocol.Fold("OMI-C")
    own = fold.overrides(root, tmp_path)
    found = protocol._words(fold, ["domains.weighting=mean"], own)
    assert found == [*own, "domains.names=[oulu_npu,msu_mfsd,replay_attack]"]
    assert protocol._words(fold, ["seed=1"], own) == own


def test_a_folder_that_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    (root / "oulu_npu").unlink()
    with pytest.raises(UserError, match="has no shard folder oulu_npu; ocim needs it"):
        protocol.main(["ocim", "--root", str(root), "--out", str(tmp_path)])
