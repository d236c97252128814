"""Lines of JSON as the memory of long work: found again after a kill, whatever was being written."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.line_log import LINE_BYTES, LineLog, lines

NAMES = ["a", "b", "c", "d"]


def load(path: Path, start: int = 0) -> LineLog:
    log = LineLog(len(NAMES))
    log.load(path, lambda line: [place for place, name in enumerate(NAMES) if name == line[0]], start)
    return log


def test_lines_are_found_by_their_items(tmp_path: Path) -> None:
    log, long = LineLog(4), "ä" * 3 * LINE_BYTES
    with log.appending(tmp_path / "log") as write:
        write(2, ["c", long])
        write(0, ["a", 1])
        assert log.value(2) == ["c", long] and log.value(0) == ["a", 1], "while more are written"
    assert log.missing().tolist() == [1, 3] and len(log) == 4
    with pytest.raises(AssertionError, match="missing"):
        log.value(1)
    again = load(tmp_path / "log")
    assert again.missing().tolist() == [1, 3] and again.value(2) == ["c", long]
    with again.appending(tmp_path / "other") as write:
        write(0, ["a", 2])
    again.load(tmp_path / "log", lambda line: [1] if line[0] == "a" else [])
    assert (again.value(0), again.value(1)) == (["a", 2], ["a", 1]), "the last line of an item, of whatever file"


@pytest.mark.parametrize("torn", [b'["b", 1', b'["b", 1]', b"\xff", b"["])
def test_a_line_that_was_being_written_is_passed_over(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'["a", 0]\n' + torn)
    log = load(path)
    assert log.missing().tolist() == [1, 2, 3]
    with log.appending(path) as write:
        write(3, ["d", 5])
    assert log.value(3) == ["d", 5] and load(path).value(3) == ["d", 5] and load(path).value(0) == ["a", 0]


def test_what_is_before_the_start_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'["a", 0]\n["b", 1]\n')
    assert list(lines(path, 9)) == [(9, ["b", 1])] and load(path, 9).missing().tolist() == [0, 2, 3]
    assert load(path, 9).value(1) == ["b", 1]
