"""What a loader yields, and what it asks of the clips it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from livetrain.data.augment import Change
from livetrain.data.clip_plan import PADDING, ClipPlan
from livetrain.data.crop import Cut


class Clips(Protocol):
    """Where a loader's clips come from: a `Dataset`, or video files (livetrain.data.video_files)."""

    @property
    def is_remote(self) -> bool:
        """See `Dataset`, here and below."""

    def column(self, name: str) -> NDArray[Any]: ...
    def text(self, name: str, row: int) -> str: ...
    def shard_name(self, row: int) -> str: ...
    def shard_path(self, row: int) -> Any: ...
    def root_of(self, row: int) -> Any: ...
    def video_bytes(self, row: int) -> bytes: ...
    def jpeg_bytes(self, row: int, frames: NDArray[np.integer]) -> list[bytes]: ...
    def decode(self, row: int, frames: NDArray[np.int64], cut: Cut) -> NDArray[np.uint8]: ...
    def prefetch(self, rows: NDArray[np.int64], share: float = 1.0) -> None: ...
    def cache_reads(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Failure:
    """A clip that failed to load: the tar's name, the sample's key, the reason, the row of the index."""

    shard: str
    key: str
    reason: str
    row: int = PADDING


@dataclass(frozen=True)
class Batch:
    """A micro-batch of n clips.

    clips: float [n, F, 3, S, S] on the device, normalised, zeros where not valid. labels: float32 [n] on the device
    (live = 1; 0 where not valid). kinds: float32 [n, K] on the device, live or one of loss.attack_types, K = 0 without
    those (see livetrain.data.targets). domains: int64 [n] on the device, places in domains.names, -1 for others.

    valid: bool [n] on the device; False for padding (rows == PADDING, key "") and for clips that failed to load
    (rows >= 0; listed in failures). rows: int64 [n]. frames: int64 [n, F], which frames of each video. keys: n sample
    keys. step: the update (training) or batch (evaluation) it belongs to.
    """

    clips: torch.Tensor
    labels: torch.Tensor
    kinds: torch.Tensor
    domains: torch.Tensor
    valid: torch.Tensor
    rows: NDArray[np.int64]
    frames: NDArray[np.int64]
    keys: list[str]
    step: int
    failures: list[Failure]

    @staticmethod
    def made(clips: torch.Tensor, labels: torch.Tensor) -> Batch:
        """Of clips that come from no data set, all valid."""
        num, device = len(clips), clips.device
        rows, frames = np.arange(num), np.tile(np.arange(clips.shape[1]), (num, 1))
        kinds, domains = torch.ones(num, 0, device=device), torch.full((num,), -1, device=device)
        valid = torch.ones(num, dtype=torch.bool, device=device)
        return Batch(clips, labels, kinds, domains, valid, rows, frames, ["clip"] * num, 0, [])


@dataclass(frozen=True)
class Plans:
    """What a loader yields.

    `iterate()` gives the plans of num_batches batches in order. example: one of them, for shapes and the names of
    parameters. changes: what the graph does to pictures, in order. ahead: of so many batches at least the shards are
    downloaded before they are needed. cache_share: of the node's cache that they may take, None: this process's.
    """

    iterate: Callable[[], Iterator[ClipPlan]]
    num_batches: int
    example: ClipPlan
    changes: Sequence[Change] = ()
    ahead: int = 0
    cache_share: float | None = None
