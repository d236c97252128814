"""The processes of a run as seen by the thread that writes checkpoints: reports to the first one, beside training.

Not by a collective, which would have to stand in the same order among those of training on every process, but by the
store through which the processes found each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch import distributed
from torch.distributed.distributed_c10d import _get_default_store


@dataclass
class Team:
    """`rank` of `world` processes. patience_seconds: how long the first one waits for a report."""

    rank: int = 0
    world: int = 1
    store: Any = None
    patience_seconds: float = 600.0

    @classmethod
    def of_this_run(cls, patience_seconds: float) -> Team:
        """The processes of torch.distributed, or this one alone."""
        if not distributed.is_initialized() or distributed.get_world_size() == 1:
            return cls()
        # A connection of its own: waiting for a key keeps all others of the connection waiting.
        store = distributed.PrefixStore("livetrain-checkpoints", _get_default_store().clone())
        return cls(distributed.get_rank(), distributed.get_world_size(), store, patience_seconds)

    @property
    def is_first(self) -> bool:
        """Whether the others report to this one."""
        return self.rank == 0

    def report(self, about: str, what: Mapping[str, Any]) -> None:
        """Tell the first process, once for each `about`; it is to be JSON."""
        self.store.set(f"{about}/{self.rank}", json.dumps(what))

    def reports(self, about: str) -> list[dict[str, Any]]:
        """What the others report, by rank. Raises TimeoutError when one does not; call it on the first process."""
        found = []
        for rank in range(1, self.world):
            key = f"{about}/{rank}"
            try:
                self.store.wait([key], timedelta(seconds=self.patience_seconds))
            except RuntimeError:
                raise TimeoutError(f"rank {rank} did not write its part in {self.patience_seconds:.0f} s") from None
            found.append(json.loads(self.store.get(key)))
            self.store.delete_key(key)
        return found
