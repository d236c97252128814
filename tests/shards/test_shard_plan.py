"""Keys of samples, and which shard a sample goes to."""

from __future__ import annotations

from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from shards.shard_plan import Keys

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
