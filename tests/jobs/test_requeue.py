"""When a job is worth another attempt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from livetrain.jobs import requeue
from livetrain.jobs.requeue import Attempt, decide


def ends(*pairs: tuple[int, int]) -> list[Attempt]:
    """Attempts from (exit code, newest checkpoint)."""
    return [Attempt(code, step, "7", float(number)) for number, (code, step) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("history", "again", "why"),
    [
        ([(0, 90)], False, "finished"),
        ([(2, 0)], False, "invalid input"),
        ([(137, 50), (3, 60)], False, "NaN or Inf"),
        ([(75, 10)], True, "on request after 10"),
        ([(75, 0)] * 4, True, "on request"),
        ([(75, 0)] * 5, False, "5 stops in a row at 0 updates: a job has less time than"),
        ([(75, step) for step in range(9)], True, "on request"),
        ([(75, 3)] * 4 + [(137, 3), (75, 3)], True, "on request"),
        ([(137, 0)], True, "may be a fault"),
        ([(137, 0), (137, 0)], True, "may be a fault"),
        ([(137, 0), (76, 0), (1, 0)], False, r"3 faults \(exit codes 137, 76, 1\) without a checkpoint beyond 0"),
        ([(137, 10), (137, 10), (137, 10)], True, "may be a fault"),
        ([(137, 10), (137, 10), (137, 10), (137, 10)], False, "beyond 10 updates"),
        ([(137, 10), (137, 10), (75, 10), (137, 10), (137, 10)], False, "beyond 10 updates"),
        ([(137, 10), (137, 10), (137, 10), (137, 20)], True, "may be a fault"),
    ],
)
def test_decision(history: list[tuple[int, int]], again: bool, why: str) -> None:
    decided, said = decide(ends(*history))
    assert decided == again and re.search(why, said)


def test_the_command_line_keeps_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = f"run_dir={tmp_path / 'run'}"
    (tmp_path / "run" / "checkpoints" / "step-00000012").mkdir(parents=True)
    assert [requeue.main(["137", "data.shards=x", run]) for _ in range(4)] == [0, 0, 0, 1]
    assert "3 faults" in capsys.readouterr().out
    assert requeue.main(["0", "data.shards=x", run]) == 1
    (tmp_path / "run" / "attempts.jsonl").write_text("{torn")
    assert requeue.main(["137", "data.shards=x", run]) == 1
    assert "nothing starts again" in capsys.readouterr().out
