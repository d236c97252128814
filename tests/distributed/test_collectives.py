"""One process decides: the others have its answer, or end as it does; none waits for one that has failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import ranks


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("none", "1", "1"),
        ("user", "UserError: no such folder", "UserError: no such folder"),
        ("bug", "ZeroDivisionError: ", "RuntimeError: the first process failed: ZeroDivisionError: "),
    ],
)
def test_all_end_as_the_first_process_does(kind: str, first: str, second: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ranks.start_script("tests.deciding", [kind], log=log) as started:
        assert started.wait() == [0, 0], log.read_text()
    assert f"rank 0: {first}" in log.read_text() and f"rank 1: {second}" in log.read_text()
