"""Stopping on request: a signal to any process ends the run at the next step, saved.

Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, and on all processes. A second Ctrl-C, a while after the first, ends it at once.

A handler only takes note. What the processes then do must be the same on each, so the note travels with figures that
are summed over the processes anyway: the totals of an update, or `agree` between batches of an evaluation.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to import, and a signal may come in the meantime
    from accelerate import Accelerator

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SECOND_SECONDS = 1.0  # a terminal and a launcher may both pass on the first one


class StopRequest:
    """Listens for the signals while it is used as a context manager. `requested` is this process's own view.

    Enter it before anything that takes long: a signal that nobody listens for ends the process.
    """

    def __init__(self) -> None:
        self.name = ""
        self._since = 0.0
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return bool(self.name)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
            heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores HUP
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.name and time.monotonic() - self._since > SECOND_SECONDS:
            os._exit(128 + signal.SIGINT)
        self.name, self._since = signal.Signals(number).name, time.monotonic()

    def agree(self, accelerator: Accelerator) -> bool:
        """Whether any process was asked to stop. All processes call it, and all get the same answer."""
        import torch

        mine = torch.tensor(int(self.requested), device=accelerator.device)
        return bool(accelerator.reduce(mine, reduction="sum").item())
