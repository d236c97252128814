"""Competitors on the same work: each in a process of its own, in turn, round after round.

A process each keeps thread pools, allocators, libraries and memory separate; alternating within a round exposes both
sides of a ratio to the same noise of the machine. Ratios are computed per round; the result is their median.
"""

from __future__ import annotations

import multiprocessing
import re
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import psutil

from livetrain.core.progress import progress

MEMORY_PERIOD_SECONDS = 0.25


@dataclass
class Measured:
    """One side's rounds. rates: work per second of each. memory: largest sum of PSS of its processes, bytes.

    error: why there are no rates. facts: what else the side had to say (of its last round).
    """

    rates: list[float] = field(default_factory=list)
    memory: int = 0
    error: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Median work per second; NaN where the side could not run."""
        return statistics.median(self.rates) if self.rates else float("nan")


def ratio(a: Measured, b: Measured) -> float:
    """Median over the rounds of a's rate over b's in the same round; NaN where one could not run."""
    pairs = [x / y for x, y in zip(a.rates, b.rates, strict=False)]
    return statistics.median(pairs) if pairs else float("nan")


def race(
    sides: Mapping[str, Callable[..., Any]],
    arguments: Sequence[Any],
    *,
    rounds: int,
    title: str,
    fresh: bool = False,
    warm_up: bool = True,
) -> dict[str, Measured]:
    """Run each side once a round, in an order that rotates; with `warm_up` a first round does not count.

    A side keeps its process from round to round, or has a new one each time (`fresh`).

    A side is a module-level function `side(*arguments) -> rate` or `-> (rate, facts)`. One that raises ImportError (not
    installed) or anything else is left out from then on, with the reason.
    """
    context = multiprocessing.get_context("spawn")
    measured = {name: Measured() for name in sides}
    workers: dict[str, tuple[Any, Connection]] = {}
    try:
        with progress(title, len(sides) * (rounds + warm_up), "passes") as advance:
            for number in range(1 - warm_up, rounds + 1):
                names = list(sides)
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    if not measured[name].error:
                        if name not in workers:
                            workers[name] = _start(context, sides[name])
                        _one_pass(workers[name], arguments, measured[name], counts=number > 0)
                    if fresh and name in workers:
                        _end(*workers.pop(name))
                    advance(note=name)
    finally:
        for worker in workers.values():
            _end(*worker)
    return measured


def _end(process: Any, connection: Connection) -> None:
    connection.close()
    process.join(10)
    if process.is_alive():
        process.kill()


def _start(context: Any, side: Callable[..., Any]) -> tuple[Any, Connection]:
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(side, there))  # no daemon: a DataLoader has children of its own
    process.start()
    there.close()
    return process, here


def _serve(side: Callable[..., Any], connection: Connection) -> None:
    """What a side's process does: a pass for each set of arguments, until the pipe is closed."""
    while True:
        try:
            arguments = connection.recv()
        except EOFError:
            return
        try:
            result: Any = side(*arguments)
        except Exception as error:  # reported where the table is made: one side's failure is not the bench's
            result = reason_of(error)
        connection.send(result)


def reason_of(error: Exception) -> str:
    """One line; of an error of a worker process, which comes with the worker's traceback, the traceback's last."""
    lines = [line.strip() for line in f"{type(error).__name__}: {error}".splitlines() if line.strip()]
    inner = [line for line in lines[1:] if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (inner[-1] if inner and "Traceback" in str(error) else lines[0])[:200]


def _one_pass(worker: tuple[Any, Connection], arguments: Sequence[Any], measured: Measured, counts: bool) -> None:
    process, connection = worker
    stop = threading.Event()
    watcher = threading.Thread(target=_watch_memory, args=(process.pid, measured, stop))
    connection.send(tuple(arguments))
    watcher.start()
    try:
        result = connection.recv()
    except EOFError:
        process.join()
        result = f"its process ended with exit code {process.exitcode}"
    finally:
        stop.set()
        watcher.join()
    if isinstance(result, str):
        measured.error, measured.rates = result, []
    elif counts:
        rate, facts = result if isinstance(result, tuple) else (result, {})
        measured.rates.append(rate)
        measured.facts = facts


def _watch_memory(pid: int, measured: Measured, stop: threading.Event) -> None:
    while not stop.wait(MEMORY_PERIOD_SECONDS):
        measured.memory = max(measured.memory, tree_memory(pid))


def tree_memory(pid: int) -> int:
    """Bytes of memory (PSS: shared pages are counted once) of a process and all below it."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, AttributeError):  # gone, or a system without PSS
            continue
    return total


def steady_rate(batches: Any, size: int, *, skip: int, count: int) -> float:
    """Units per second of an iterator of batches of `size` units: `count` batches after `skip` of them.

    What is skipped fills queues and starts workers; the iterator must hold more than `skip + count` batches, so that
    its end is not part of the time.
    """
    iterator = iter(batches)
    for _ in range(skip):
        next(iterator)
    started = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return size * count / (time.perf_counter() - started)
