"""`shards split`: other splits in place, nobody in two of them, no tar touched, checksums that fit."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest

from livetrain.core.errors import UserError
from livetrain.data import Dataset
from shards import cli, split
from shards.format import index_table
from shards.labels import Label, Labels
from shards.split import by_hash
from shards.verify import verify
from tests.shards import clips

FRACTIONS = split.parse_fractions("0.6,0.2,0.2")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty clips of five people (live, print, live, replay each), and one that is rejected."""
    folder = clips.corpus(tmp_path_factory.mktemp("c") / "c")
    (folder / "videos" / "bad.mp4").write_bytes(b"no video")
    with (folder / "label.csv").open("a") as file:
        file.write("bad.mp4,0,print,ann\n")
    out = tmp_path_factory.mktemp("s") / "s"
    assert clips.build(folder, out, "--domain", "demo") == 0
    return out


@pytest.fixture
def shards(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "shards"))


def run(folder: Path, *options: str) -> int:
    return cli.main(["split", str(folder), *options])


def rows(folder: Path) -> list[dict]:
    return index_table.read(folder / "index.arrow").to_pylist()


def people(members: list[dict]) -> dict[str, set[str]]:
    """subject → its splits."""
    found: dict[str, set[str]] = {}
    for row in members:
        found.setdefault(row["subject"], set()).add(row["split"])
    return found


