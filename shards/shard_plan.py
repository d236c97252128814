"""Which sample goes to which shard, under which key: decided from names, sizes and the seed before any is written.

Pure functions: the number of workers, or where a killed build stopped, cannot change their answers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

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


def keys(videos: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """A unique sample key for each video path: the path without suffix, odd characters replaced by "_".

    Paths that come to the same key, or to one that is `taken`, are numbered in the order given; long ones keep their
    end.
    """
    taken = set(taken)
    result = {}
    for video in videos:
        stem = PurePosixPath(video).with_suffix("").as_posix()
        base = re.sub(r"[^A-Za-z0-9_-]", "_", stem)[-(MAX_KEY_CHARACTERS - 8) :]
        key, number = base, 1
        while key in taken:
            number += 1
            key = f"{base}-{number}"
        taken.add(key)
        result[video] = key
    return result


def assign_shards(samples: Sequence[Sample], media: StoreOptions, shard_bytes: int, seed: int) -> list[list[Sample]]:
    """Shuffle the samples by a hash of seed and key, then fill shards of about `shard_bytes` one after the other."""
    shuffled = sorted(samples, key=lambda sample: hashlib.sha256(f"{seed}:{sample.key}".encode()).digest())
    shards: list[list[Sample]] = []
    filled = 0
    for sample in shuffled:
        size = stored_bytes(sample, media)
        if not shards or filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(sample)
        filled += size
    return shards


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
