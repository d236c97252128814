"""Which sample goes to which shard, under which key: decided from names, sizes and the seed before any is written.

Pure functions: the number of workers, or where a killed build stopped, cannot change their answers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livetrain.core.columns import Column, Places
from shards.format.probe import Probe
from shards.format.tar import BLOCK, MAX_KEY_CHARACTERS, padded
from shards.labels import Label
from shards.stores import StoreOptions
from shards.stores.frames import num_stored
from shards.stores.pictures import scaled_size

JSON_BYTES = 512  # about what a sample's JSON takes
JPEG_BYTES_PER_PIXEL = 0.25  # about what quality 95 takes


@dataclass(frozen=True)
class Sample:
    """A video that goes to a shard."""

    key: str
    label: Label
    split: str
    facts: Probe
    num_bytes: int  # of the original file
    sha256: str  # of the original file


class Keys(Column[str]):
    """A unique sample key for each video path: the path without suffix, odd characters replaced by "_".

    Paths that come to the same key, or to one that is `taken`, are numbered in the order given; long ones keep their
    end.
    """

    def __init__(self, videos: Sequence[str], taken: Iterable[str] = ()) -> None:
        self._videos = videos
        self._numbered: dict[int, str] = {}
        places, others = Places(map(_base, videos)), set(taken)
        for place, base in enumerate(map(_base, videos)):
            key, number = base, 1
            while key in others or self._is_of_earlier(key, place, places):
                number += 1
                key = f"{base}-{number}"
            if number > 1:
                self._numbered[place] = key
                others.add(key)

    def _is_of_earlier(self, key: str, place: int, places: Places) -> bool:
        """Whether a path before that place comes to this key, numbered or not."""
        return any(earlier < place and self._plain(earlier) == key for earlier in places.find(key))

    def __len__(self) -> int:
        return len(self._videos)

    def _plain(self, place: int) -> str:
        return _base(self._videos[place])

    def item(self, place: int) -> str:
        return self._numbered.get(place, "") or self._plain(place)


_ODD = re.compile(r"[^A-Za-z0-9_-]")


def _base(video: str) -> str:
    # pathlib takes four times as long, and this is called several times for each video.
    folder, slash, name = video.rpartition("/")
    dot = name.rfind(".")
    stem = name[:dot] if 0 < dot < len(name) - 1 else name
    return _ODD.sub("_", folder + slash + stem)[-(MAX_KEY_CHARACTERS - 8) :]


def assign_shards(
    samples: Iterable[Sample], media: StoreOptions, shard_bytes: int, seed: int
) -> list[NDArray[np.int64]]:
    """Shuffle the samples by a hash of seed and key, then fill shards of about `shard_bytes` one after the other.

    Returns the places in `samples` of each shard's, int64[number in the shard].
    """
    drawn = np.fromiter(
        ((*_chance(sample.key, seed), stored_bytes(sample, media)) for sample in samples),
        dtype=[("high", np.uint64), ("low", np.uint64), ("bytes", np.int64)],
    )
    order = np.lexsort((drawn["low"], drawn["high"]))
    starts: list[int] = []
    filled = 0
    for place, size in enumerate(drawn["bytes"][order]):
        if not starts or filled + size > shard_bytes:
            starts.append(place)
            filled = 0
        filled += size
    return np.split(order, starts[1:]) if starts else []


def _chance(key: str, seed: int) -> tuple[int, int]:
    """The first half of the hash, as two numbers."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def stored_bytes(sample: Sample, media: StoreOptions) -> int:
    """About how many bytes a sample takes in a tar.

    Exact but for its JSON when videos are stored as they are; remuxed ones are hardly smaller.
    """
    facts = sample.facts
    width, height = scaled_size(facts.width, facts.height, media.short_side, media.long_side)
    if media.store == "frames":
        num_members = num_stored(facts, media)
        size = num_members * padded(int(width * height * JPEG_BYTES_PER_PIXEL))
    elif media.store == "transcode":
        num_members, size = 1, padded(int(sample.num_bytes * width * height / (facts.width * facts.height)))
    else:
        num_members, size = 1, padded(sample.num_bytes)
    return size + num_members * BLOCK + BLOCK + JSON_BYTES
