"""Files of a shard folder, wherever it is: one in a bucket is downloaded for as long as they are looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from livetrain.core.errors import UserError
from livetrain.core.remote import Folder, RemoteError, Url
from shards.bucket import READ_ONLY
from shards.videos import remote_of


@contextmanager
def at_hand(folder: Folder, names: Iterable[str]) -> Iterator[Path]:
    """The local folder that has these files: `folder`, or a temporary one with those of them that the bucket has.

    Raises UserError for a URL that cannot be read.
    """
    if isinstance(folder, Path):
        yield folder
        return
    # On NFS a folder stays until what is mapped of it is not any more.
    with tempfile.TemporaryDirectory(prefix="livetrain-", ignore_cleanup_errors=True) as here:
        for name in names:
            _download(folder, name, Path(here) / name)
        yield Path(here)


def tars_in(folder: Folder) -> set[str]:
    """Names of its shards, whether they belong to the build or not; none of a web server, which lists nothing."""
    if isinstance(folder, Path):
        return {path.name for path in folder.glob("shard-*.tar")}
    if folder.startswith(READ_ONLY):
        return set()
    try:
        return {name for name in remote_of(folder).listing() if name.startswith("shard-") and name.endswith(".tar")}
    except RemoteError as error:
        raise _unreadable(error) from None


def _download(url: Url, name: str, path: Path) -> None:
    remote = remote_of(url)
    try:
        size = remote.size(name)
        with path.open("wb") as file:
            for block in [remote.read(name, bytes)] if size is None else remote.blocks(name, size):
                file.write(block)
    except RemoteError as error:
        path.unlink(missing_ok=True)
        if not isinstance(error.__cause__, FileNotFoundError):
            raise _unreadable(error) from None


def _unreadable(error: RemoteError) -> UserError:
    return UserError(f"{error}; check address, credentials and network, then start the same command again")
