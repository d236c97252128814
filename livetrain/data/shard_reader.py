"""Where the files of a shard folder are: on a disk of this machine, or behind a URL.

    LocalReader    a range of a shard is one `pread`; files stay open
    RemoteReader   a shard that is needed is downloaded whole into the cache of the node, then read as a local one

Training sees the samples in random order, so it soon wants every shard. The cache should hold the data set: then each
shard is downloaded once a node, whatever the number of processes and epochs. With less room the least recently used
shards go, and a shard is downloaded again and again for a few clips each time: batches are the same, but the network
sets the pace. `data.cache_gb` is the key to look at when the trainer waits; `data.order=windows` (shard_order.py) needs
a cache of a few shards, and with `data.range_mb` small clips are downloaded alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from livetrain.config import DataConfig
from livetrain.core.errors import UserError
from livetrain.core.files import MACHINE_FAULTS, is_url, patiently, read_range
from livetrain.core.remote import BLOCK_BYTES, Folder, Remote, RemoteError
from livetrain.data import cache
from shards.format import manifest

DOWNLOADS = 4  # of a process at once, ahead of need
MAX_OPEN = 128  # shards of a folder; a process may often open 1,024 files, and has other uses for them


OF_MANIFEST = "the one in dataset.json: it is damaged, or the shards were built again since this run began"


class ShardReader(Protocol):
    """The files of one shard folder. Threads may share it."""

    @property
    def root(self) -> Folder:
        """The folder, as the user named it; `root / name` names a file."""

    @property
    def range_bytes(self) -> int:
        """A range of at most so many bytes is read without its shard, where that is not on a local disk."""

    def manifest_text(self) -> str:
        """The content of dataset.json. Raises FileNotFoundError, other OSErrors, UserError."""

    def file(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A file beside the shards, on a local disk for as long as the context lasts.

        Raises FileNotFoundError, UserError.
        """

    def read(self, shard: str, offset: int, num_bytes: int) -> bytes:
        """A range of a shard, short where the shard ends within it. Raises OSError, with words; UserError."""

    def cache_reads(self) -> tuple[int, int]:
        """(ranges read, those of shards that were in the cache) so far; (0, 0) without a cache."""

    def generation(self, shard: str) -> int:
        """Which copy of a shard is read now."""

    def distrust(self, shard: str, generation: int) -> bool:
        """Report wrong bytes in the copy `generation` of a shard.

        Returns whether another copy may be read now.
        """

    def prefetch(self, shards: Sequence[str], share: float) -> None:
        """Have `shards`, in the order of need, at hand soon, instead of those of the last call.

        `share`: of the cache that is this process's to plan with.
        """

    def close(self) -> None:
        """Let go of open files and of work in the background; both come back when needed."""


def open_reader(where: str | Path, config: DataConfig) -> ShardReader:
    """The store of a folder or a URL. Raises UserError for a URL that cannot be used; a folder is not looked at yet."""
    if not is_url(where):
        return LocalReader(Path(where))
    if str(where).startswith("file://"):
        return LocalReader(Path(str(where).removeprefix("file://")))
    return RemoteReader(str(where), config)


@dataclass
class _Open:
    """An open shard, and how many threads are reading from it."""

    descriptor: int
    readers: int = 0
    is_stale: bool = False


