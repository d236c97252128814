"""The videos of a build: files of a folder, or below a URL (s3://, gs://). Each is read whole, once a stage.

    for name in find(folder): Video(folder, name).read()

A URL is listed once a process; the size and version of a file are those of the listing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from livetrain.core.columns import Strings
from livetrain.core.errors import UserError
from livetrain.core.files import patiently
from livetrain.core.remote import Entry, Folder, Remote, RemoteError, Url

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv", ".ts", ".mts", ".m2ts", ".3gp", ".3g2", ".mpg", ".mpeg", ".wmv",
    ".flv", ".ogv",
)  # fmt: skip
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
            return remote_of(self.folder).read(self.name, bytes)
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


def find(folder: Folder, option: str = "--videos") -> Strings:
    """As `find_videos`, also below a URL, for millions of them. Raises UserError."""
    if not isinstance(folder, Url):
        return Strings.of(walk_videos(folder, option))
    _listing.cache_clear()
    found = sorted(
        name
        for name in _listing(folder)
        if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES and not any(p.startswith(".") for p in name.split("/"))
    )
    if not found:
        raise UserError(f"{option} {folder}: holds no video ({', '.join(VIDEO_SUFFIXES)})")
    return Strings.of(found)


def find_videos(folder: Path, option: str = "--videos") -> list[str]:
    """POSIX paths, relative to `folder`, of all video files below it, sorted; hidden files are left out.

    `option`: what complaints call the folder.

    Raises UserError when the folder is missing, unreadable or holds no video.
    """
    return list(walk_videos(folder, option))


def walk_videos(folder: Path, option: str = "--videos") -> Iterator[str]:
    """`find_videos`, one at a time: a folder of its tree is in memory at once, not all of it."""
    if not folder.is_dir():
        raise UserError(f"{option} {folder}: no such folder")
    found = _walk(folder, "", option)
    first = next(found, None)
    if first is None:
        raise UserError(f"{option} {folder}: holds no video ({', '.join(VIDEO_SUFFIXES)})")
    yield first
    yield from found


def _walk(root: Path, below: str, option: str) -> Iterator[str]:
    try:
        with os.scandir(root / below) as entries:
            found = [
                (f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name, entry.is_dir())
                for entry in entries
                if not entry.name.startswith(".")
            ]
    except OSError as error:
        raise UserError(f"{option} {root / below}: cannot list it: {error.strerror or error}") from error
    for name, is_folder in sorted(found):  # with the slash, so that whole paths are sorted
        if name.endswith("/"):
            yield from _walk(root, below + name, option)
        elif not is_folder and Path(name).suffix.lower() in VIDEO_SUFFIXES:
            yield _readable(root, below + name, option)


def _readable(root: Path, name: str, option: str) -> str:
    """`name`, which tables of text can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{option} {root}: the name {os.fsencode(name)!r} is no UTF-8; rename that file") from None
    return name


@functools.lru_cache(maxsize=4)
def remote_of(url: Url) -> Remote:
    """One of a process: a worker reads many files."""
    return Remote(url, RETRIES)


@functools.lru_cache(maxsize=4)
def _listing(url: Url) -> dict[str, Entry]:
    try:
        return remote_of(url).listing()
    except RemoteError as error:
        raise UserError(f"--videos {error}") from None
