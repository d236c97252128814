"""Damaged videos: cuts, flipped bytes, overwritten and moved blocks, wild sizes; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.shards.kinds import KINDS

LARGE = ("h264_4k.mp4", "qtrle_alpha.mov", "raw.avi")  # of more than MAX_BYTES
MAX_BYTES = 50_000
SMALL = [name for name in sorted(KINDS) if name not in LARGE]
FIELDS = tuple(
    b"moov tkhd mdhd stsd stts ctts stsz stco stsc stss avcC hvcC avc1 elst trun avih strh strf idx1".split()
)
FIELDS += (b"\xb0", b"\xba", b"\xa3", b"\x1a\x45")  # Matroska: width, height, a block, the head


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str, str, bytes]]:
    """(name of the kind, what was done, the bytes) of `count` damaged videos, kind after kind."""
    for number in range(count):
        choice = random.Random(f"{seed}:{number}")
        name = SMALL[number % len(SMALL)]
        data = bytearray(KINDS[name].data)
        change = choice.choice([_flip, _flip, _flip_many, _cut, _blank, _repeat, _remove, _wild_field, _wild_field])
        what = change(data, choice)
        yield name, what, bytes(data)


def _flip(data: bytearray, choice: random.Random) -> str:
    position = choice.randrange(len(data))
    data[position] ^= 1 << choice.randrange(8)
    return f"a bit at {position}"


def _flip_many(data: bytearray, choice: random.Random) -> str:
    count = choice.choice([4, 32, 256])
    for _ in range(count):
        data[choice.randrange(len(data))] = choice.randrange(256)
    return f"{count} bytes"


def _cut(data: bytearray, choice: random.Random) -> str:
    end = choice.randrange(len(data))
    del data[end:]
    return f"cut at {end}"


def _blank(data: bytearray, choice: random.Random) -> str:
    start, length = choice.randrange(len(data)), choice.choice([8, 64, 512, 4096])
    data[start : start + length] = bytes(len(data[start : start + length]))
    return f"zeros at {start}"


def _repeat(data: bytearray, choice: random.Random) -> str:
    start, to = choice.randrange(len(data)), choice.randrange(len(data))
    data[to:to] = data[start : start + 200]
    return f"bytes of {start} put in at {to}"


def _remove(data: bytearray, choice: random.Random) -> str:
    start = choice.randrange(len(data))
    del data[start : start + choice.randrange(1, 100)]
    return f"bytes removed at {start}"


def _wild_field(data: bytearray, choice: random.Random) -> str:
    """Overwrites four bytes after the name of a structure with an extreme number: sizes, counts, offsets, rates."""
    places = [at for field in FIELDS for at in _all(data, field)]
    at = choice.choice(places or [0]) + 4 + choice.randrange(0, 40)
    value = choice.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**16 - 1, 0x10000000])
    data[at : at + 4] = value.to_bytes(4, choice.choice(["big", "little"]))
    return f"{value} at {at}"


def _all(data: bytearray, field: bytes) -> Iterator[int]:
    at = data.find(field)
    while at >= 0:
        yield at
        at = data.find(field, at + 1)
