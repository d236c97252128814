"""The videos of a build: files of a folder, or below a URL (s3://, gs://). Each is read whole, once a stage.

    for name in find(folder): Video(folder, name).read()

A URL is listed once a process; the size and version of a file are those of the listing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from livetrain.core.errors import UserError
from livetrain.core.files import patiently
from livetrain.core.remote import Entry, Remote, RemoteError, Url
from shards.labels import VIDEO_SUFFIXES, find_videos

Folder = Path | Url
RETRIES = 5


@dataclass(frozen=True)
class Video:
    """A video file, by its name below a folder. Pickles as its names."""

    folder: Folder
    name: str

    def __str__(self) -> str:
        return str(self.folder / self.name)

    def read(self) -> bytes:
        """Its bytes. Raises OSError, and MachineFault where the disk is at fault."""
        if isinstance(self.folder, Url):
            return _remote(self.folder).read(self.name, bytes)
        path = self.folder / self.name
        return patiently(path.read_bytes, path)

    def size(self) -> int:
        """Bytes; -1 where it cannot be asked."""
        if isinstance(self.folder, Url):
            entry = _listing(self.folder).get(self.name)
            return -1 if entry is None else entry.num_bytes
        try:
            return (self.folder / self.name).stat().st_size
        except OSError:
            return -1  # a dangling link, say: probing gives the reason and rejects it

    def stamp(self) -> str:
        """What identifies this version of the file without reading it, from whatever folder it is named."""
        if isinstance(self.folder, Url):
            entry = _listing(self.folder).get(self.name)
            return f"{self} missing" if entry is None else f"{self} {entry.num_bytes} {entry.version}"
        path = (self.folder / self.name).absolute()
        try:
            status = path.stat()
        except OSError:
            return f"{path} missing"
        return f"{path} {status.st_size} {status.st_mtime_ns}"


def find(folder: Folder, option: str = "--videos") -> list[str]:
    """As `labels.find_videos`, also below a URL. Raises UserError."""
    if not isinstance(folder, Url):
        return find_videos(folder, option)
    _listing.cache_clear()
    found = sorted(
        name
        for name in _listing(folder)
        if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES and not any(p.startswith(".") for p in name.split("/"))
    )
    if not found:
        raise UserError(f"{option} {folder}: holds no video ({', '.join(VIDEO_SUFFIXES)})")
    return found


@functools.lru_cache(maxsize=4)
def _remote(url: Url) -> Remote:
    return Remote(url, RETRIES)


@functools.lru_cache(maxsize=4)
def _listing(url: Url) -> dict[str, Entry]:
    try:
        return _remote(url).listing()
    except RemoteError as error:
        raise UserError(f"--videos {error}") from None
