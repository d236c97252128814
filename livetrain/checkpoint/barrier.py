"""The processes of a run as seen by the thread that writes checkpoints: reports to the first one, beside training.

Not by a collective, which would have to stand in the same order among those of training on every process, but by the
store through which the processes found each other.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import distributed
from torch.distributed.distributed_c10d import _get_default_store

POLL_SECONDS = (0.02, 0.5)  # at first, and at most


@dataclass
class RankBarrier:
    """Coordinates checkpoint writes through the store: `rank` of `world` processes.

    patience_seconds: how long the first one waits for a report. broken: set it when a process is known to be gone; then
    none waits any more.
    """

    rank: int = 0
    world: int = 1
    store: Any = None
    patience_seconds: float = 600.0
    broken: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of_this_run(cls, patience_seconds: float) -> RankBarrier:
        """The processes of torch.distributed, or this one alone."""
        if not distributed.is_initialized() or distributed.get_world_size() == 1:
            return cls()
        store = distributed.PrefixStore("livetrain-checkpoints", _get_default_store())
        return cls(distributed.get_rank(), distributed.get_world_size(), store, patience_seconds)

    @property
    def is_first(self) -> bool:
        """Whether the others report to this one."""
        return self.rank == 0

    def report(self, about: str, what: Mapping[str, Any]) -> None:
        """Tell the first process, once for each `about`; it is to be JSON. Raises RuntimeError when it is gone."""
        self.store.set(f"{about}/{self.rank}", json.dumps(what))

    def reports(self, about: str) -> list[dict[str, Any]]:
        """What the others report, by rank; call it on the first process. Raises TimeoutError when one does not."""
        keys = {rank: f"{about}/{rank}" for rank in range(1, self.world)}
        patience = time.monotonic() + self.patience_seconds
        pause, longest = POLL_SECONDS
        # Not `wait`: it holds the connection to the store, which training needs too, and cannot be cancelled.
        while keys and not self.store.check(list(keys.values())):
            if self.broken.is_set() or time.monotonic() > patience:
                missing = next((rank for rank, key in keys.items() if not self.store.check([key])), None)
                if missing is not None:
                    why = "is gone" if self.broken.is_set() else f"took more than {self.patience_seconds:g} s"
                    raise TimeoutError(f"rank {missing} did not write its part: it {why}")
            time.sleep(pause)
            pause = min(2 * pause, longest)
        found = [json.loads(self.store.get(key)) for key in keys.values()]
        for key in keys.values():
            self.store.delete_key(key)
        return found