def test_folds_replace_the_splits_and_nothing_else(
    built: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows(shards)
    assert run(shards, "--protocol", "kfold", "--folds", "5") == 0
    after = rows(shards)
    assert pyarrow.parquet.read_table(shards / "index.parquet").to_pylist() == after
    assert [row | {"split": ""} for row in after] == [row | {"split": ""} for row in before]
    assert {row["split"] for row in after} == {f"fold{i}" for i in range(5)}
    assert all(len(splits) == 1 for splits in people(after).values())
    with (shards / "rejected.csv").open(newline="") as file:
        (rejected,) = csv.DictReader(file)
    assert {rejected["split"]} == people(after)["ann"], "a failure to acquire counts where its person is"
    assert verify(shards) == [] and verify(shards, thorough=True) == []
    changed = {name for name, digest in clips.digests(shards).items() if clips.digests(built)[name] != digest}
    assert changed == {"index.arrow", "index.parquet", "dataset.json", "rejected.csv"}
    assert "fold0" in capsys.readouterr().out


def test_a_hash_splits_each_by_their_own_name(shards: Path) -> None:
    """As the builder's does, whoever else is there."""
    assert run(shards, "--protocol", "hash", "--fractions", "0.5,0,0.5", "--seed", "3") == 0
    after = rows(shards)
    for row in after:
        assert row["split"] == by_hash(f"{row['domain']}\n{row['subject']}", {"train": 0.5, "test": 0.5}, 3)
    assert {row["split"] for row in after} == {"train", "test"}


def test_splits_that_lack_a_class_are_named(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(shards, "--protocol", "hash", "--fractions", "0.98,0.01,0.01", "--seed", "3") == 0
    assert {row["split"] for row in rows(shards)} == {"train"}
    warnings = capsys.readouterr().err
    assert "WARNING: the split 'dev' has no clip:" in warnings and "WARNING: the split 'test' has no clip:" in warnings
    assert "'train'" not in warnings
    assert run(shards, "--protocol", "random") == 0
    assert "WARNING: the split" not in capsys.readouterr().err


def test_the_same_request_gives_the_same_bytes_and_the_build_says_what_changed(shards: Path) -> None:
    options = ("--protocol", "random", "--seed", "3", "--fractions", "0.4,0.3,0.3")
    assert run(shards, *options) == 0
    first = clips.digests(shards)
    assert run(shards, "--protocol", "kfold", "--folds", "3") == 0 and clips.digests(shards) != first
    assert run(shards, *options) == 0 and clips.digests(shards) == first


def test_a_crash_between_the_files_is_found_and_set_right(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = clips.digests(shards)
    for stops_at in (
        "shards.format.manifest.write",
        "shards.format.index_table.write_parquet",
        "shards.format.index_table.write_table",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(stops_at, lambda *_: (_ for _ in ()).throw(UserError("the disk is full")))
            assert run(shards, "--protocol", "kfold", "--folds", "3") == 2
        # A reader has what was there before, all of it.
        opened = Dataset.open(shards)
        assert set(opened.codes("split")[1].tolist()) == {"train", "dev", "test"}
        assert {row["split"] for row in opened.rejected("train") + opened.rejected("dev")} <= {"train", "dev"}
    assert {row["split"] for row in rows(shards)} == {"fold0", "fold1", "fold2"}
    assert any(line.startswith("index.arrow") for line in verify(shards))
    assert run(shards, "--protocol", "kfold", "--folds", "3") == 0 and verify(shards) == []
    assert set(clips.digests(shards)) == set(whole), "nothing is left behind"
    assert set(Dataset.open(shards).codes("split")[1].tolist()) == {"fold0", "fold1", "fold2"}


def test_an_index_of_another_split_is_not_taken(built: Path, tmp_path: Path) -> None:
    """A partial copy: the index of one split beside the dataset.json of another. 72 train clips used to become 40."""
    one, other = (Path(shutil.copytree(built, tmp_path / name)) for name in ("one", "other"))
    assert run(other, "--protocol", "kfold", "--folds", "3") == 0
    shutil.copy(other / "index.arrow", one)
    with pytest.raises(UserError, match="index.arrow is not the file that dataset.json there is about"):
        Dataset.open(one)


def test_leave_one_attack_out_in_a_folder(shards: Path) -> None:
    assert run(shards, "--protocol", "leave_one_attack_out", "--attack", "replay") == 0
    after = rows(shards)
    seen = {name: {row["attack_type"] for row in after if row["split"] == name} for name in ("train", "dev", "test")}
    assert seen == {"train": {"live", "print"}, "dev": {"live", "print"}, "test": {"live", "replay"}}
    used = [row for row in after if row["split"] != "unused"]
    assert all(len(splits) == 1 for splits in people(used).values())


def test_leave_one_attack_out_takes_all_clips_of_people_with_that_attack_alone() -> None:
    made = [("a", "live"), ("a", "print"), ("b", "live"), ("b", "print"), ("c", "live"), ("c", "print"), ("z", "mask")]
    labels = Labels(
        tuple(Label(f"{i}", float(k == "live"), k, g, "", "", "") for i, (g, k) in enumerate(made)), "subject", ""
    )
    splits = split.leave_attack_out(labels, ["mask"], FRACTIONS, 0)
    assert splits[-1] == "test" and sorted(splits) == ["dev", "dev", "test", "test", "train", "train", "unused"]
    for attacks, message in ((["mask", "print"], "leaves no attack"), (["glass"], "there are mask, print")):
        with pytest.raises(UserError, match=message):
            split.leave_attack_out(labels, attacks, FRACTIONS, 0)


def test_leave_one_domain_out_keeps_people_of_the_same_name_apart() -> None:
    made = [(d, g, k) for d in ("casia", "msu", "oulu") for g in "abcdef" for k in ("live", "print")]
    rows = tuple(Label(f"{i}", float(k == "live"), k, g, "", "", "", d) for i, (d, g, k) in enumerate(made))
    splits = split.leave_domain_out(Labels(rows, "subject", ""), ["oulu"], FRACTIONS, 0)
    found: dict[tuple[str, str], set[str]] = {}
    for row, name in zip(rows, splits, strict=True):
        found.setdefault(row.identity, set()).add(name)
    assert all(len(names) == 1 for names in found.values()) and len(found) == 18
    assert {name for row, name in zip(rows, splits, strict=True) if row.domain == "oulu"} == {"test"}
    for domain in ("casia", "msu"):
        part = [name for row, name in zip(rows, splits, strict=True) if row.domain == domain]
        assert set(part) == {"train", "dev"} and part.count("dev") < part.count("train")
    with pytest.raises(UserError, match="--domain siw: there is none; there are casia, msu, oulu"):
        split.leave_domain_out(Labels(rows, "subject", ""), ["siw"], FRACTIONS, 0)


def test_dev_is_carved_out_of_train_and_test_stays(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(shards, "--protocol", "carve_dev") == 2 and "a dev split already" in capsys.readouterr().err
    assert run(shards, "--protocol", "random", "--fractions", "0.8,0,0.2") == 0
    tested = {row["video"] for row in rows(shards) if row["split"] == "test"}
    assert run(shards, "--protocol", "carve_dev", "--dev-fraction", "0.25") == 0
    after = rows(shards)
    assert {row["video"] for row in after if row["split"] == "test"} == tested
    assert all(len(splits) == 1 for splits in people(after).values())
    assert {row["split"] for row in after} == {"train", "dev", "test"}


def test_an_official_protocol_comes_from_a_label_file(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [
        {
            "fname": r["video"],
            "liveness_score": int(r["label"]),
            "subject": r["subject"],
            "split": "train" if r["subject"] < "c" else "test",
        }
        for r in rows(shards)
    ]
    clips.write_labels(tmp_path / "p.csv", made[1:], list(made[0]))
    assert run(shards, "--protocol", "labels", "--labels", str(tmp_path / "p.csv")) == 0
    after = {row["video"]: row["split"] for row in rows(shards)}
    assert after == {row["fname"]: row["split"] for row in made} | {made[0]["fname"]: "unused"}
    flip = {"train": "test", "test": "train"}
    clips.write_labels(tmp_path / "p.csv", [made[0] | {"split": flip[made[0]["split"]]}, *made[1:]], list(made[0]))
    assert run(shards, "--protocol", "labels", "--labels", str(tmp_path / "p.csv")) == 2
    assert "1 subjects into several" in capsys.readouterr().err
    assert run(shards, "--protocol", "labels", "--labels", str(tmp_path / "p.csv"), "--allow-leak") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "kfold", "--attack", "x"], "--attack has no effect"),
        (["--protocol", "leave_one_attack_out"], "needs --attack"),
        (["--protocol", "leave_one_domain_out", "--domain", "demo"], "leaves no domain"),
        (["--protocol", "random", "--allow-leak"], "--allow-leak has no effect"),
        (["--protocol", "carve_dev", "--dev-fraction", "1.5"], "a share between 0 and 1"),
    ],
)
def test_mistakes_change_nothing(
    built: Path, shards: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(shards, *options) == 2
    assert message in capsys.readouterr().err and clips.digests(shards) == clips.digests(built)
