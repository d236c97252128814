"""Adding videos to a shard folder: old bytes and splits stay, new shards follow, nothing is half done."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from livetrain.data import Dataset
from shards import append as append_
from shards import build as build_
from shards import cli
from shards.format import index_table, manifest
from tests.shards import clips

COLUMNS = ("fname", "liveness_score", "attack_type", "subject")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus, and one that has three people and a damaged video more."""
    root = tmp_path_factory.mktemp("append")
    small = clips.corpus(root / "small", clips_per_person=2)
    soft = {"0": "0.3", "1": "0.9"}  # float32 of the index cannot hold these
    clips.write_labels(
        small / "label.csv",
        [row | {"liveness_score": soft[row["liveness_score"]]} for row in read_labels(small)],
        COLUMNS,
    )
    large = Path(shutil.copytree(small, root / "large"))
    rows = read_labels(small)
    for number in range(6):
        name = f"new/{number}.mp4"
        (large / "videos" / "new").mkdir(exist_ok=True)
        (large / "videos" / name).write_bytes(clips.video(seed=100 + number) if number else b"")
        kind = "live" if number % 2 else "print"
        rows.append({"fname": name, "liveness_score": number % 2, "attack_type": kind, "subject": f"new{number // 2}"})
    clips.write_labels(large / "label.csv", rows, COLUMNS)
    return small, large


def read_labels(folder: Path) -> list[dict[str, Any]]:
    with (folder / "label.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def splits_of(folder: Path) -> dict[str, str]:
    return {row["video"]: row["split"] for row in index_table.read(folder / "index.arrow").to_pylist()}


def test_a_split_without_attacks_is_named(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in two)
    for folder in (small, large):
        live = {"split": "dev", "liveness_score": 1, "attack_type": "live"}
        rows = [row | (live if row["subject"] == "ann" else {"split": "train"}) for row in read_labels(folder)]
        clips.write_labels(folder / "label.csv", rows, (*COLUMNS, "split"))
    for folder, options in ((small, ()), (large, ("--append",))):
        assert clips.build(folder, tmp_path / "s", *options) == 0
        warnings = capsys.readouterr().err
        assert "WARNING: the split 'dev' has no attack:" in warnings and "'train'" not in warnings


def test_a_new_video_that_is_an_old_ones_file_under_another_label_is_named(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(two[0], tmp_path / "corpus"))
    assert clips.build(folder, tmp_path / "s") == 0
    rows = read_labels(folder)
    live = next(row for row in rows if float(row["liveness_score"]) > 0.5)
    for number, score in enumerate((0, 1)):
        shutil.copy(folder / "videos" / live["fname"], folder / "videos" / f"copy-{number}.mp4")
        kind = "live" if score else "print"
        row = {"fname": f"copy-{number}.mp4", "liveness_score": score, "attack_type": kind, "subject": "zoe"}
        rows.append(row)
    clips.write_labels(folder / "label.csv", rows, COLUMNS)
    capsys.readouterr()
    assert clips.build(folder, tmp_path / "s", "--append") == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line and "split" not in line]
    assert warnings == [
        "WARNING: copy-0.mp4 and copy-1.mp4 are the same file with a different label",
        f"WARNING: {live['fname']} and copy-0.mp4 are the same file with a different label",
    ]
    splits = splits_of(tmp_path / "s")
    assert splits["copy-0.mp4"] == splits["copy-1.mp4"] == splits[live["fname"]], "one unit with the old person"


def test_people_joined_by_a_file_are_named_with_those_that_were_there(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(two[0], tmp_path / "corpus"))
    assert clips.build(folder, tmp_path / "s") == 0
    assert "share files" not in capsys.readouterr().err
    rows = read_labels(folder)
    for number in range(4):
        shutil.copy(folder / "videos" / rows[0]["fname"], folder / "videos" / f"copy-{number}.mp4")
        rows.append(rows[0] | {"fname": f"copy-{number}.mp4", "subject": f"new{number}"})
    clips.write_labels(folder / "label.csv", rows, COLUMNS)
    assert clips.build(folder, tmp_path / "s", "--append") == 0
    assert "WARNING: 5 people share files, so they are split as one person with 6 of 14" in capsys.readouterr().err
    (folder / "videos/other.mp4").write_bytes(clips.video(seed=77))
    clips.write_labels(folder / "label.csv", [*rows, rows[0] | {"fname": "other.mp4", "subject": "zoe"}], COLUMNS)
    assert clips.build(folder, tmp_path / "s", "--append") == 0
    assert "share files" not in capsys.readouterr().err, "what is added joins nobody"


def test_new_videos_follow_the_old_ones(two: tuple[Path, Path], tmp_path: Path) -> None:
    small, large = two
    out = tmp_path / "s"
    assert clips.build(small, out, "--shard-mb", 0.05) == 0
    before, old = clips.digests(out), index_table.read(out / "index.arrow").to_pylist()
    assert clips.build(large, out, "--append", "--shard-mb", 0.05) == 0
    rows = index_table.read(out / "index.arrow").to_pylist()
    assert rows[: len(old)] == old and len(rows) == len(old) + 5
    after = clips.digests(out)
    tars = [name for name in before if name.startswith("shard-")]
    assert len(tars) > 2 and all(after[name] == before[name] for name in tars)
    assert cli.main(["verify", str(out), "--thorough", "--workers", "1"]) == 0
    content = manifest.read(out)
    assert content["num_samples"] == len(rows) == len(Dataset.open(out)) and content["num_rejected"] == 1
    assert sum(shard["num_samples"] for shard in content["shards"]) == len(rows) and content["appended"] == [5]
    assert "new/0.mp4" in (out / "rejected.csv").read_text() and not (out / ".build").exists()
    by_person: dict[str, set[str]] = {}
    for row in rows:
        by_person.setdefault(row["subject"], set()).add(row["split"])
    assert max(map(len, by_person.values())) == 1
    assert clips.build(large, out, "--append", "--shard-mb", 0.05) == 0  # the rejected one is tried once more
    assert index_table.read(out / "index.arrow").to_pylist() == rows


