"""The pool of workers: results of all tasks, errors raised, and a dying worker that takes nothing else with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from livetrain.core import worker_pool
from livetrain.core.columns import Lazy
from livetrain.core.errors import UserError
from shards import probing
from shards.videos import Video
from tests.shards import clips

REPO = Path(__file__).parents[2]


def work(number: int) -> int:
    if number == 13:
        os.abort()  # as a crash in a decoder does
    if number == 17:
        signal.pause()  # as a decoder in an endless loop
    if number == 19:
        return len(bytearray(10**10))
    if number == 99:
        raise UserError("ninety-nine")
    return number * number


@pytest.mark.parametrize("num_workers", [1, 3])
def test_every_task_gives_a_result(num_workers: int) -> None:
    numbers = [3, 1, 4, 1, 5, 9, 2, 6]
    results = dict(worker_pool.unordered(work, numbers, num_workers, probing.PRELOAD))
    assert [results[index] for index in range(8)] == [n * n for n in numbers]
    assert list(worker_pool.unordered(work, [], num_workers, probing.PRELOAD)) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_task_is_made_when_a_worker_takes_it(num_workers: int) -> None:
    made: list[int] = []

    def make(index: int) -> int:
        made.append(index)
        return index

    results = worker_pool.unordered(work, Lazy(12, make), num_workers, probing.PRELOAD)
    taken = [next(results)]
    assert len(made) <= 2 * num_workers, "not all twelve of them"
    taken += results
    assert sorted(taken) == [(index, index * index) for index in range(12)] and made == list(range(12))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_is_raised_here(num_workers: int) -> None:
    with pytest.raises(UserError, match="ninety-nine"):
        list(worker_pool.unordered(work, [1, 99, 2], num_workers, probing.PRELOAD))


def test_only_the_task_that_kills_its_worker_lacks_a_result() -> None:
    numbers = [1, 2, 13, 4, 5, 6, 7, 13, 9]
    results = dict(worker_pool.unordered(work, numbers, 2, probing.PRELOAD))
    assert sorted(results) == list(range(9))
    for index, number in enumerate(numbers):
        if number == 13:
            assert results[index] == worker_pool.WorkerDied("crashed")
        else:
            assert results[index] == number * number


@pytest.mark.parametrize("num_workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_task_that_hangs_is_ended_and_named(num_workers: int) -> None:
    limits = worker_pool.Limits(1, 10**9)
    results = dict(worker_pool.unordered(work, [1, 17, 3, 13, 17, 5], num_workers, probing.PRELOAD, limits))
    slow, crashed = worker_pool.WorkerDied("took longer than 1 s"), worker_pool.WorkerDied("crashed")
    assert results == {0: 1, 1: slow, 2: 9, 3: crashed, 4: slow, 5: 25}


def test_a_task_gets_no_more_memory_than_its_limit() -> None:
    with pytest.raises(MemoryError):
        list(worker_pool.unordered(work, [19], 2, probing.PRELOAD, worker_pool.Limits(60, 10**9)))


def test_a_caller_that_stops_early_leaves_no_process_behind() -> None:
    results = worker_pool.unordered(work, [17, 1, 17], 2, probing.PRELOAD, worker_pool.Limits(60, 10**9))
    assert next(results) == (1, 1)
    results.close()
    assert not multiprocessing.active_children()


def test_a_pool_names_what_its_workers_die_of() -> None:
    """Tasks come one by one, from several threads; what fails takes nothing else with it."""
    pool = worker_pool.Pool(work, 3, probing.PRELOAD, worker_pool.Limits(1, 10**9))
    tasks = [1, 13, 2, 17, 3, 19, 4, 99, 5]
    futures = [pool.submit(task) for task in tasks]
    found = {task: future.exception() or future.result() for task, future in zip(tasks, futures, strict=True)}
    assert {task: found[task] for task in (1, 2, 3, 4, 5)} == {1: 1, 2: 4, 3: 9, 4: 16, 5: 25}
    assert found[13] == worker_pool.WorkerDied("crashed") and found[17] == worker_pool.WorkerDied(
        "took longer than 1 s"
    )
    assert isinstance(found[19], MemoryError) and isinstance(found[99], UserError)
    assert pool.submit(6).result() == 36
    pool.close()


@pytest.mark.parametrize("how", ["list(unordered(abs, [-1, -2], 2))", "Pool(abs, 1, (), None).submit(-1).result()"])
def test_a_script_that_starts_workers_when_it_is_imported_is_told_so(how: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from livetrain.core import entrypoint\nfrom livetrain.core.worker_pool import Pool, unordered\n"
        f"raise SystemExit(entrypoint.run(lambda: {how}))\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, cwd=REPO,
                           env=os.environ | {"PYTHONPATH": str(REPO)})  # fmt: skip
    assert ended.returncode == 2 and 'under `if __name__ == "__main__":`' in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr


def crash_on_bob(video: Video) -> probing.Probed:
    if video.name == "bob-0.mp4":
        os.abort()
    if video.name == "bob-1.mkv":
        signal.pause()
    return probing.probe_file(video)


def test_videos_on_which_the_decoder_crashes_or_hangs_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = clips.corpus(tmp_path / "c", clips_per_person=2)
    monkeypatch.setattr("shards.probing.probe_file", crash_on_bob)
    monkeypatch.setattr("shards.probing.MAX_SECONDS", -59)
    assert clips.build(folder, tmp_path / "s", "--workers", 2) == 0
    lines = (tmp_path / "s/rejected.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["bob-0.mp4", "bob-1.mkv"]
    assert lines[1].endswith("the decoder crashed") and lines[2].endswith("the decoder took longer than 1 s")
