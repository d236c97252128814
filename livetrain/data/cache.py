"""The shard cache of a node: a folder of complete, verified files with a size limit, shared by a user's processes.

    <key>          a complete file; its modification time is when it was last used
    <key>.part     a download in progress, allocated at its final size so that it counts towards the limit
    <key>.lock     held (flock) while the file is written or read, then removed; the kernel releases it when the
                   holder dies
    room.lock      held while files are evicted

A key consists of the file's name and the digests of its source and its content, so cached files never go stale. Files
are opened for each read, so evicting one frees its space immediately.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from livetrain.config import DataConfig
from livetrain.core.errors import UserError
from livetrain.core.files import expanded, user_cache

_KEY = re.compile(r"[0-9a-f]{12}-[0-9a-f]{64}-[\w.-]+")
_FULL = (errno.ENOSPC, errno.EDQUOT)
ROOM_POLL_SECONDS = 0.05


class ChecksumError(Exception):
    """What was written is not what was asked for."""


def folder_of(config: DataConfig) -> Path:
    """`data.cache_dir`, or $XDG_CACHE_HOME/livetrain/shards, or ~/.cache/livetrain/shards."""
    return Path(expanded(config.cache_dir)) if config.cache_dir else user_cache() / "shards"


def key_of(url: str, sha256: str, name: str) -> str:
    """The name in the cache of the file `name` below `url` with that SHA-256."""
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{sha256}-{name}"


class Cache:
    """The cache in `folder`, of at most `max_bytes`. Processes and threads may share it."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Raises UserError when the folder cannot be written."""
        self.folder, self.max_bytes = folder, max_bytes
        with self._telling():
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / "room.lock"):
                pass

    def path(self, key: str) -> Path:
        """Where the file is, if it is there. Outside of `locked` it can go at any time."""
        return self.folder / key

    def touch(self, key: str) -> bool:
        """Mark a file as used now; False when it is not there."""
        now = time.time_ns()  # the file system's own clock is too coarse to order uses
        try:
            os.utime(self.path(key), ns=(now, now))
        except FileNotFoundError:
            return False
        return True

    @contextlib.contextmanager
    def locked(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a file: nobody else writes or evicts it.

        Yields False, without the lock, when it is held and not `wait`.
        """
        with contextlib.ExitStack() as stack:
            with self._telling():
                held = stack.enter_context(_locked(self.path(key + ".lock"), wait=wait))
            yield held

    def fill(self, key: str, sha256: str, num_bytes: int, blocks: Callable[[], Iterable[bytes]]) -> None:
        """Write a file that `locked` holds from `blocks()`, which is called again when the disk was full.

        Raises ChecksumError when the bytes have another SHA-256, UserError when the disk stays full.
        """
        with self._telling():
            try:
                self._write(key, sha256, num_bytes, blocks())
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                with _locked(self.folder / "room.lock"):
                    self._evict(lambda total, at_first: total + num_bytes <= at_first)
                self._write(key, sha256, num_bytes, blocks())

    def _write(self, key: str, sha256: str, num_bytes: int, blocks: Iterable[bytes]) -> None:
        part, target = self.path(key + ".part"), self.path(key)
        try:
            with os.fdopen(self._reserve(part, num_bytes), "wb") as file:
                digest = hashlib.sha256()
                for block in blocks:
                    digest.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise ChecksumError(key)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        self.touch(key)

    def _reserve(self, part: Path, num_bytes: int) -> int:
        """A descriptor of the new file `part` with `num_bytes` of disk, once there is room under the bound."""
        part.unlink(missing_ok=True)  # of a process that died
        if num_bytes > self.max_bytes:
            raise UserError(
                f"data.cache_gb={self.max_bytes / 1e9:g} is too small: {part.name.removesuffix('.part')} alone has "
                f"{num_bytes / 1e9:.3g} GB"
            )
        while True:
            with _locked(self.folder / "room.lock"):
                if self._evict(lambda total, _: total + num_bytes <= self.max_bytes):
                    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
                    try:
                        if num_bytes:
                            os.posix_fallocate(descriptor, 0, num_bytes)
                    except OSError:
                        os.close(descriptor)
                        raise
                    return descriptor
            # All that is left is coming or being read: one of them is done soon.
            time.sleep(ROOM_POLL_SECONDS)

    def _evict(self, enough: Callable[[int, int], bool]) -> bool:
        """Remove the least recently used files that nobody holds until `enough(bytes left, bytes at first)`."""
        entries = sorted(self._entries())
        total = at_first = sum(num_bytes for _, num_bytes, _ in entries)
        for _, num_bytes, path in entries:
            if enough(total, at_first):
                return True
            with _locked(path.parent / (path.name.removesuffix(".part") + ".lock"), wait=False) as held:
                if held:
                    path.unlink(missing_ok=True)
                    total -= num_bytes
        return enough(total, at_first)

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """(last use in ns, bytes, path) of what is there and what is coming; other files in the folder are not ours."""
        with os.scandir(self.folder) as found:
            for entry in found:
                if _KEY.fullmatch(entry.name) and not entry.name.endswith(".lock"):
                    with contextlib.suppress(FileNotFoundError):
                        facts = entry.stat()
                        yield facts.st_mtime_ns, facts.st_size, Path(entry.path)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """The disk's complaints as a UserError. Errors of the network pass: they carry no errno."""
        try:
            yield
        except OSError as error:
            if error.errno is None:
                raise
            raise UserError(
                f"the shard cache {self.folder}: {error.strerror}; set data.cache_dir to a folder on a disk with room "
                f"for data.cache_gb={self.max_bytes / 1e9:g}, or lower that"
            ) from error


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on the file `path`, made for that and removed after it.

    Threads exclude one another as processes do.
    """
    descriptor = _lock(path, wait=wait)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path, *, wait: bool) -> int | None:
    """A descriptor of the file `path` that holds its lock; None when another one does and not `wait`."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        # Whoever held it has removed the file meanwhile: then the lock is on a file that nobody else will find.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)