def test_the_same_whatever_the_number_of_workers_and_stops(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = two
    for name in ("a", "b"):
        assert clips.build(small, tmp_path / name) == 0
    assert clips.build(large, tmp_path / "a", "--append", "--workers", 3) == 0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    whole = clips.digests(tmp_path / "b")
    with monkeypatch.context() as patch:
        patch.setattr(append_.index_table, "write_table", stop)
        assert clips.build(large, tmp_path / "b", "--append") == 130
    # A reader has the folder as it was.
    assert len(Dataset.open(tmp_path / "b")) == 10
    assert clips.build(large, tmp_path / "b", "--append") == 0
    assert clips.digests(tmp_path / "a") == clips.digests(tmp_path / "b") != whole


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("", ["--store", "remux"], "the folder was built with store='original'"),
        ("", ["--fractions", "0.5,0.2,0.3"], "fractions=[0.6, 0.2, 0.2]"),
        ("", ["--overwrite"], "--append and --overwrite"),
        ("file", [], "1 videos are other files than when they were added (ann-0.mp4)"),
        ("label", [], "1 videos are labelled otherwise than when they were added (ann-0.mp4)"),
        ("people", [], "names people and"),
    ],
)
def test_what_is_not_as_it_was_is_refused(
    change: str, options: list[str], message: str, two: tuple[Path, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    small, large = two[0], Path(shutil.copytree(two[1], tmp_path / "c"))
    out = tmp_path / "s"
    assert clips.build(small, out) == 0
    before = clips.digests(out)
    if change == "file":
        (large / "videos" / "ann-0.mp4").write_bytes(clips.video(seed=77))
    rows = read_labels(large)
    if change == "label":
        rows[0]["liveness_score"], rows[0]["attack_type"] = 0, "mask"
    clips.write_labels(large / "label.csv", rows, COLUMNS[:3] if change == "people" else COLUMNS)
    capsys.readouterr()
    assert clips.build(large, out, "--append", *options) == 2
    assert message in capsys.readouterr().err and clips.digests(out) == before


def test_a_rebuild_keeps_who_was_in_which_split(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over the folder that had the splits, also when it is killed on the way; beside it, with --keep; not with
    --reassign.
    """
    small, large = two
    out = tmp_path / "s"
    assert clips.build(small, out) == 0
    turned = {name: {"train": "test", "test": "train"}.get(split, split) for name, split in splits_of(out).items()}
    labels = [{"fname": name, "liveness_score": 1, "split": split} for name, split in turned.items()]
    labels[0]["liveness_score"] = 0
    clips.write_labels(tmp_path / "splits.csv", labels, ("fname", "liveness_score", "split"))
    assert cli.main(["split", str(out), "--protocol", "labels", "--labels", str(tmp_path / "splits.csv")]) == 0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build_, "write_all", stop)
        assert clips.build(large, out, "--overwrite", "--store", "remux") == 130
    assert not (out / "index.arrow").exists()
    assert clips.build(large, out, "--overwrite", "--store", "remux") == 0
    assert "10 of 16 videos keep the split of" in capsys.readouterr().err
    assert {name: split for name, split in splits_of(out).items() if name in turned} == turned
    for where in (out, out / "index.arrow", out / "index.parquet", tmp_path / "splits.csv"):
        beside = tmp_path / f"beside-{where.name}"
        assert clips.build(large, beside, "--keep", where) == 0
        assert {name: split for name, split in splits_of(beside).items() if name in turned} == turned
    stems = [row | {"fname": f"./{row['fname'].rpartition('.')[0]}"} for row in labels]
    clips.write_labels(tmp_path / "stems.csv", stems, ("fname", "liveness_score", "split"))
    assert clips.build(large, tmp_path / "stems", "--keep", tmp_path / "stems.csv") == 0
    assert {name: split for name, split in splits_of(tmp_path / "stems").items() if name in turned} == turned
    others = [row | {"fname": f"other/{row['fname']}"} for row in labels]
    clips.write_labels(tmp_path / "others.csv", others, ("fname", "liveness_score", "split"))
    capsys.readouterr()
    assert clips.build(large, tmp_path / "others", "--keep", tmp_path / "others.csv") == 2
    message = capsys.readouterr().err
    assert message.index("knows no name or person among these videos") < message.index("none of its 10 videos")
    assert "none of its 10 videos, and none of their people, is among these 16" in message
    assert clips.build(large, out, "--overwrite", "--reassign") == 0
    assert {name: split for name, split in splits_of(out).items() if name in turned} != turned


def test_options_spelled_out_are_the_same_build(two: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "s"
    store = ["--store", "transcode"]
    assert clips.build(two[0], out, *store) == 0
    before = json.loads((out / "dataset.json").read_text())["checksum"]
    spelled = ["--gop", 8, "--codec", "h264", "--quality", 18, "--columns", "subject=subject,name=fname", "--folds", 0]
    assert clips.build(two[0], out, *store, *spelled, "--fractions", "0.60,.2,0.2", "--protocol", "stratified") == 0
    assert json.loads((out / "dataset.json").read_text())["checksum"] == before
    assert clips.build(two[0], out, *store, "--quality", 20) == 2
