"""Where a process stands among those of its run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator, PartialState


@dataclass(frozen=True)
class World:
    """rank of size processes, of which local_size share this machine; device: what this one computes on."""

    device: torch.device
    rank: int = 0
    size: int = 1
    local_size: int = 1

    @staticmethod
    def of(accelerator: Accelerator | PartialState) -> World:
        """As Accelerate sees it, with torchrun's LOCAL_WORLD_SIZE."""
        size = accelerator.num_processes
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        return World(accelerator.device, accelerator.process_index, size, local_size)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0
