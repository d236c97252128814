"""Sides of a race: each in its own process, round by round, and none can spoil the others."""

from __future__ import annotations

import os
import time

import pytest

from livetrain.bench.sides import Measured, race, ratio, reason_of, steady_rate, tree_memory


def steady(base: float) -> tuple[float, dict[str, int]]:
    return 2 * base, {"pid": os.getpid()}


def lacking(base: float) -> float:
    raise ImportError("no such package")


def dying(base: float) -> float:
    os._exit(7)


def large(base: float) -> float:
    kept = bytearray(200 * 2**20)
    time.sleep(1)
    return float(len(kept))


def test_rates_and_reasons() -> None:
    found = race({"steady": steady, "lacking": lacking, "dying": dying}, [3.0], rounds=2, title="test")
    assert found["steady"].rates == [6.0, 6.0] and found["steady"].rate == 6.0 and not found["steady"].error
    assert found["steady"].facts["pid"] != os.getpid()
    assert found["lacking"].error == "ImportError: no such package" and not found["lacking"].rates
    assert found["dying"].error == "its process ended with exit code 7"
    assert ratio(found["steady"], found["dying"]) != ratio(found["steady"], found["dying"]), "no number"


def test_the_reason_of_a_failure_is_one_line() -> None:
    assert reason_of(ValueError("no clip\nand more about it")) == "ValueError: no clip"
    wrapped = (
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "worker.py", line 3, in loop\n    raise OSError("libfoo.so.1 is missing")\n'
        "OSError: libfoo.so.1 is missing\nand more about it\n"
    )
    assert reason_of(RuntimeError(wrapped)) == "OSError: libfoo.so.1 is missing"


def test_a_fresh_process_each_round_and_no_warm_up() -> None:
    kept = race({"a": steady}, [1.0], rounds=1, title="test", warm_up=False)["a"]
    assert kept.rates == [2.0]
    pids = [race({"a": steady}, [1.0], rounds=n, title="test", fresh=True)["a"].facts["pid"] for n in (1, 2)]
    assert len(set(pids)) == 2


def test_memory_is_what_the_side_and_its_children_hold() -> None:
    found = race({"large": large, "small": steady}, [1.0], rounds=1, title="test")
    assert found["large"].memory > 200 * 2**20 > found["small"].memory
    assert tree_memory(os.getpid()) > 0 and tree_memory(2**30) == 0


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that slows down for a round slows both sides."""
    a, b = Measured([10.0, 1.0, 10.0]), Measured([5.0, 0.5, 5.0])
    assert ratio(a, b) == 2.0
    assert ratio(Measured([1.0, 30.0, 4.0]), Measured([1.0, 10.0, 2.0])) == 2.0


def test_the_first_batches_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 8.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    assert steady_rate(range(100), 16, skip=3, count=4) == 16 * 4 / 8
