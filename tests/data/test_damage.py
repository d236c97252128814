"""Damaged videos: the same frames as a plain decode gives, or a rejection with its reason; no crash, no hang."""

from __future__ import annotations

import random
import resource
from collections import Counter

import numpy as np
import pytest

from livetrain.core import worker_pool
from livetrain.data.decode import DecodeError, decode_video
from shards.format.probe import RejectedVideo, probe
from shards.probing import MEMORY_BYTES
from tests.shards.kinds import KINDS, reference
from tests.shards.mutants import LARGE, MAX_BYTES, SMALL, mutants

# What these decoders put instead of a damaged part, silently, can be what the memory held before.
SILENT = ("ffv1", "vp8", "av1")


def check(data: bytes, quick: bool = False) -> str:
    """`decoded`, or the reason of the rejection. Raises AssertionError where what is accepted is not decoded alike."""
    try:
        facts = probe(data, quick=quick)
    except RejectedVideo as rejection:
        assert len(str(rejection)) > 10
        return str(rejection)
    assert facts.num_frames > 0 and facts.fps > 0 and facts.duration_seconds > 0
    assert facts.rotation in (0, 90, 180, 270)
    choice = random.Random(len(data))
    wanted = sorted({0, facts.num_frames - 1, *(choice.randrange(facts.num_frames) for _ in range(3))})
    try:
        frames = decode_video(data, np.array(wanted), facts.num_frames)
    except DecodeError as error:
        assert quick, f"accepted, but {error}"
        return "not decoded later"
    if not quick:
        everything = reference(data)
        assert len(everything) == facts.num_frames
        assert facts.codec in SILENT or all(
            np.array_equal(frame, everything[index]) for frame, index in zip(frames, wanted, strict=True)
        )
    return "decoded"


def test_small_kinds_are_those_of_few_bytes() -> None:
    assert [name for name in sorted(KINDS) if len(KINDS[name].data) >= MAX_BYTES] == list(LARGE)


# A transport stream may begin and end anywhere: what is there of it is a video.
@pytest.mark.parametrize("name", [name for name in SMALL if not name.endswith(".mts")])
def test_cut_at_every_tenth(name: str) -> None:
    data = KINDS[name].data
    for tenth in range(10):
        part = data[: len(data) * tenth // 10]
        with pytest.raises(RejectedVideo, match=r"truncated|empty|index|not a readable|media data"):
            probe(part)
        with pytest.raises(RejectedVideo):
            probe(part, quick=True)


def test_sixty_damaged_videos() -> None:
    results = Counter("decoded" if check(data) == "decoded" else "rejected" for _, _, data in mutants(60))
    assert results["decoded"] > 5 and results["rejected"] > 20
    for _, _, data in mutants(60, seed=1):
        check(data, quick=True)


def one(task: tuple[str, str, bytes]) -> tuple[str, int]:
    """What became of a damaged video in both modes, and this process's peak memory in bytes."""
    name, what, data = task
    try:
        result = check(data)
        check(data, quick=True)
    except AssertionError as error:
        result = f"WRONG {name}, {what}: {error}"
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
def test_two_thousand_damaged_videos() -> None:
    """In worker processes, which may die; none does, none takes long, and none much memory."""
    tasks = list(mutants(2000, seed=2))
    limits = worker_pool.Limits(60, MEMORY_BYTES)
    results, peak = Counter[str](), 0
    for index, answer in worker_pool.unordered(one, tasks, 2, ("tests.data.test_damage",), limits):
        if isinstance(answer, worker_pool.WorkerDied):
            results[f"WRONG {tasks[index][:2]}: {answer.reason}"] += 1
        else:
            results[" ".join(answer[0].split()[:3]) if not answer[0].startswith("WRONG") else answer[0]] += 1
            peak = max(peak, answer[1])
    print(f"\npeak {peak / 1e6:.0f} MB; {sum(results.values())} videos")
    for reason, count in results.most_common():
        print(f"{count:6d} {reason}")
    assert not [reason for reason in results if reason.startswith("WRONG")]
    assert results["decoded"] > 200 and sum(results.values()) == 2000
    assert peak < 2 * 10**9
