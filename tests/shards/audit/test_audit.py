"""The audit of shards with planted faults: all found, nothing else called one, and a label file without them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from livetrain.core.engines import LocalEngine
from livetrain.core.errors import UserError
from shards import cli
from shards.audit import look_table, run_audit
from shards.audit.copies import EXACT, NEAR
from shards.audit.run_audit import AuditOptions
from shards.format import index_table
from tests.conftest import made_once
from tests.shards.audit import planted

pytest.importorskip("faiss")

pytestmark = pytest.mark.slow  # a corpus of copies, audited

EVERY = 7  # of the demo corpus's clips every seventh has copies


def build(folder: Path, out: Path, *more: str) -> Path:
    arguments = ["build", "--videos", folder / "videos", "--labels", folder / "label.csv", "--out", out]
    assert cli.main([*map(str, arguments), "--workers", "2", *more]) == 0
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def corpus(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """videos/, label.csv, truth.json (copy → original) and shards/ of the demo corpus with copies.

    Of every second original with copies the resized one has the other label; the mirrored one another person's name.
    """

    def make(out: Path) -> None:
        names = sorted(path.name for path in (demo_videos / "videos").glob("*.mp4"))[::EVERY]
        truth = planted.plant(demo_videos, names, out)
        rows = rows_of(out / "label.csv")
        for row in rows:
            if row["fname"] in [f"resized-{name}" for name in names[::2]]:
                live = row["liveness_score"] == "1"
                row |= {"liveness_score": str(int(not live)), "attack_type": "print" if live else "live"}
            if row["fname"] in [f"mirrored-{name}" for name in names[::2]]:
                row["subject"] += "-again"
        planted.label(out / "label.csv", rows)
        (out / "truth.json").write_text(json.dumps(truth))
        build(out, out / "shards", "--fractions", "0.5,0.25,0.25")

    return made_once(tmp_path_factory, "audit-corpus", make)


@pytest.fixture(scope="module")
def audited(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of audit.html, audit.json, audit.csv and fixed/ of the corpus."""
    out = tmp_path_factory.mktemp("audited")
    arguments = ["audit", corpus / "shards", "--out", out / "audit.html", "--fix", out / "fixed", "--no-faces"]
    assert cli.main([*map(str, arguments), "--workers", "2"]) == 0
    return out


