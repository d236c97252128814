"""Shards as tar files: writing samples by webdataset's TarWriter, and the DALI index of a tar.

Everything that could differ between two builds (time, owner, mode) is fixed, and the headers are plain USTAR: other
headers would move the payloads that `index.arrow` points at.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 512
INDEX_VERSION = "v1.2"
MAX_KEY_CHARACTERS = 80  # USTAR has 100 for "<key>.<extension>"


@dataclass(frozen=True)
class Member:
    """One file in a tar: `offset` of its first payload byte and `size` of the payload, in bytes."""

    name: str
    offset: int
    size: int

    @property
    def key(self) -> str:
        return self.name.partition(".")[0]

    @property
    def extension(self) -> str:
        return self.name.partition(".")[2]


def padded(size: int) -> int:
    """Bytes a payload takes in a tar: rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


class SampleWriter:
    """Writes samples one after the other to an open file, and knows where each payload went."""

    def __init__(self, file: BinaryIO | RawIOBase) -> None:
        from webdataset.writer import TarWriter  # imports torch, 3 s: only in processes that write

        self._writer = TarWriter(file, encoder=False, mtime=0, user="", group="", mode=0o644)
        self._writer.tarstream.format = tarfile.USTAR_FORMAT  # the default, PAX, adds headers; USTAR raises instead
        # Pieces of 1 MB, not of 10 kB: hashing and writing take half the time.
        self._writer.tarstream.copybufsize = self._writer.tarstream.fileobj.bufsize = 1 << 20
        self._position = 0

    def write(self, key: str, media: Sequence[tuple[str, bytes]], json: bytes) -> list[Member]:
        """Append a sample: its media as (extension, bytes), then its JSON. Returns its members in this order."""
        members = []
        for extension, data in [*media, ("json", json)]:
            # One call a member: within a call TarWriter sorts by extension, and the media come first here.
            self._writer.write({"__key__": key, extension: data})
            members.append(Member(f"{key}.{extension}", self._position + BLOCK, len(data)))
            self._position += BLOCK + padded(len(data))
        return members

    def close(self) -> None:
        self._writer.close()


def read_members(path: Path) -> Iterator[Member]:
    """The regular files of a tar, in order. Raises tarfile.TarError when its structure is damaged."""
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            if member.isreg():
                yield Member(member.name, member.offset_data, member.size)


def index_text(members: Sequence[Member]) -> str:
    """The text that `wds2idx` (DALI, format v1.2) writes for a tar of these members: a line a sample.

    A line holds "extension offset size name" for each of the sample's members.
    """
    samples: list[list[Member]] = []
    for member in members:
        if not samples or samples[-1][0].key != member.key:
            samples.append([])
        samples[-1].append(member)
    lines = (" ".join(f"{m.extension} {m.offset} {m.size} {m.name}" for m in sample) for sample in samples)
    return "\n".join([f"{INDEX_VERSION} {len(samples)}", *lines]) + "\n"


def payload_offsets(row: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(offset, size) in the tar of each media member of a row."""
    if row["store"] != "frames":
        return [(row["offset"], row["size"])]
    result, offset = [], row["offset"]
    for size in row["frame_sizes"]:
        result.append((offset, size))
        offset += padded(size) + BLOCK
    return result


def shard_name(number: int) -> str:
    """The name of a shard's files without suffix."""
    return f"shard-{number:06d}"


def payload_sha256(payloads: Sequence[bytes]) -> str:
    """SHA-256 of a sample's media, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for payload in payloads:
        digest.update(payload)
    return digest.hexdigest()
