"""A build by many machines that share a file system: parts of it as a job array, and what joins them.

    shards build … --part I/N      I from 0 to N-1: probe every Nth video; when all are probed, write every Nth shard
    shards merge DIR               index.arrow and dataset.json, when all shards are there

A part that finds videos of other parts not probed yet says so and ends; the same array, started again, then writes.
What comes out is the build of one machine, byte for byte: parts keep the same records in `.build/`, and plan from them
alone. A part that was killed is started again; it continues where it stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livetrain.core.columns import Lazy
from livetrain.core.engines import Engine
from livetrain.core.errors import UserError
from livetrain.core.files import write_json
from shards import probing
from shards.build import REQUEST, finish, finished_records, same_build, write_all
from shards.build_plan import Plan
from shards.build_request import Request
from shards.format import manifest
from shards.shard_writer import BUILD_FOLDER

ASKED = "asked.json"  # in the build folder: the arguments of the build, for `merge`


@dataclass(frozen=True)
class Part:
    """Number `number` (from 0) of `count`."""

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> Part:
        """Read I/N. Raises UserError."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise UserError(f"--part {text}: write I/N with I from 0 to N-1, such as 0/8")
        return Part(int(number), int(count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, place: int) -> bool:
        """Whether a video or shard of this number is this part's."""
        return place % self.count == self.number


def run_part(request: Request, part: Part, arguments: Mapping[str, Any], engine: Engine) -> str:
    """Do what is this part's, and can be done by now; returns what is next, for the terminal.

    arguments: those of the build, JSON-able, for `asked`. Raises UserError as `build` does, and where another process
    works on this part.
    """
    out = request.out
    if (out / manifest.FILE_NAME).exists():
        same_build(out / manifest.FILE_NAME, request.about(), out)
        return f"{out} is built already"
    with _claimed(request, part, arguments):
        engine = engine.sharing(out / BUILD_FOLDER / REQUEST)
        rows = request.labels.rows
        own = Lazy(len(range(part.number, len(rows), part.count)), lambda i: rows[part.number + i * part.count])
        sizes = request.sizes[part.number :: part.count]
        log = f"probes-{part.number}-of-{part.count}.jsonl"
        probing.probe_all(request.videos, own, sizes, out, engine, request.is_quick, log)
        known = probing.known_probes(request.videos, rows, out)
        if num_missing := len(known.missing()):
            return (
                f"part {part}: its {len(own):,} videos are probed; {num_missing:,} of other parts are not "
                "yet. Run it again when all parts have come so far: it then writes its shards"
            )
        plan = Plan.of(request, known)
        tasks = plan.tasks.only([number for number in plan.tasks.numbers if part.has(number)])
        write_all(tasks, engine)
    return f"part {part}: {len(tasks):,} of {len(plan.tasks):,} shards are written. When all are: shards merge {out}"


def merge(request: Request) -> dict[str, Any]:
    """Finish a build whose parts are done; returns the content of dataset.json.

    Raises UserError while a part is under way, and where something is missing: what, and of how many.
    """
    out = request.out
    with _lock(out, fcntl.LOCK_EX, "a part of the build is under way there; wait for it"):
        rows = request.labels.rows
        known = probing.known_probes(request.videos, rows, out)
        if num_missing := len(known.missing()):
            raise UserError(f"{out}: {num_missing:,} of {len(rows):,} videos are not probed; run all parts again")
        plan = Plan.of(request, known)
        records = finished_records(plan.tasks)
        if num_missing := len(plan.tasks) - len(records):
            raise UserError(
                f"{out}: {num_missing:,} of {len(plan.tasks):,} shards are not written; run all parts again"
            )
        plan.report(out)
        return finish(request, plan, [records[number] for number in plan.tasks.numbers])


def asked(out: Path) -> dict[str, Any]:
    """The arguments of the build whose parts are in `out`. Raises UserError where there are none."""
    path = out / BUILD_FOLDER / ASKED
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{out}: holds no parts of a build; run shards build … --part I/N first") from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); run a part again") from None


@contextlib.contextmanager
def _claimed(request: Request, part: Part, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Hold the folder together with other parts, and this part alone."""
    out, state = request.out, request.out / BUILD_FOLDER
    if out.is_dir() and any(out.iterdir()) and not state.exists():
        raise UserError(f"--out {out}: holds other files; choose a new or empty folder")
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot write there: {error.strerror or error}; choose another folder") from error
    with _lock(out, fcntl.LOCK_SH, "another build is writing there; wait for it or go elsewhere"):
        same_build(state / REQUEST, request.about(), out)
        write_json(state / REQUEST, request.about())
        write_json(state / ASKED, arguments)
        with (state / f"part-{part.number}-of-{part.count}.lock").open("w") as own:
            try:
                fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"--part {part}: another process works on this part of {out}; wait for it") from None
            yield


@contextlib.contextmanager
def _lock(out: Path, kind: int, otherwise: str) -> Iterator[None]:
    """Hold the folder's lock, which a build of one machine holds alone."""
    with (out / BUILD_FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{out}: {otherwise}") from None
        yield
