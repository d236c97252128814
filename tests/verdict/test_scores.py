"""Scores to CSV and back, to the bit, and bad files reported by row and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livetrain.core.errors import UserError
from livetrain.verdict import scores
from tests.verdict.helpers import make_scores

# What a name may hold: `shards build` refuses line breaks in labels, and surrogates cannot be written as UTF-8.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1, max_size=12)


@given(st.lists(st.tuples(names, names, st.floats(0, 1) | st.none(), st.floats(0, 1)), max_size=6))
def test_a_file_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    original = scores.Scores.from_rows(
        {
            "video": name,
            "key": f"{number}",
            "p_live": p,
            "label": label,
            "subject": group,
            "attack_type": "print",
            "num_frames": number,
            "seconds": 1 / 3,
            "status": scores.OK if p is not None else scores.FAILED,
        }
        for number, (name, group, p, label) in enumerate(rows)
    )
    path = tmp_path_factory.mktemp("scores") / "test.csv"
    scores.write(path, original)
    again = scores.read(path)
    for column in scores.COLUMNS:
        a, b = getattr(original, column), getattr(again, column)
        assert a.dtype == b.dtype and len(a) == len(b)
        assert np.array_equal(a, b, equal_nan=a.dtype == np.float64), column


def test_rows_and_flags() -> None:
    made = make_scores([("live", 0.9), ("print", None)])
    assert made.live.tolist() == [True, False] and made.scored.tolist() == [True, False]
    assert made.row(0)["p_live"] == 0.9 and made.row(1)["p_live"] is None
    assert made.row(0).keys() == set(scores.COLUMNS) and type(made.row(0)["num_frames"]) is int


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("p_live,", "p_spoof,", r"column p_live is missing"),
        ("0.9", "1.9", r"row 2: p_live='1.9' must be a number from 0 to 1"),
        ("0.9", "", r"row 2: p_live='' must be"),
        ("0.9", "nan", r"row 2: p_live='nan' must be"),
        ("clip1", "clip0", r"row 3: key clip0 is in row 2 already"),
        (",ok", ",fine", r"row 2: status='fine' must be one of ok, failed_to_acquire, no_face"),
    ],
)
def test_bad_files(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "dev.csv"
    scores.write(path, make_scores([("live", 0.9), ("print", 0.25)]))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=says) as caught:
        scores.read(path)
    assert "dev.csv" in str(caught.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="livetrain evaluate"):
        scores.read(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        scores.read(tmp_path / "binary.csv")


def test_a_file_of_version_0_1_calls_subjects_groups(tmp_path: Path) -> None:
    path = tmp_path / "dev.csv"
    scores.write(path, make_scores([("live", 0.9), ("print", 0.25)], ["ann", "bob"]))
    path.write_text(path.read_text().replace("subject", "group", 1))
    assert scores.read(path).subject.tolist() == ["ann", "bob"]
    scores.write(path, make_scores([("live", 0.9)], ["ann"]))
    header, row = path.read_text().splitlines()
    path.write_text(f"{header},group\n{row},a column of someone else\n")
    assert scores.read(path).subject.tolist() == ["ann"]