def result(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def families(corpus: Path) -> dict[str, str]:
    """clip → the original that it shows."""
    truth = json.loads((corpus / "truth.json").read_text())
    names = {path.name for path in (corpus / "videos").glob("*.mp4")}
    return {name: truth.get(name, name) for name in names}


def test_copies_are_found_with_precision_and_recall_of_95_percent(corpus: Path, audited: Path) -> None:
    """Of the pairs that show one recording, and of the copies that are in a group with their original."""
    shows = families(corpus)
    pairs = [tuple(clip["video"] for clip in pair["clips"]) for pair in result(audited)["copies"]["pairs"]]
    right = [shows[first] == shows[second] for first, second in pairs]
    assert len(right) > 50 and sum(right) / len(right) >= 0.95
    group_of = {name: number for number, names in enumerate(result(audited)["copies"]["groups"]) for name in names}
    truth = json.loads((corpus / "truth.json").read_text())
    found = [group_of.get(copy, -1) == group_of.get(original, -2) for copy, original in truth.items()]
    assert sum(found) / len(found) >= 0.95


def test_copies_of_every_kind_are_found(corpus: Path, audited: Path) -> None:
    group_of = {name: number for number, names in enumerate(result(audited)["copies"]["groups"]) for name in names}
    truth = json.loads((corpus / "truth.json").read_text())
    for kind in (*planted.CHANGES, "same"):
        of_kind = {copy: original for copy, original in truth.items() if copy.startswith(f"{kind}-")}
        found = [group_of.get(copy, -1) == group_of.get(original, -2) for copy, original in of_kind.items()]
        assert sum(found) / len(found) >= 0.9, kind


def test_the_same_file_is_told_from_the_same_recording_and_what_was_done_is_said(audited: Path) -> None:
    pairs = result(audited)["copies"]["pairs"]
    for pair in pairs:
        one, other = sorted(clip["video"] for clip in pair["clips"])  # digits and ids come before "same-"
        assert (pair["kind"] == EXACT) == (other == f"same-{one}"), (one, other)
    assert any(pair["kind"] == EXACT for pair in pairs)
    mirrored = [p for p in pairs if sum(c["video"].startswith(("mirrored-", "all-")) for c in p["clips"]) == 1]
    assert mirrored and all("mirrored" in pair["how"] for pair in mirrored if pair["kind"] == NEAR)


def test_every_planted_conflict_is_found_and_comes_first(corpus: Path, audited: Path) -> None:
    pairs = result(audited)["copies"]["pairs"]
    conflicts = [pair for pair in pairs if pair["where"] == "label conflict"]
    assert pairs[: len(conflicts)] == conflicts
    named = {clip["video"] for pair in conflicts for clip in pair["clips"]}
    wrong = {name for name in families(corpus) if name.startswith("resized-")}
    wrong = {name for name in wrong if name.removeprefix("resized-") in sorted(families(corpus).values())}
    rows = {row["fname"]: row for row in rows_of(corpus / "label.csv")}
    planted_conflicts = {n for n in wrong if rows[n]["liveness_score"] != rows[families(corpus)[n]]["liveness_score"]}
    assert len(planted_conflicts) == 3 and planted_conflicts <= named
    kinds = [{clip["kind"] == "live" for clip in pair["clips"]} for pair in conflicts]
    assert all(kind == {True, False} for kind in kinds)


def test_copies_in_two_splits_are_counted_as_leaks(audited: Path) -> None:
    found = result(audited)
    for pair in found["copies"]["pairs"]:
        splits = {clip["split"] for clip in pair["clips"]}
        if pair["where"] != "label conflict":
            assert pair["where"] == ("across splits" if len(splits) == 2 else "within a split")
    counts = {line["where"]: line["same_file"] + line["same_recording"] for line in found["copies"]["counts"]}
    assert counts["across splits"] > 0, "people with a second name are in other splits"
    assert any("test is not unseen" in line for line in found["summary"])


def test_the_table_has_a_line_for_each_finding(audited: Path) -> None:
    found, lines = result(audited), rows_of(audited / "audit.csv")
    assert sum(line["finding"].startswith("copy: ") for line in lines) == len(found["copies"]["pairs"])
    assert sum(line["finding"] == "shortcut" for line in lines) == len(found["shortcuts"])
    assert sum(line["finding"] == "outlier" for line in lines) == sum(map(len, found["outliers"].values()))


def test_the_fixed_label_file_builds_and_has_no_fault_left(corpus: Path, audited: Path, tmp_path: Path) -> None:
    fixed = audited / "fixed"
    kept, dropped = rows_of(fixed / "label.csv"), rows_of(fixed / "dropped.csv")
    conflicts, people = rows_of(fixed / "conflicts.csv"), rows_of(fixed / "people.csv")
    all_names = [row["fname"] for row in (*kept, *dropped, *conflicts)]
    assert sorted(all_names) == sorted(families(corpus)), "every clip is somewhere, once"
    assert {row["subject"] for row in kept} == {f"id{number:02d}" for number in range(6)}, "names are joined"
    assert {line["joined"] for line in people} == {"yes"} and all("-again" in str(line) for line in people)
    shows, labels = families(corpus), {row["fname"]: row for row in rows_of(corpus / "label.csv")}
    assert {labels[row["fname"]]["liveness_score"] for row in kept} == {"0", "1"}
    assert all(row["liveness_score"] == labels[row["fname"]]["liveness_score"] for row in kept), "no label is changed"
    by_conflict: dict[str, set[str]] = {}
    for row in conflicts:
        by_conflict.setdefault(row["conflict"], set()).add(shows[row["fname"]])
    assert len(by_conflict) == 3 and all(len(originals) == 1 for originals in by_conflict.values())

    out = tmp_path / "again"
    arguments = ["build", "--videos", corpus / "videos", "--labels", fixed / "label.csv", "--skip-unlabelled"]
    assert cli.main([*map(str, arguments), "--out", str(out)]) == 0
    assert cli.main(["audit", str(out), "--out", str(tmp_path / "again.html"), "--no-faces"]) == 0
    assert json.loads((tmp_path / "again.json").read_text())["copies"]["pairs"] == []


@pytest.fixture(scope="module")
def two_sets(corpus: Path, demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The demo shards, and a second data set of four clips cropped from it."""
    folder = tmp_path_factory.mktemp("second")
    (folder / "videos").mkdir()
    names = sorted(name for name in families(corpus) if name.startswith("cropped-"))[:4]
    for name in names:
        shutil.copy(corpus / "videos" / name, folder / "videos")
    rows = {row["fname"]: row for row in rows_of(corpus / "label.csv")}
    planted.label(folder / "label.csv", [rows[name] for name in names])
    return [demo_shards, build(folder, folder / "other", "--fractions", "1,0,0")]


@pytest.fixture(scope="module")
def two_audited(two_sets: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of audit.html, audit.json, audit.csv and f/ of the two."""
    out = tmp_path_factory.mktemp("two-audited")
    options = AuditOptions(faces=False, fix=out / "f")
    run_audit.audit(two_sets, out / "audit.html", options, engine=LocalEngine(2))
    return out


def test_copies_between_two_data_sets_are_found_and_dropped_from_the_second(
    two_sets: list[Path], two_audited: Path
) -> None:
    names = index_table.read(two_sets[1] / "index.arrow")["video"].to_pylist()
    pairs = result(two_audited)["copies"]["pairs"]
    found = [clip["video"] for pair in pairs for clip in pair["clips"] if clip["folder"] == str(two_sets[1])]
    assert sorted(found) == sorted(names)
    assert {pair["where"] for pair in pairs} == {"across data sets"}
    dropped = rows_of(two_audited / "f" / "other" / "dropped.csv")
    assert sorted(row["fname"] for row in dropped) == sorted(names)
    assert rows_of(two_audited / "f" / two_sets[0].name / "dropped.csv") == []
    assert "no: in two data sets" in (two_audited / "f" / two_sets[0].name / "people.csv").read_text()
    assert any("test is not unseen" in line for line in result(two_audited)["summary"])


@pytest.mark.slow
def test_what_it_finds_does_not_depend_on_processes_or_on_being_killed(
    two_sets: list[Path], two_audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = AuditOptions(faces=False)
    monkeypatch.setattr(look_table, "PART", 8)
    look, done = look_table.look_at, 0

    def killed(task: Any) -> Any:
        nonlocal done
        done += 1
        if done > 20:
            raise KeyboardInterrupt
        return look(task)

    monkeypatch.setattr(look_table, "look_at", killed)
    with pytest.raises(KeyboardInterrupt):
        run_audit.audit(two_sets, tmp_path / "audit.html", options)
    assert len(list((tmp_path / "audit.state").glob("part-*.arrow"))) == 2
    assert not (tmp_path / "audit.html").exists()
    (tmp_path / "audit.state" / "part-000001.arrow").write_bytes(b"cut short")
    again = []
    monkeypatch.setattr(look_table, "look_at", lambda task: again.append(task) or look(task))
    run_audit.audit(two_sets, tmp_path / "audit.html", options)
    assert len(again) == 40 - 8, "the whole part is kept"
    for ending in (".json", ".csv", ".html"):
        one, other = (folder.joinpath("audit").with_suffix(ending).read_text() for folder in (two_audited, tmp_path))
        assert one == other
    assert not (tmp_path / "audit.state").exists()


@pytest.mark.slow
def test_a_network_adds_candidates(two_sets: list[Path], two_audited: Path, tmp_path: Path) -> None:
    from livetrain.config import ModelConfig
    from livetrain.core.files import save_tensors
    from livetrain.model.backbone import build_backbone

    weights = tmp_path / "weights.safetensors"
    save_tensors(build_backbone(ModelConfig(backbone="test_resnet", pretrained=False), 160).state_dict(), weights)
    arguments = ["audit", *map(str, two_sets), "--out", str(tmp_path / "audit.html"), "--no-faces"]
    assert cli.main([*arguments, "--embedding", "test_resnet", "--weights", str(weights), "--workers", "1"]) == 0
    found, without = result(tmp_path)["copies"], result(two_audited)["copies"]
    assert found["num_pairs_compared"] > without["num_pairs_compared"]
    assert found["pairs"] == without["pairs"]


def test_clips_that_cannot_be_decoded_are_outliers_and_end_no_audit(demo_shards: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(demo_shards, damaged)
    row = index_table.read(damaged / "index.arrow").slice(0, 1).to_pylist()[0]
    tar = sorted(damaged.glob("*.tar"))[row["shard"]]
    data = bytearray(tar.read_bytes())
    data[row["offset"] : row["offset"] + row["size"]] = bytes(row["size"])
    tar.write_bytes(data)
    run_audit.audit([damaged], tmp_path / "audit.html", AuditOptions(faces=False))
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["outliers"]["not decodable"] == [row["video"]]


def test_bad_input_is_named(demo_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is given twice"):
        run_audit.audit([demo_shards, demo_shards], tmp_path / "a.html", AuditOptions())
    with pytest.raises(UserError, match="no such file"):
        run_audit.audit([tmp_path], tmp_path / "a.html", AuditOptions())
    assert cli.main(["audit", str(demo_shards), "--out", str(tmp_path / "audit.pdf")]) == 2
    assert cli.main(["audit", str(demo_shards), "--out", str(tmp_path / "a.html"), "--weights", "x"]) == 2
    assert cli.main(["audit", str(demo_shards), "--out", str(tmp_path / "a.html"), "--workers", "0"]) == 2
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.main(["audit", str(demo_shards), "--out", str(blocked / "a.html"), "--no-faces"]) == 2


def test_faces_are_looked_for_and_fill_their_tables(face_shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    run_audit.audit([face_shards], tmp_path / "audit.html", AuditOptions(), engine=LocalEngine(2))
    found = result(tmp_path)
    heights = found["tables"]["face, share of the height"]
    assert found["outliers"]["blank"] == ["empty.mp4"], "the one clip without a face"
    assert sum(line["num_clips"] for line in heights) == found["num_clips"] - 1
    assert all(0.05 < line["quantiles"][2] < 1 for line in heights) and len(heights) >= 2
    assert found["same_person"]["not_measurable"] != "faces were not looked at"
