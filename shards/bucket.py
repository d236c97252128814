"""A shard folder that is built into a bucket: --out s3://BUCKET/mine.

    bucket = Bucket(url)
    bucket.finished()                     # the content of dataset.json, where a build is there
    bucket.put(tar)                       # by the worker that wrote it, which then removes its own
    bucket.publish(folder, content)       # the index, and dataset.json last: until then nobody sees a data set

The build itself is under way in a local folder (`staging`), which holds its records and the shards being written. An
upload is whole or not there, and its size is compared; S3 and Google compare checksums of what they receive.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from livetrain.core.errors import UserError
from livetrain.core.files import user_cache
from livetrain.core.remote import Remote, RemoteError, Url
from shards import existing
from shards.existing import Kept
from shards.format import index_table, manifest, rejected
from shards.videos import RETRIES

READ_ONLY = ("http://", "https://")


class Bucket:
    """The folder at `url`. Raises UserError for a URL that cannot be written."""

    def __init__(self, url: Url) -> None:
        if url.startswith(READ_ONLY):
            raise UserError(f"--out {url}: files cannot be written there; give s3:// or gs://")
        self.url = url
        self._remote = Remote(url, RETRIES)

    def finished(self) -> dict[str, Any] | None:
        """The content of dataset.json there, None without one. Raises UserError."""
        with self._telling():
            if manifest.FILE_NAME not in self._remote.listing():
                return None
            return self._remote.read(manifest.FILE_NAME, lambda data: manifest.parse(data.decode()))

    def kept(self) -> Kept | None:
        """Who is in which split there, None without a data set."""
        if not self.finished():
            return None
        with tempfile.TemporaryDirectory() as folder:
            for name in (index_table.FILE_NAME, rejected.FILE_NAME):
                with self._telling():
                    (Path(folder) / name).write_bytes(self._remote.read(name, bytes))
            return existing.read(Path(folder), source=self.url)

    def put(self, path: Path) -> None:
        """Upload a file under its name."""
        with self._telling():
            self._remote.put(path, path.name)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file there."""
        with self._telling():
            return {name: entry.num_bytes for name, entry in self._remote.listing().items()}

    def withdraw(self) -> None:
        """Remove dataset.json: what is there is no data set until `publish`."""
        with self._telling():
            self._remote.remove(manifest.FILE_NAME)

    def publish(self, folder: Path, content: Mapping[str, Any]) -> None:
        """Upload what lies beside the shards, dataset.json last; then remove shards of a build before."""
        for name in content["files"]:
            self.put(folder / name)
        self.put(folder / manifest.FILE_NAME)
        ours = {shard["name"] for shard in content["shards"]}
        ours |= {name.replace(".tar", ".idx") for name in ours}
        with self._telling():
            for name in self._remote.listing():
                if name.startswith("shard-") and name.endswith((".tar", ".idx")) and name not in ours:
                    self._remote.remove(name)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except RemoteError as error:
            raise UserError(f"--out {error}; the same command goes on") from None


@functools.lru_cache(maxsize=1)
def bucket_of(url: str) -> Bucket:
    """One of a process: a worker writes many shards."""
    return Bucket(Url(url))


@functools.lru_cache(maxsize=1)
def sizes_at_start(url: str) -> dict[str, int]:
    """`Bucket.sizes`, listed once a process: which shards of a stopped build are there."""
    return bucket_of(url).sizes()


def staging_folder(url: str) -> Path:
    """Where a build into `url` is under way, unless the user says otherwise: the same for the same URL."""
    return user_cache() / "builds" / hashlib.sha256(url.encode()).hexdigest()[:16]
