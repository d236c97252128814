"""What `--fix` does and leaves: each clip once, chains of parts, people joined within a folder, nothing decided."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from livetrain.core.errors import UserError
from shards.audit import fix
from shards.audit.copies import EXACT, NEAR, Copy, exact
from shards.audit.findings import Findings
from shards.audit.people import Alike, SamePerson
from tests.shards.audit.test_people import clips_of


def findings(
    subjects: list[str], copies: list[Copy], same: list[SamePerson] | None = None, kinds: str | None = None
) -> Findings:
    """kinds: a letter a clip, l(ive), p(rint) or a(ttack)."""
    clips = clips_of(subjects)
    words = {"l": "live", "p": "print", "a": "attack"}
    kinds = kinds or "l" * len(subjects)
    clips.words["attack_type"][:] = [words[letter] for letter in kinds]
    clips.numbers["label"][:] = [float(letter == "l") for letter in kinds]
    clips.numbers["num_frames"][:] = 100
    return Findings(clips, copies, 0, Alike(tuple(same or ())), [], {}, np.zeros(len(subjects)), [])


def fixed(of: Findings, out: Path, identified: bool = False) -> dict[str, list[dict[str, str]]]:
    fix.fix(of, [identified] * len(of.clips), out)
    found = {}
    for path in out.glob("*.csv"):
        with path.open(encoding="utf-8") as file:
            found[path.stem] = list(csv.DictReader(file))
    return found


def names(rows: list[dict[str, str]]) -> list[str]:
    return [row["fname"] for row in rows]


def test_of_a_chain_of_parts_those_that_share_nothing_both_stay(tmp_path: Path) -> None:
    """0 and 1 overlap, 1 and 2 do; 0 and 2 do not."""
    found = fixed(findings(["a"] * 3, [Copy(0, 1, NEAR), Copy(1, 2, NEAR)]), tmp_path)
    assert names(found["label"]) == ["0.mp4", "2.mp4"]
    assert [(row["fname"], row["kept"]) for row in found["dropped"]] == [("1.mp4", "0.mp4")]


def test_the_longer_recording_is_kept_and_what_is_a_file_again_goes_with_it(tmp_path: Path) -> None:
    of = findings(["a"] * 3, [Copy(0, 1, NEAR, "mirrored"), Copy(0, 2, EXACT)])
    of.clips.numbers["num_frames"][:] = [50, 80, 50]
    found = fixed(of, tmp_path)
    assert names(found["label"]) == ["1.mp4"]
    assert [(row["fname"], row["kept"], row["why"]) for row in found["dropped"]] == [
        ("0.mp4", "1.mp4", "same recording, mirrored"),
        ("2.mp4", "1.mp4", "same file"),
    ]


def test_a_contradiction_takes_all_its_copies_out_for_a_person_to_decide(tmp_path: Path) -> None:
    found = fixed(findings(["a"] * 5, [Copy(0, 1, NEAR), Copy(1, 2, NEAR)], kinds="lplll"), tmp_path)
    assert names(found["label"]) == ["3.mp4", "4.mp4"] and found["dropped"] == []
    assert [(row["fname"], row["liveness_score"], row["conflict"]) for row in found["conflicts"]] == [
        ("0.mp4", "1", "1"),
        ("1.mp4", "0", "1"),
        ("2.mp4", "1", "1"),
    ]


def test_a_file_with_two_stated_types_is_a_conflict_whatever_the_first_one_says(tmp_path: Path) -> None:
    of = findings(["a"] * 4, [], kinds="aplp")
    of.clips.words["attack_type"][3] = "replay"
    of.clips.words["sha256"][:] = ["same", "same", "other", "same"]
    found = exact(of.clips)
    assert [(pair.first, pair.second) for pair in found] == [(0, 1), (0, 3), (1, 3)]
    assert names(fixed(replace(of, copies=found), tmp_path)["conflicts"]) == ["0.mp4", "1.mp4", "3.mp4"]


def test_an_attack_of_no_stated_type_does_not_contradict_one_that_has(tmp_path: Path) -> None:
    found = fixed(findings(["a"] * 2, [Copy(0, 1, NEAR)], kinds="pa"), tmp_path)
    assert found["conflicts"] == [] and names(found["label"]) == ["0.mp4"]
    assert fixed(findings(["a"] * 2, [Copy(0, 1, NEAR)]), tmp_path)["conflicts"] == []


def test_people_are_joined_when_it_is_likely_enough_and_all_candidates_are_listed(tmp_path: Path) -> None:
    same = [SamePerson(0, 1, "set/b", "set/a", 0.2, 0.95), SamePerson(1, 2, "set/a", "set/c", 0.4, 0.6)]
    found = fixed(findings(["b", "a", "c"], [], same), tmp_path)
    assert [row["subject"] for row in found["label"]] == ["a", "a", "c"]
    assert [(row["first"], row["second"], row["joined"]) for row in found["people"]] == [
        ("set/b", "set/a", "yes"),
        ("set/a", "set/c", "no: not likely enough"),
    ]


def test_clips_without_a_name_get_the_one_of_their_copy_or_one_of_their_own(tmp_path: Path) -> None:
    found = fixed(findings(["", "a", ""], [Copy(0, 1, NEAR)], kinds="lll"), tmp_path)
    assert [(row["fname"], row["subject"]) for row in found["label"]] == [("0.mp4", "a"), ("2.mp4", "person-of-clip-3")]


def test_a_copy_without_a_label_is_never_kept_in_place_of_one_that_has(tmp_path: Path) -> None:
    of = findings(["a"] * 3, [Copy(0, 1, EXACT), Copy(0, 2, NEAR)])
    of.clips.numbers["label"][0] = np.nan
    found = fixed(of, tmp_path)
    assert names(found["label"]) == ["1.mp4"] and names(found["dropped"]) == ["2.mp4"]


def test_without_any_name_or_face_there_is_no_column_of_people(tmp_path: Path) -> None:
    found = fixed(findings(["", ""], []), tmp_path)
    assert set(found["label"][0]) == {"fname", "liveness_score", "attack_type"}
    found = fixed(findings(["", "", ""], [], [SamePerson(0, 2, "", "", 0.1, 0.99)]), tmp_path, identified=True)
    assert [row["subject"] for row in found["label"]] == ["person-of-clip-1", "person-of-clip-2", "person-of-clip-1"]


def test_the_same_name_in_two_domains_stays_two_people(tmp_path: Path) -> None:
    of = findings(["a", "b"], [], [SamePerson(0, 1, "one/a", "two/b", 0.1, 0.99)])
    of.clips.words["domain"][:] = ["one", "two"]
    found = fixed(replace(of), tmp_path)
    assert [row["subject"] for row in found["label"]] == ["a", "b"]
    assert found["people"][0]["joined"] == "no: in two data sets"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--fix .*file: cannot make this folder"):
        fix.fix(findings(["a"], []), [False], tmp_path / "file")
