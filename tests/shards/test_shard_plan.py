"""Keys of samples, and which shard a sample goes to."""

from __future__ import annotations

import hashlib
from contextlib import closing
from itertools import pairwise
from pathlib import Path, PurePosixPath
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.format.tar import SampleWriter
from shards.labels import Label
from shards.shard_plan import Keys, Sample, assign_shards, stored_bytes
from shards.stores import StoreOptions
from tests.shards.stub_videos import FACTS

NAMES = st.lists(
    st.sampled_from(
        [f"{stem}.{suffix}" for stem in ("a", "a-2", "a-3", "b", "a b", "a_b") for suffix in ("mp4", "avi", "mov")]
    ),
    unique=True,
)


@given(st.lists(st.text("ab.é ", min_size=1), min_size=1))
def test_a_key_is_the_path_without_its_suffix(parts: list[str]) -> None:
    path = PurePosixPath(*(part for part in parts if part.strip(".")), "video" + parts[-1])
    stem = path.with_suffix("").as_posix()
    assert list(Keys([path.as_posix()])) == ["".join("_" if letter in "./é " else letter for letter in stem)[-72:]]


@given(NAMES, st.sets(st.sampled_from(["a", "a-2", "b"])))
def test_keys_are_numbered_in_order(videos: list[str], taken: set[str]) -> None:
    """As one that remembers all keys before would."""
    expected: list[str] = []
    for video in videos:
        base = key = video.rpartition(".")[0].replace(" ", "_")
        number = 1
        while key in taken or key in expected:
            number += 1
            key = f"{base}-{number}"
        expected.append(key)
    assert list(Keys(videos, taken)) == expected and len(set(expected)) == len(videos)


def sample(key: str, num_bytes: int = 1000) -> Sample:
    return Sample(key, Label(key, 1, "", "", "", "", ""), "train", FACTS, num_bytes, "0" * 64)


@given(st.lists(st.integers(1, 60_000), max_size=30), st.integers(0, 3), st.randoms())
def test_shards_are_filled_in_an_order_that_only_keys_and_the_seed_decide(
    sizes: list[int], seed: int, random: Random
) -> None:
    samples = [sample(f"video{number}", size) for number, size in enumerate(sizes)]
    limit, media = 100_000, StoreOptions()
    shards = assign_shards(samples, media, limit, seed)
    keys = [[samples[place].key for place in shard] for shard in shards]
    assert sorted(sum(keys, [])) == sorted(one.key for one in samples)
    order = sorted((hashlib.sha256(f"{seed}:{one.key}".encode()).digest(), one.key) for one in samples)
    assert sum(keys, []) == [key for _, key in order]
    stored = [[stored_bytes(samples[place], media) for place in shard] for shard in shards]
    assert all(sum(shard) <= limit for shard in stored), "no sample here is larger than a shard"
    assert all(sum(shard) + follower[0] > limit for shard, follower in pairwise(stored)), "none is closed early"
    shuffled = random.sample(samples, len(samples))
    again = assign_shards(shuffled, media, limit, seed)
    assert [[shuffled[place].key for place in shard] for shard in again] == keys


def test_a_sample_larger_than_a_shard_is_alone() -> None:
    shards = assign_shards([sample(f"{number}", 10_000) for number in range(3)], StoreOptions(), 5_000, 0)
    assert [len(shard) for shard in shards] == [1, 1, 1]


@pytest.mark.parametrize(
    ("num_bytes", "media", "members"),
    [
        (1000, StoreOptions(), [1000]),
        (1025, StoreOptions("remux"), [1025]),
        # The facts: 100 frames in 4 s of 640 x 480. A quarter of a byte a pixel; bytes by the picture's area.
        (1000, StoreOptions("frames", num_frames=3), [76_800] * 3),
        (1000, StoreOptions("frames", frames_per_second=0.5, short_side=240), [19_200] * 2),
        (100_000, StoreOptions("transcode", short_side=240), [25_000]),
        (100_000, StoreOptions("transcode"), [100_000]),
    ],
)
def test_bytes_are_those_of_a_tar_with_a_json_of_one_block(
    num_bytes: int, media: StoreOptions, members: list[int], tmp_path: Path
) -> None:
    with (tmp_path / "one.tar").open("wb") as file, closing(SampleWriter(file)) as writer:
        written = writer.write("key", [(f"{n}.bin", bytes(size)) for n, size in enumerate(members)], bytes(512))
    assert stored_bytes(sample("key", num_bytes), media) == written[-1].offset + 512
