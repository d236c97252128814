"""Nearest neighbours, and hashes that copies share."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from livetrain.core.errors import UserError
from shards.audit import hashes, neighbours
from shards.audit.alignment import SIDE, Window, warp

pytest.importorskip("faiss")


def bits(random: np.random.Generator, count: int, share: float = 0.5) -> np.ndarray:
    return np.packbits(random.random((count, 64)) < share, axis=1)


def test_the_nearest_clips_are_those_of_all_comparisons() -> None:
    random = np.random.default_rng(0)
    rows, owners = bits(random, 300), np.repeat(np.arange(100), 3)
    asked, askers = bits(random, 20), np.repeat(np.arange(200, 210), 2)
    counted = np.bitwise_count(asked[:, None] ^ rows[None]).sum(-1)
    for clip, found, distances in neighbours.nearest(neighbours.index_of(rows), owners, asked, askers, 5):
        own = counted[askers == clip].min(0)  # of any query
        least = np.array([own[owners == owner].min() for owner in range(100)])
        assert distances.tolist() == sorted(least)[:5]
        assert least[found].tolist() == distances.tolist()


def test_a_clip_is_not_near_itself() -> None:
    rows = bits(np.random.default_rng(1), 30)
    owners = np.repeat(np.arange(10), 3)
    for clip, found, _ in neighbours.nearest(neighbours.index_of(rows), owners, rows, owners, 20):
        assert sorted(found.tolist()) == [other for other in range(10) if other != clip]


@pytest.mark.parametrize("kind", ["bits", "floats"])
def test_an_inverted_file_finds_nearly_all(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(neighbours, "EXACT", 500)
    random = np.random.default_rng(2)
    if kind == "bits":
        rows = bits(random, 4000)
        copies = rows ^ bits(random, 4000, 0.05)
    else:
        rows = random.normal(size=(4000, 16)).astype(np.float32)
        copies = rows + random.normal(scale=0.05, size=rows.shape).astype(np.float32)
    own = np.arange(4000)
    right = [
        clip - 4000 in found
        for clip, found, _ in neighbours.nearest(neighbours.index_of(rows), own, copies, own + 4000, 3)
    ]
    assert len(right) == 4000 and np.mean(right) > 0.97


def test_without_faiss_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"livetrain\[audit\]"):
        neighbours.library()


def picture(seed: int) -> np.ndarray:
    """Smooth: most of its detail is coarse, as in photographs."""
    noise = np.random.default_rng(seed).normal(size=(SIDE, SIDE))
    waves = np.fft.fftfreq(SIDE)
    fall = 1 / (0.02 + np.hypot(waves[:, None], waves[None])) ** 1.5
    smooth = np.real(np.fft.ifft2(np.fft.fft2(noise) * fall))
    return (128 + 40 * smooth / smooth.std()).clip(0, 255)[None].astype(np.uint8)


def distance(one: np.ndarray, others: np.ndarray) -> int:
    return int(np.bitwise_count(one[:, None] ^ others[None]).sum(-1).min())


@pytest.mark.parametrize("change", ["noise", "light", "mirror", "crop", "corner"])
def test_a_copy_is_nearer_than_other_pictures_are(change: str) -> None:
    random = np.random.default_rng(3)
    changes = {
        "noise": lambda p: p + random.normal(0, 4, p.shape),
        "light": lambda p: 0.7 * p + 30,
        "mirror": lambda p: p[:, :, ::-1],
        "crop": lambda p: warp(p.astype(np.float32), Window(0.9, 0.9, 0.05, 0.05))[0],
        "corner": lambda p: warp(p.astype(np.float32), Window(0.9, 0.9, 0.1, 0.0))[0],
    }
    asked = hashes.queries(picture(0))
    copy = hashes.indexed(changes[change](picture(0).astype(np.float32)).clip(0, 255).astype(np.uint8))
    others = [distance(asked, hashes.indexed(picture(seed))) for seed in range(1, 60)]
    assert distance(asked, copy) < min(others)
