"""Who stands still: a file of each process that says how far it got, and a watchdog that ends a run which hangs.

    run_dir/heartbeats/rank-00003.json   {"rank", "host", "pid", "step", "doing", "time" of the last progress, …}

A process that waits for another one in a collective cannot tell for whom. So when one makes no progress for
`train.hang_timeout_seconds`, its watchdog thread reads all heartbeats, names the ranks that are behind, prints where
its own threads stand, and exits; the launcher then ends the others. A process that was stopped or whose machine is
gone writes nothing any more, and is behind all the same.
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

from livetrain.errors import UserError
from livetrain.fileio import write_json

FOLDER = "heartbeats"
EXIT_HANG = 76


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
        interval_seconds: float = 5.0,
        give_up: Callable[[int], None] = os._exit,
    ) -> None:
        self.folder, self.rank, self.timeout_seconds = run_dir / FOLDER, rank, timeout_seconds
        self._interval = min(interval_seconds, timeout_seconds / 10)
        self._give_up = give_up
        self._last = self._now(0, "starting")
        self._written: Beat | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="livetrain-watchdog", daemon=True)

    @property
    def step(self) -> int:
        """Finished updates at the last beat."""
        return self._last.step

    def beat(self, step: int, doing: str) -> None:
        """Note progress; costs nothing, the watchdog writes it down."""
        self._last = self._now(step, doing)

    def __enter__(self) -> Heartbeat:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._write()

    def _now(self, step: int, doing: str) -> Beat:
        return Beat(self.rank, socket.gethostname(), os.getpid(), step, doing, time.time())

    def _write(self) -> None:
        if self._last != self._written:
            self._written = self._last
            try:
                write_json(self.folder / f"rank-{self.rank:05d}.json", asdict(self._written))
            except UserError as error:  # a full disk must not end a run that could go on
                print(f"warning: {error}", file=sys.stderr, flush=True)

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            self._write()
            still = time.time() - self._last.time
            if still > self.timeout_seconds:
                print(
                    f"error: rank {self.rank} on {self._last.host} made no progress for {still:.0f} s "
                    f"(train.hang_timeout_seconds={self.timeout_seconds:g}). {blame(read(self.folder))}",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(all_threads=True)
                self._give_up(EXIT_HANG)
                return


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
    told = "; ".join(
        f"rank {beat.rank} on {beat.host} (pid {beat.pid}): {beat.doing}, {beat.step} updates done, "
        f"last progress {time.strftime('%H:%M:%S', time.localtime(beat.time))}"
        for beat in behind[:4]
    )
    rest = f", and {len(behind) - 4} more" if len(behind) > 4 else ""
    return f"Farthest behind: {told}{rest}" + (f"; {ahead} ranks are ahead of that" if ahead else "")
