"""Cross-validation: folds that share nobody, one out-of-fold score file, every decision as in its own run."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from livetrain import cli
from livetrain.config import load_config
from livetrain.core.errors import UserError
from livetrain.jobs import cross_validation
from livetrain.verdict import scores
from shards import cli as shards_cli
from tests.runs import SMALL, train_here


@pytest.fixture(scope="module")
def folds(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("folds") / "shards"
    arguments = ["--videos", demo_videos / "videos", "--labels", demo_videos / "label.csv", "--out", out]
    assert shards_cli.main(["build", *map(str, arguments), "--folds", "3", "--workers", "1"]) == 0
    return out


def train(arguments: Sequence[str]) -> int:
    """In this process; what the launcher does is in other tests."""
    train_here(load_config([], arguments, warn=lambda line: None))
    return 0


@pytest.fixture(scope="module")
def done(folds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("cv") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_validation, "train", train)
        assert cli.main(["cv", *SMALL, f"data.shards={folds}", f"run_dir={run_dir}", "train.max_steps=3"]) == 0
    return run_dir


@pytest.mark.slow
def test_each_clip_is_tested_once_by_a_run_that_does_not_know_its_person(done: Path) -> None:
    together = scores.read(done / "scores" / "test.csv")
    assert len(together) == 36 == len(set(together.key.tolist()))
    tested = Counter()
    for fold in range(3):
        config = load_config([done / f"fold-{fold}" / "config.yaml"], [], warn=lambda line: None)
        assert config.data.test_split == f"fold{fold}" and f"fold{fold}" not in config.data.train_split
        own = scores.read(done / f"fold-{fold}" / "scores" / "test.csv")
        tested.update(own.subject.tolist())
    assert set(tested.values()) == {6}, "a person's clips are in one fold"
    verdict = json.loads((done / "verdict.json").read_text())
    assert verdict["threshold"] == 0.5 and verdict["test"]["num_clips"] == 36 and verdict["test"]["num_subjects"] == 6
    assert "3-fold cross-validation" in verdict["notices"][0] and (done / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_decisions_are_those_of_the_folds_own_thresholds(done: Path) -> None:
    together = scores.read(done / "scores" / "test.csv")
    accepted = dict(zip(together.key.tolist(), (together.p_live >= 0.5).tolist(), strict=True))
    for fold in range(3):
        own = scores.read(done / f"fold-{fold}" / "scores" / "test.csv")
        at = json.loads((done / f"fold-{fold}" / "verdict.json").read_text())["threshold"]
        assert [accepted[key] for key in own.key.tolist()] == (own.p_live >= at).tolist()


@pytest.mark.slow
def test_a_leak_in_a_fold_comes_first(done: Path, folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = Path(shutil.copytree(done, tmp_path / "run"))
    path = run_dir / "fold-1" / "verdict.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"notices": ["a leak"]}))
    assert cli.main(["cv", *SMALL, f"data.shards={folds}", f"run_dir={run_dir}", "train.max_steps=3"]) == 0
    assert json.loads((run_dir / "verdict.json").read_text())["notices"][0] == "fold 1: a leak"


@pytest.mark.slow
def test_folds_that_are_done_are_not_trained_again(done: Path, folds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cross_validation, "train", lambda arguments: asked.extend(arguments) or 1)
    base = [*SMALL, f"data.shards={folds}", f"run_dir={done}", "train.max_steps=3"]
    assert cli.main(["cv", *base]) == 0 and not asked
    assert cli.main(["cv", *base, f"run_dir={done}-new"]) == 1, "a fold's own exit code"
    assert "data.fold=0/3" in asked


@pytest.mark.slow
def test_folds_with_other_settings_are_not_joined(
    done: Path, folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cross_validation, "train", lambda arguments: 1)
    before = (done / "verdict.json").read_bytes()
    base = [*SMALL, f"data.shards={folds}", f"run_dir={done}", "train.max_steps=3"]
    assert cli.main(["cv", *base, "optim.lr=0.1"]) == 2
    said = capsys.readouterr().err
    assert f"{done / 'fold-0'} holds a run with other settings: optim.lr was" in said and "is 0.1" in said
    assert (done / "verdict.json").read_bytes() == before
    assert cli.main(["cv", *base, "data.threads=2", "tracking.worst_clips=3"]) == 0, "what changes no figure"
    other = tmp_path / "other"  # the same videos in folds again, of other people
    shutil.copytree(folds, other)
    assert shards_cli.main(["split", str(other), "--protocol", "kfold", "--folds", "3", "--seed", "7"]) == 0
    capsys.readouterr()
    base = [*SMALL, f"data.shards={other}", f"run_dir={done}", "train.max_steps=3"]
    assert cli.main(["cv", *base]) == 2 and "the data are not those it was trained on" in capsys.readouterr().err


def test_alignment_keeps_order_and_decisions() -> None:
    from tests.verdict.helpers import make_scores

    p = [0.0, 1e-9, 0.2, 0.3, np.nextafter(0.3, 1), 0.9, 1.0, None]
    of = make_scores([("live", value) for value in p])
    found = cross_validation.aligned(of, 0.3).p_live
    assert np.isnan(found[-1]) and (np.diff(found[:-1]) >= 0).all()
    assert (found[:-1] >= 0.5).tolist() == [False, False, False, True, True, True, True]
    assert found[2] == pytest.approx(1 / (1 + (0.3 / 0.7) / (0.2 / 0.8)))


def test_a_fold_keeps_no_domains_that_were_given_and_takes_those_left_out() -> None:
    with pytest.raises(UserError, match="does not go with data.test_split=fold2@a"):
        load_config([], ["data.shards=x", "data.fold=2/5", "data.test_split=fold2@a"], warn=lambda line: None)
    config = load_config([], ["data.shards=x", "data.fold=2/5", "data.leave_out=a"], warn=lambda line: None)
    assert (config.data.test_split, config.data.dev_split) == ("fold2@a", "fold3@-a")


@pytest.mark.parametrize(
    ("fold", "says"),
    [
        ("3/3", "not a fold"),
        ("1", "not a fold"),
        ("x/3", "not a fold"),
        ("0/2", "3 or more"),
        ("1/3", "does not go with"),
    ],
)
def test_mistakes_in_the_fold(fold: str, says: str) -> None:
    given = ["data.train_split=train"] if says == "does not go with" else []
    with pytest.raises(UserError, match=says):
        load_config([], ["data.shards=x", f"data.fold={fold}", *given], warn=lambda line: None)


def test_a_resolved_configuration_loads_again(tmp_path: Path) -> None:
    from livetrain.config import to_yaml

    config = load_config([], ["data.shards=x", "data.fold=2/5"], warn=lambda line: None)
    splits = (config.data.train_split, config.data.dev_split, config.data.test_split)
    assert splits == ("fold0+fold1+fold4", "fold3", "fold2")
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert load_config([tmp_path / "c.yaml"], [], warn=lambda line: None) == config


def test_shards_without_folds(demo_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cv", f"data.shards={demo_shards}"]) == 2
    assert "--protocol kfold" in capsys.readouterr().err
    assert cli.main(["cv", f"data.shards={demo_shards}", "data.fold=0/3"]) == 2
    assert "trains every fold" in capsys.readouterr().err
