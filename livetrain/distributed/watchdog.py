"""Who stands still: a file of each process that says how far it got, and a watchdog that ends a run which hangs.

    run_dir/heartbeats/rank-00003.json   {"rank", "host", "pid", "step", "doing", "time" of the last progress, …}

A process that waits for another one in a collective cannot tell for whom. So when one makes no progress for
`train.hang_timeout_seconds`, its watchdog thread reads all heartbeats, names the ranks that are behind, prints where
its own threads stand, and exits; the launcher then ends the others. A process that was stopped or whose machine is
gone writes nothing any more, and is behind all the same. What takes longer by nature has more patience (PATIENCE).

The clock is this machine's monotonic one, and another thread writes the files: neither a clock that is set nor a disk
that does not answer keeps the watchdog from its work.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from livetrain.core.errors import EXIT_HANG, UserError
from livetrain.core.files import write_json

FOLDER = "heartbeats"
READ_SECONDS = 10.0  # that the run directory has to tell of the others

# How many times the usual limit some work may take without telling of progress: a large checkpoint on a slow disk; the
# verdict of millions of videos, the report and W&B's upload.
PATIENCE = {"saving": 4.0, "verdict": 20.0}


@dataclass(frozen=True)
class Beat:
    """The last progress of a process: `step` counts finished updates, `time` is in seconds since 1970."""

    rank: int
    host: str
    pid: int
    step: int
    doing: str
    time: float


class Heartbeat:
    """One process's pulse. Use as a context manager, and call `beat` whenever something was finished."""

    def __init__(
        self,
        run_dir: Path,
        rank: int,
        timeout_seconds: float,
        *,
        world: int = 0,
        interval_seconds: float = 5.0,
        give_up: Callable[[int], None] = os._exit,
    ) -> None:
        """world: number of processes; the first one removes what an attempt with more of them has left (0: nothing)."""
        self.folder, self.rank, self.timeout_seconds = run_dir / FOLDER, rank, timeout_seconds
        self._world = world if rank == 0 else 0
        self._interval = min(interval_seconds, timeout_seconds / 10)
        self._give_up = give_up
        self._last, self._since = self._now(0, "starting"), time.monotonic()
        self._written: Beat | None = None
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=f"livetrain-{name}", daemon=True)
            for name, work in (("watchdog", self._watch), ("heartbeat", self._keep_writing))
        ]

    @property
    def step(self) -> int:
        """Finished updates at the last beat."""
        return self._last.step

    def beat(self, step: int, doing: str) -> None:
        """Note progress; costs nothing, a thread writes it down. doing: what comes next."""
        self._last, self._since = self._now(step, doing), time.monotonic()

    def __enter__(self) -> Heartbeat:
        if self._world:
            for path in self.folder.glob("rank-*.json"):
                if int(path.stem.partition("-")[2]) >= self._world:
                    path.unlink(missing_ok=True)
        self._write()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(READ_SECONDS)  # one that hangs in the disk must not keep the process
        self._write()

    def _now(self, step: int, doing: str) -> Beat:
        return Beat(self.rank, socket.gethostname(), os.getpid(), step, doing, time.time())

    def _write(self) -> None:
        if self._last != self._written:
            self._written = self._last
            try:
                write_json(self.folder / f"rank-{self.rank:05d}.json", asdict(self._written))
            except UserError as error:  # a full disk must not end a run that could continue
                print(f"warning: {error}", file=sys.stderr, flush=True)

    def _keep_writing(self) -> None:
        while not self._done.wait(self._interval):
            self._write()

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            last, still = self._last, time.monotonic() - self._since
            limit = self.timeout_seconds * PATIENCE.get(last.doing, 1.0)
            if still > limit:
                print(
                    f"error: rank {self.rank} on {last.host}, {last.doing}, made no progress for {still:.0f} s "
                    f"(train.hang_timeout_seconds={self.timeout_seconds:g}). {self._blame()}",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(all_threads=True)
                self._give_up(EXIT_HANG)
                return

    def _blame(self) -> str:
        """Who is behind, as far as the run directory answers."""
        found: list[str] = []
        reader = threading.Thread(target=lambda: found.append(blame(read(self.folder))), daemon=True)
        reader.start()
        reader.join(READ_SECONDS)
        return found[0] if found else f"{self.folder} does not answer: is its disk or server there?"


def read(folder: Path) -> list[Beat]:
    """All heartbeats of a run, by rank; files that are torn or foreign are left out."""
    beats = []
    for path in sorted(folder.glob("rank-*.json")):
        try:
            beats.append(Beat(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    return beats


def blame(beats: Sequence[Beat]) -> str:
    """A sentence that names the ranks farthest behind: with the fewest updates, of those the one silent longest."""
    if not beats:
        return "No heartbeat was written"
    fewest = min(beat.step for beat in beats)
    behind = sorted((beat for beat in beats if beat.step == fewest), key=lambda beat: beat.time)
    ahead = len(beats) - len(behind)
    message = "; ".join(
        f"rank {beat.rank} on {beat.host} (pid {beat.pid}): {beat.doing}, {beat.step} updates done, "
        f"last progress {time.strftime('%H:%M:%S', time.localtime(beat.time))}"
        for beat in behind[:4]
    )
    rest = f", and {len(behind) - 4} more" if len(behind) > 4 else ""
    return f"Farthest behind: {message}{rest}" + (f"; {ahead} ranks are ahead of that" if ahead else "")
