"""People in two splits end a run before it begins, unless that is allowed, and then it is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from livetrain.config import DataConfig
from livetrain.core.errors import UserError
from livetrain.data import Dataset, leaks
from livetrain.verdict import verdict
from shards.format import index_table
from tests.runs import records, small_config, train_here
from tests.shards.clips import copied, note_changes

SPLITS = {"train": "train", "dev": "dev", "test": "test"}


@pytest.fixture
def leaky(demo_shards: Path, tmp_path: Path) -> Path:
    """The demo shards with a clip of someone in test who is in train too."""
    folder = Path(shutil.copytree(demo_shards, tmp_path / "leaky"))
    rows = index_table.read(folder / "index.arrow").to_pylist()
    one = next(row for row in rows if row["split"] == "train")
    two = [row for row in rows if row["subject"] == one["subject"]]
    two[1]["split"] = "test"
    index_table.write(folder / "index.arrow", rows)
    note_changes(folder)
    return folder


def test_what_is_built_has_no_leaks(demo_shards: Path) -> None:
    assert leaks.find_leaks(Dataset.open(demo_shards), SPLITS) == []


def test_a_leak_is_found_with_its_person(leaky: Path) -> None:
    (found,) = leaks.find_leaks(Dataset.open(leaky), SPLITS)
    assert (found.one, found.other, found.num) == ("train", "test", 1)
    assert found.example in {row["subject"] for row in index_table.read(leaky / "index.arrow").to_pylist()}


def test_a_person_is_someone_else_in_another_domain(demo_shards: Path, tmp_path: Path) -> None:
    parts = [str(shutil.copytree(demo_shards, tmp_path / name)) for name in ("a", "b")]
    dataset = Dataset.of(DataConfig(sources=parts))
    assert leaks.find_leaks(dataset, {"train": "all@a", "test": "all@b"}) == []
    (found,) = leaks.find_leaks(dataset, {"one": "train", "two": "train@b"})
    assert found.num == dataset.num_subjects(dataset.rows("train@b")) and found.example.startswith("b/")


def test_clips_of_unknown_people_are_no_leak(demo_shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(demo_shards, tmp_path / "unknown"))
    rows = index_table.read(folder / "index.arrow").to_pylist()
    index_table.write(folder / "index.arrow", [row | {"subject": ""} for row in rows])
    note_changes(folder)
    assert leaks.find_leaks(Dataset.open(folder), SPLITS) == []


def test_training_refuses_and_says_what_to_do(leaky: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 people are in train and test .*data.allow_leak=true"):
        train_here(small_config(leaky, tmp_path / "run"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.slow
def test_an_allowed_leak_is_the_first_line_of_the_verdict(
    leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train_here(small_config(leaky, run, "data.allow_leak=true", "train.max_steps=1"), with_report=True)
    figures = json.loads((run / "verdict.json").read_text())
    assert verdict.format_text(figures).splitlines()[0].startswith("LEAK: 1 people are in train and test")
    assert figures["notices"][0] in (run / "report.html").read_text()
    assert figures["notices"][0] in capsys.readouterr().out


def test_a_file_in_two_splits_is_found_under_whatever_name(demo_shards: Path, tmp_path: Path) -> None:
    """Also where folders that hold it are joined, and where nobody is named."""
    parts = [str(shutil.copytree(demo_shards, tmp_path / name)) for name in ("a", "b")]
    dataset = Dataset.of(DataConfig(sources=parts))
    num = len(Dataset.open(demo_shards))
    (found,) = leaks.find_copies(dataset, {"train": "all@a", "test": "all@b"})
    assert found.num == num and str(found).startswith(f"{num} files are in train and test (such as a/")
    assert leaks.find_copies(Dataset.open(demo_shards), SPLITS) == []
    config = small_config(
        Path(), tmp_path / "run", "data.shards=", f"data.sources=[{','.join(parts)}]", "data.train_split=all@a",
        "data.dev_split=dev@b", "data.test_split=test@b",
    )  # fmt: skip
    with pytest.raises(UserError, match="files are in train and test"):
        train_here(config)
    other = copied(demo_shards, tmp_path / "c")
    apart = Dataset.of(DataConfig(sources=[parts[0], str(other)]))
    assert leaks.find_copies(apart, {"train": "all@a", "test": "all@c"}) == []
    rows = np.arange(num)
    heads = [int(sha256[:16], 16) for sha256 in Dataset.open(demo_shards).columns["sha256"].to_pylist()]
    assert Dataset.open(demo_shards).contents(rows).tolist() == heads


@pytest.mark.slow
def test_train_on_one_domain_and_test_on_another(demo_shards: Path, tmp_path: Path) -> None:
    """A leave-one-domain-out run from its configuration: dev of the sources, test of what was left out."""
    from livetrain.verdict import scores

    parts = [str(copied(demo_shards, tmp_path / name)) for name in ("casia", "msu", "oulu")]
    run = tmp_path / "run"
    keys = [f"data.sources=[{','.join(parts)}]", "data.leave_out=oulu", "data.train_split=train+test"]
    config = small_config(
        Path(), run, "data.shards=", *keys, "data.test_split=all", "data.weights=[1,2,1]", "train.max_steps=2"
    )
    train_here(config)
    dev, test = (scores.read(run / "scores" / f"{name}.csv") for name in ("dev", "test"))
    assert {key.partition("/")[0] for key in dev.key} == {"casia", "msu"}
    assert {key.partition("/")[0] for key in test.key} == {"oulu"} and {g[:5] for g in test.subject} == {"oulu/"}
    assert len(test) == len(Dataset.open(demo_shards)) and len(records(run)) == 2


def test_an_ensemble_says_what_its_members_said(tmp_path: Path) -> None:
    from livetrain.inference.ensemble import notices

    runs = [tmp_path / name for name in ("a", "b", "c")]
    for folder, message in zip(runs, (["LEAK: x"], [], ["LEAK: x", "LEAK: y"]), strict=True):
        folder.mkdir()
        (folder / "verdict.json").write_text(json.dumps({"notices": message}))
    assert notices([*runs, tmp_path / "checkpoint"]) == ["LEAK: x", "LEAK: y"]
