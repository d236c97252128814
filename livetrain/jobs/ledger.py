"""What was submitted for a run, and whether it was cancelled: RUN/jobs.jsonl, RUN/cancelled."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

from livetrain.core.errors import UserError
from livetrain.core.files import write_text

FILE_NAME, CANCELLED = "jobs.jsonl", "cancelled"


@dataclass(frozen=True)
class Submitted:
    """A submitted job.

    Its number, what it does (train, evaluate, …), the folders of its runs (several in an array), commit and folder of
    its code, the sbatch call, seconds since 1970.
    """

    job: str
    what: str
    runs: list[str]
    commit: str
    code: str
    command: list[str]
    time: float


def note(run_dir: Path, job: Submitted) -> None:
    """Add a job; this revokes an earlier cancellation of the run."""
    for folder in (run_dir, *map(Path, job.runs)):
        (folder / CANCELLED).unlink(missing_ok=True)
    with (run_dir / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(job)) + "\n")


def read(run_dir: Path) -> list[Submitted]:
    """All jobs of a run, in order. Raises UserError for a folder that has none."""
    path = run_dir / FILE_NAME
    try:
        return [Submitted(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UserError(f"{run_dir}: nothing was submitted from here: it has no {FILE_NAME}") from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def cancel(folder: Path) -> None:
    """Leave word that the run in `folder` must not start again by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CANCELLED, time.strftime("%F %T %z\n"))


def is_cancelled(folder: Path) -> bool:
    """Whether the run was cancelled."""
    return (folder / CANCELLED).exists()
