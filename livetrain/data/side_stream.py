"""A CUDA stream of the loader's own: its copies do not wait behind the updates that are queued on the trainer's.

    side = SideStream(device)
    with side.current():                 # in the loader's thread
        clips = …; labels = side.upload(array)
        ready = side.ready()
    side.hand_over(ready, [clips, labels])   # in the trainer's: its stream waits for the event, the host does not

On the CPU there are no streams and nothing is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class SideStream:
    """See the module. cuda: torch.cuda, or what stands in for it in tests."""

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self.device, self._cuda = device, cuda
        self.stream = cuda.Stream(device=device) if device.type == "cuda" else None

    def current(self) -> contextlib.AbstractContextManager[Any]:
        """Within it the thread's work goes to this stream."""
        return contextlib.nullcontext() if self.stream is None else self._cuda.stream(self.stream)

    def upload(self, array: NDArray[np.generic]) -> torch.Tensor:
        """A copy of the array on the device, under way when this returns: from pinned memory, so nobody waits."""
        tensor = torch.from_numpy(array)
        if self.stream is None:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def ready(self) -> Any:
        """A mark after what was asked of the stream so far; None on the CPU."""
        return None if self.stream is None else self.stream.record_event()

    def hand_over(self, ready: Any, tensors: Iterable[torch.Tensor]) -> None:
        """Have the calling thread's stream wait for the mark.

        The tensors' memory is kept until that stream is done with them.
        """
        if self.stream is None:
            return
        mine = self._cuda.current_stream(self.device)
        mine.wait_event(ready)
        for tensor in tensors:
            tensor.record_stream(mine)
