"""Python's garbage collector, kept from stopping an update whenever it likes.

It walks over every object that torch, timm, DALI and pyarrow made, some hundred thousand, and on many processes some
rank is always in it while the others wait. So what is there when training begins is left out of it (`gc.freeze`), and
what is made since is looked at every `PERIOD` updates, on all processes at the same one.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

PERIOD = 50  # updates


@contextlib.contextmanager
def paused_gc() -> Iterator[Callable[[int], None]]:
    """Yields `collect(step)`, to be called after each update. Afterwards the collector is as it was."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()

    def collect(step: int) -> None:
        if (step + 1) % PERIOD == 0:
            gc.collect()

    try:
        yield collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
