"""Where a loader's time goes: what each stage took, and how many batches were ready when one was requested."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Stages:
    """Seconds and counts since the last `read`, added by several threads.

    prepare: fetching a clip and, without a GPU's decoder, decoding it, a thread's seconds for each clip. graph: waiting
    for DALI, for each batch. ready: batches in the queue when one was asked for.
    """

    def __init__(self, cache_reads: Callable[[], tuple[int, int]] = lambda: (0, 0)) -> None:
        """`cache_reads`: (reads, those of cached shards) so far; (0, 0) where nothing is cached."""
        self._lock = threading.Lock()
        self._cache_reads, self._last_reads = cache_reads, cache_reads()
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: float) -> None:
        with self._lock:
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def read(self) -> dict[str, float]:
        """`loader_<name>`: the mean of what was added since the last call; nothing of what was not.

        `loader_cache_hits`: the share of reads since the last call whose shard was in the cache, of remote shards.
        """
        with self._lock:
            (reads, hits), before = self._cache_reads(), self._last_reads
            self._last_reads = reads, hits
            means = {f"loader_{name}": self._sums[name] / self._counts[name] for name in sorted(self._sums)}
            self._sums, self._counts = {}, {}
        return means | ({"loader_cache_hits": (hits - before[1]) / (reads - before[0])} if reads > before[0] else {})