class LocalReader:
    """A folder on a disk of this machine.

    Of its shards at most MAX_OPEN stay open, those used last: there may be more of them than a process may open.
    """

    range_bytes = 0

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def manifest_text(self) -> str:
        return (self.root / manifest.FILE_NAME).read_text(encoding="utf-8")

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A file that dataset.json names is checked: it may be of another build or split, half copied, or cut."""
        wanted = json.loads(self.manifest_text()).get("files", {}).get(name)
        yield manifest.current(self.root / name, wanted) if wanted else self.root / name

    def read(self, shard: str, offset: int, num_bytes: int) -> bytes:
        def once() -> bytes:
            try:
                with self._reading(shard) as descriptor:
                    return read_range(descriptor, num_bytes, offset)
            except OSError as error:
                if error.errno in MACHINE_FAULTS:  # a file handle of a server that was started again stays stale
                    self.close()
                raise

        return patiently(once, self.root / shard)

    def cache_reads(self) -> tuple[int, int]:
        return 0, 0

    def generation(self, shard: str) -> int:
        return 0

    def distrust(self, shard: str, generation: int) -> bool:
        return False

    def prefetch(self, shards: Sequence[str], share: float) -> None:
        """Nothing: the kernel reads ahead, and keeps what it has read."""

    def close(self) -> None:
        with self._lock:
            for name in [name for name, item in self._open.items() if not item.readers]:
                os.close(self._open.pop(name).descriptor)
            for item in self._open.values():  # whoever reads closes it
                item.is_stale = True
            self._open.clear()

    @contextlib.contextmanager
    def _reading(self, shard: str) -> Iterator[int]:
        """The descriptor of a shard, which nobody closes meanwhile."""
        with self._lock:
            item = self._open.get(shard)
            if item is None:
                item = self._open[shard] = _Open(os.open(self.root / shard, os.O_RDONLY | os.O_CLOEXEC))
            self._open.move_to_end(shard)
            item.readers += 1
            idle = [name for name, other in self._open.items() if not other.readers]
            for name in idle[: max(0, len(self._open) - MAX_OPEN)]:
                os.close(self._open.pop(name).descriptor)
        try:
            yield item.descriptor
        finally:
            with self._lock:
                item.readers -= 1
                if item.is_stale and not item.readers:
                    os.close(item.descriptor)


class RemoteReader:
    """A folder behind a URL. dataset.json is read again by every process; everything else comes through the cache."""

    def __init__(self, url: str, config: DataConfig) -> None:
        """Reads dataset.json. Raises UserError when it cannot be read, or the cache cannot hold the largest shard."""
        patience = 60 * config.outage_minutes if config.on_outage == "wait" else 0.0
        self._remote = Remote(url, config.retries, patience)
        self.range_bytes = int(config.range_mb * 1e6)
        self.root = self._remote.url
        try:
            content = self._remote.read(manifest.FILE_NAME, lambda data: manifest.parse(data.decode()))
        except RemoteError as error:
            raise UserError(
                f"{error}; data.shards must be the URL of a folder that `python -m shards build` wrote"
            ) from None
        self._text = manifest.text_of(content)
        self._sha256: dict[str, str] = dict(content.get("files", {}))
        self._num_bytes: dict[str, int] = {}
        for shard in content.get("shards", []):
            self._sha256[shard["name"]], self._num_bytes[shard["name"]] = shard["sha256"], shard["bytes"]
        max_bytes = int(config.cache_gb * 1e9)
        largest = max(self._num_bytes.values(), default=0)
        if largest > max_bytes:
            raise UserError(
                f"data.cache_gb={config.cache_gb:g} is too small: the largest shard of {self.root} has "
                f"{largest / 1e9:.3g} GB, and all of them {sum(self._num_bytes.values()) / 1e9:.3g} GB"
            )
        self._cache = cache.Cache(cache.folder_of(config), max_bytes)
        self._failed: dict[str, tuple[float, str]] = {}  # shard → when it failed to load, and why
        self._generations: dict[str, int] = {}  # of shards that were not as they should be
        self._lock = threading.Lock()  # of what follows
        self._num_reads = self._num_hits = 0
        self._wanted: deque[str] = deque()
        self._workers: set[threading.Thread] = set()

    def manifest_text(self) -> str:
        return self._text

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        if name not in self._sha256:
            raise FileNotFoundError(self.root / name)
        with self._cache.locked(self._key(name)):
            try:
                self._have(name)
            except RemoteError as error:
                raise UserError(str(error)) from None
            yield self._cache.path(self._key(name))

    def read(self, shard: str, offset: int, num_bytes: int) -> bytes:
        try:
            found = self._pread(shard, offset, num_bytes)
        except FileNotFoundError:
            began = time.monotonic()
            self._count(0)
        else:
            self._count(1)
            return found
        if num_bytes <= self.range_bytes:
            size = self._num_bytes[shard]
            return self._remote.range(shard, offset, min(offset + num_bytes, size), size)[:num_bytes]
        with self._cache.locked(self._key(shard)):
            # Who waited for a download that failed does not begin it again: a batch would wait for each of its clips.
            failed, why = self._failed.get(shard, (began, ""))
            if failed > began:
                raise RemoteError(why)
            try:
                self._have(shard)
            except RemoteError as error:
                self._failed[shard] = time.monotonic(), str(error)
                raise
            return self._pread(shard, offset, num_bytes)

    def cache_reads(self) -> tuple[int, int]:
        with self._lock:
            return self._num_reads, self._num_hits

    def _count(self, num_hits: int) -> None:
        with self._lock:
            self._num_reads += 1
            self._num_hits += num_hits

    def generation(self, shard: str) -> int:
        return self._generations.get(shard, 0)

    def distrust(self, shard: str, generation: int) -> bool:
        with self._cache.locked(self._key(shard)):
            if generation != self._generations.get(shard, 0):
                return True  # another thread has asked for a new copy meanwhile
            if generation:
                return False  # the next copy is no better: the index is wrong, and a third would be too
            self._generations[shard] = generation + 1
            self._cache.path(self._key(shard)).unlink(missing_ok=True)
        return True

    def prefetch(self, shards: Sequence[str], share: float) -> None:
        # Half of the cache, so that what is announced does not push out what is being read.
        room = share * self._cache.max_bytes / 2
        wanted: deque[str] = deque()
        for shard in shards:
            room -= self._num_bytes[shard]
            if room < 0:
                break
            if not self._cache.touch(self._key(shard)):
                wanted.append(shard)
        with self._lock:
            self._wanted = wanted
            for _ in range(min(DOWNLOADS - len(self._workers), len(wanted))):
                worker = threading.Thread(target=self._work, name="livetrain-download", daemon=True)
                self._workers.add(worker)
                worker.start()

    def close(self) -> None:
        with self._lock:
            self._wanted.clear()
            workers = list(self._workers)
        self._remote.interrupt()
        for worker in workers:
            worker.join()

    def _key(self, name: str) -> str:
        return cache.key_of(self.root, self._sha256[name], name)

    def _pread(self, shard: str, offset: int, num_bytes: int) -> bytes:
        key = self._key(shard)

        def once() -> bytes:
            descriptor = os.open(self._cache.path(key), os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._cache.touch(key)
                return read_range(descriptor, num_bytes, offset)
            finally:
                os.close(descriptor)

        return patiently(once, self._cache.path(key))

    def _have(self, name: str) -> None:
        """Download a file whose lock is held, unless it is there. Raises RemoteError, UserError (the disk)."""
        key = self._key(name)
        if self._cache.touch(key):
            return
        # Bytes can change on the way; wrong ones twice are what the server has. Of a file whose size dataset.json does
        # not say, the server's word is not taken a second time: some tell a wrong one, and send all the same.
        guessed = name not in self._num_bytes
        for whole in (False, True):
            forgiven = (cache.ChecksumError, RemoteError) if guessed and not whole else (cache.ChecksumError,)
            with contextlib.suppress(*forgiven):
                num_bytes, blocks = self._source(name, whole=whole)
                self._cache.fill(key, self._sha256[name], num_bytes, blocks)
                return
        raise RemoteError(f"{self.root / name}: its SHA-256 is not {OF_MANIFEST}")

    def _source(self, name: str, *, whole: bool) -> tuple[int, Callable[[], Iterable[bytes]]]:
        """The size of a file, and what begins to download it. whole: in one piece, whatever its size is said to be."""
        num_bytes = self._num_bytes.get(name)
        if num_bytes is None:
            stated = None if whole else self._remote.size(name)
            if stated is None or stated <= BLOCK_BYTES:
                data = self._remote.read(name, lambda found: self._as_stated(name, found))
                return len(data), lambda: [data]
            num_bytes = stated
        return num_bytes, lambda: self._remote.blocks(name, num_bytes)

    def _as_stated(self, name: str, data: bytes) -> bytes:
        if hashlib.sha256(data).hexdigest() != self._sha256[name]:
            raise ValueError(f"its SHA-256 is not {OF_MANIFEST}")
        return data

    def _work(self) -> None:
        """A thread that downloads what is wanted next, until nothing is."""
        while True:
            with self._lock:
                if not self._wanted:
                    self._workers.discard(threading.current_thread())
                    return
                shard = self._wanted.popleft()
            # What fails here fails again, and is reported, where it is needed. What is locked is on its way already.
            with (
                contextlib.suppress(Exception),
                self._cache.locked(self._key(shard), wait=False) as held,
            ):
                if held:
                    self._have(shard)
