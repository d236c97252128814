"""One run, one owner: a run directory is held by the first process of the run that writes there.

    run_dir/owner.json   {"host", "pid", "started", "beat"}; run_dir/.owner.lock is locked (flock) by it

The kernel frees the lock when its holder dies. File systems of several machines do not all pass locks on, so an owner
on another machine that left its file is watched for a while: one whose `beat` moves is alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from livetrain.core.errors import UserError
from livetrain.core.files import write_json

FILE_NAME, LOCK_NAME = "owner.json", ".owner.lock"
BEAT_SECONDS = 5.0


class Ownership:
    """Holds a run directory from `take` to `release`, or as a context manager.

    Only the first process of a run takes it.
    """

    def __init__(self, run_dir: Path, *, beat_seconds: float = BEAT_SECONDS) -> None:
        self.run_dir, self._beat_seconds = run_dir, beat_seconds
        self._own = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.strftime("%F %T %z")}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._descriptor = -1

    def __enter__(self) -> Ownership:
        return self.take()

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self) -> Ownership:
        """Raises UserError, naming the owner, where another process holds the directory."""
        self._lock()
        self._thread = threading.Thread(target=self._keep_beating, name="livetrain-owner", daemon=True)
        self._thread.start()
        return self

    def release(self) -> None:
        """Let go of the directory."""
        assert self._thread is not None, "take it first"
        self._stop.set()
        self._thread.join(2 * self._beat_seconds)
        with contextlib.suppress(OSError):
            (self.run_dir / FILE_NAME).unlink(missing_ok=True)
        os.close(self._descriptor)

    def _lock(self) -> None:
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.run_dir / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(
                f"cannot write {self.run_dir}: {error.strerror}; set run_dir to a folder of yours"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = True
        except BlockingIOError:
            is_free = False
        except OSError:  # a file system without locks: the file alone tells
            is_free = True
        before = self._read()
        if is_free and before is not None and before.get("host") != self._own["host"]:
            time.sleep(2.5 * self._beat_seconds)
            is_free = (self._read() or {}).get("beat") == before.get("beat")
        if not is_free:
            os.close(self._descriptor)
            who = before or {"pid": "?", "host": "another machine", "started": "?"}
            raise UserError(
                f"{self.run_dir} is being written by process {who['pid']} on {who['host']}, since {who['started']}: "
                "wait for it, end it (it saves on SIGTERM), or choose another name or run_dir"
            )
        self._write(0)

    def _keep_beating(self) -> None:
        beat = 0
        while not self._stop.wait(self._beat_seconds):
            beat += 1
            with contextlib.suppress(UserError, OSError):  # a full disk must not end a run that could continue
                self._write(beat)

    def _write(self, beat: int) -> None:
        write_json(self.run_dir / FILE_NAME, self._own | {"beat": beat})

    def _read(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.run_dir / FILE_NAME).read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            return None
