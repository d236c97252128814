"""Reports: Markdown that a reader can check."""

from __future__ import annotations

import math
from pathlib import Path

from livetrain.bench.results import Report, Table
from livetrain.core.tables import markdown


def test_numbers_are_right_aligned_and_short() -> None:
    text = markdown(("side", "ratio", "frames/s"), [("a", 1.23456, 1234.5), ("long name", math.nan, 12)])
    assert text.splitlines() == [
        "| side      | ratio | frames/s |",
        "| --------- | ----: | -------: |",
        "| a         |  1.23 |    1,234 |",
        "| long name |     — |       12 |",
    ]


def test_a_report_says_how_and_where_it_was_made(tmp_path: Path) -> None:
    report = Report("Title", "One line.", [Table("Caption.", ("x",), [(1,)])], {"r": 1.0}, ("hypothesis", "not there"))
    report.write(tmp_path / "sub" / "title.md", ["livetrain", "bench", "a b"])
    text = (tmp_path / "sub" / "title.md").read_text()
    assert text.startswith("# Title\n\nOne line.\n\nCaption.\n\n| x |\n")
    assert "Made by `livetrain bench 'a b'` on 20" in text and "Hardware: " in text and " cores of " in text
    assert "torch 2" in text and "hypothesis " in text and "not there" not in text
