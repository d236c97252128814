"""One run, one owner: a second one is refused by name; what a dead one left is taken over."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from livetrain.core.errors import UserError
from livetrain.tracking.run_lock import FILE_NAME, Ownership

CONTEXT = multiprocessing.get_context("forkserver")


def hold(run_dir: Path, held: object) -> None:
    with Ownership(run_dir, beat_seconds=0.05):
        held.set()  # type: ignore[attr-defined]
        signal.pause()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    held = CONTEXT.Event()
    first = CONTEXT.Process(target=hold, args=(tmp_path, held), daemon=True)
    first.start()
    assert held.wait(30)
    with pytest.raises(UserError, match=rf"is being written by process {first.pid} on .*, since \d{{4}}-"):
        Ownership(tmp_path).__enter__()
    first.kill()
    first.join()
    assert (tmp_path / FILE_NAME).exists(), "a killed owner leaves its file"
    with Ownership(tmp_path):
        assert json.loads((tmp_path / FILE_NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / FILE_NAME).exists()


def test_an_owner_on_another_machine_is_known_by_its_beat(tmp_path: Path) -> None:
    """Where locks do not reach: the file of a node that is alive changes, that of a dead one does not."""
    stop = threading.Event()

    def write(beat: int) -> None:
        owner = {"host": "node7", "pid": 4, "started": "2026-11-29", "beat": beat}
        (tmp_path / "new").write_text(json.dumps(owner))
        (tmp_path / "new").replace(tmp_path / FILE_NAME)

    def live() -> None:
        for beat in range(10**6):
            write(beat)
            if stop.wait(0.02):
                return

    thread = threading.Thread(target=live)
    thread.start()
    time.sleep(0.1)
    with pytest.raises(UserError, match="process 4 on node7"):
        Ownership(tmp_path, beat_seconds=0.05).__enter__()
    stop.set()
    thread.join()
    with Ownership(tmp_path, beat_seconds=0.05):
        assert json.loads((tmp_path / FILE_NAME).read_text())["host"] != "node7"
