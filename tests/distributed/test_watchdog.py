"""The watchdog: silent while there is progress; names the rank that is behind when there is none."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from livetrain.core.errors import EXIT_HANG
from livetrain.distributed import watchdog
from livetrain.distributed.watchdog import Beat, Heartbeat, blame, read


def beat(rank: int, step: int, time: float = 1.0e9) -> Beat:
    return Beat(rank, f"node{rank}", 100 + rank, step, "training", time)


def test_blame_is_on_the_fewest_updates_then_the_longest_silence() -> None:
    message = blame([beat(0, 8), beat(1, 7, 1.0e9 + 5), beat(2, 7), beat(3, 8)])
    assert message.startswith("Farthest behind: rank 2 on node2 (pid 102): training, 7 updates done")
    assert (
        message.index("rank 2") < message.index("rank 1 ")
        and "2 ranks are ahead" in message
        and "rank 3" not in message
    )
    assert "and 3 more" in blame([beat(rank, 1) for rank in range(7)])
    assert blame([]) == "No heartbeat was written"


def test_progress_is_written_and_read_back(tmp_path: Path) -> None:
    with Heartbeat(tmp_path, 3, 1000.0) as pulse:
        assert [(b.rank, b.step, b.doing) for b in read(tmp_path / watchdog.FOLDER)] == [(3, 0, "starting")]
        pulse.beat(17, "training")
    (tmp_path / watchdog.FOLDER / "rank-00009.json").write_text('{"rank": 9')
    (found,) = read(tmp_path / watchdog.FOLDER)
    assert (found.step, found.doing) == (17, "training") and found.host


def test_no_progress_ends_the_run_and_names_the_rank_behind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / watchdog.FOLDER).mkdir()
    stopped = beat(1, 4)
    (tmp_path / watchdog.FOLDER / "rank-00001.json").write_text(json.dumps(stopped.__dict__))
    codes: list[int] = []
    gave_up = threading.Event()

    def give_up(code: int) -> None:
        codes.append(code)
        gave_up.set()

    with Heartbeat(tmp_path, 0, 0.2, give_up=give_up) as pulse:
        pulse.beat(5, "training")
        assert gave_up.wait(30)
    assert codes == [EXIT_HANG]
    said = capfd.readouterr().err
    assert "rank 0 on" in said and "Farthest behind: rank 1 on node1 (pid 101): training, 4 updates done" in said
    assert "test_no_progress_ends_the_run" in said, "where this process's threads stand"


def test_what_takes_long_by_nature_has_more_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict of millions of videos, a checkpoint on a slow disk: no hang, until their own limit."""
    monkeypatch.setitem(watchdog.PATIENCE, "verdict", 8.0)
    codes: list[int] = []
    gave_up = threading.Event()
    with Heartbeat(tmp_path, 0, 0.2, give_up=lambda code: (codes.append(code), gave_up.set())) as pulse:  # type: ignore[func-returns-value]
        pulse.beat(5, "verdict")
        assert not gave_up.wait(0.8)
        assert gave_up.wait(30)
    assert codes == [EXIT_HANG]


def test_a_disk_that_does_not_answer_blinds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Writing hangs, and so does reading what others wrote; a clock that is set back does not help either."""
    hung, gave_up = threading.Event(), threading.Event()
    monkeypatch.setattr(watchdog, "READ_SECONDS", 0.2)
    pulse = Heartbeat(tmp_path, 0, 3.0, give_up=lambda code: gave_up.set())
    with pulse:

        def hang(*_: object) -> list[Beat]:
            hung.wait(30)
            return []

        monkeypatch.setattr(watchdog, "write_json", hang)
        monkeypatch.setattr(watchdog, "read", hang)
        monkeypatch.setattr(watchdog.time, "time", lambda: 0.0)
        pulse.beat(1, "training")
        assert gave_up.wait(20)
        hung.set()
        monkeypatch.undo()
    assert f"{tmp_path / watchdog.FOLDER} does not answer" in capfd.readouterr().err


def test_files_of_an_attempt_with_more_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / watchdog.FOLDER).mkdir()
    for rank in range(4):
        (tmp_path / watchdog.FOLDER / f"rank-{rank:05d}.json").write_text(json.dumps(beat(rank, 3).__dict__))
    with Heartbeat(tmp_path, 0, 1000.0, world=2):
        assert [b.rank for b in read(tmp_path / watchdog.FOLDER)] == [0, 1]


def test_progress_keeps_the_watchdog_quiet(tmp_path: Path) -> None:
    """Beats come faster than the timeout, until far more time than that has gone by."""
    gave_up = threading.Event()
    with Heartbeat(tmp_path, 0, 1.5, give_up=lambda code: gave_up.set()) as pulse:
        for step in range(60):
            pulse.beat(step, "training")
            assert not gave_up.wait(0.05)
