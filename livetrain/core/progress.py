"""Progress of long work on standard error: a bar with ETA on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

PLAIN_LINE_SECONDS = 10.0
MANY, MANY_AT_ONCE = 100_000, 1000  # items that take longer than a moment

Item = TypeVar("Item")


@contextlib.contextmanager
def progress(
    title: str, total: int, unit: str = "", *, start: int = 0, enabled: bool = True
) -> Iterator[Callable[..., None]]:
    """Yield `advance(num=1, note="")`; call it as work completes.

    `total` counts units of work (`unit` names them), of which `start` were done before; `note` is shown at the line's
    end. With `enabled=False` (a process that is not the main one) nothing is printed.
    """
    if not enabled:
        yield lambda num=1, note="": None
    elif sys.stderr.isatty():
        with _bar(title, total, unit, start) as advance:
            yield advance
    else:
        with _plain_lines(title, total, unit, start) as advance:
            yield advance


def watched(items: Iterable[Item], total: int, title: str, unit: str) -> Iterator[Item]:
    """The items, of which there are about `total`; where that is MANY, with progress."""
    with progress(title, total, unit, enabled=total >= MANY) as advance:
        for number, item in enumerate(items, 1):
            yield item
            if number % MANY_AT_ONCE == 0:
                advance(MANY_AT_ONCE)


@contextlib.contextmanager
def _bar(title: str, total: int, unit: str, start: int) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=start, note="")

        def advance(num: int = 1, note: str = "") -> None:
            bar.update(task, advance=num, note=note)

        yield advance


@contextlib.contextmanager
def _plain_lines(title: str, total: int, unit: str, start: int) -> Iterator[Callable[..., None]]:
    began = last = time.monotonic()
    done = start

    def line(note: str) -> None:
        elapsed = time.monotonic() - began
        eta = f"ETA {elapsed / (done - start) * (total - done):.0f} s" if done > start else "ETA ?"
        print(f"{title}: {done}/{total} {unit} {elapsed:.0f} s {eta} {note}".rstrip(), file=sys.stderr, flush=True)

    def advance(num: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += num
        now = time.monotonic()
        if done >= total or now - last >= PLAIN_LINE_SECONDS:
            last = now
            line(note)

    yield advance


def warn_stderr(line: str) -> None:
    """Print a warning where progress lines go."""
    print(line, file=sys.stderr, flush=True)
