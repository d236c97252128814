"""How submitted jobs go, and their end.

    livetrain jobs [RUN …]     state, attempts, last update and reason of what was submitted (default: all of runs/)
    livetrain cancel RUN …     cancel what is queued or running; a run saves first, and does not start again by itself

A run that was cancelled resumes when it is submitted again.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from livetrain.core.errors import UserError
from livetrain.core.tables import fitted
from livetrain.jobs import ledger, requeue
from livetrain.jobs.ledger import Submitted
from livetrain.tracking.run_dir import RunDir

QUEUED = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD")


@dataclass(frozen=True)
class State:
    """What SLURM says of a job, or of a task of an array: its state and why it is so."""

    name: str
    reason: str = ""


def states(jobs: Sequence[str]) -> dict[str, State]:
    """Job or array task (`7_0`) → its state.

    From squeue for jobs in the queue, from sacct for others where the cluster keeps accounts. Raises UserError without
    SLURM.
    """
    found: dict[str, State] = {}
    if not jobs:
        return found
    history = _lines(["sacct", "-n", "-P", "-X", "-j", ",".join(jobs), "-o", "JobID,State,Reason"], optional=True)
    queue = _lines(["squeue", "-h", "--me", "-r", "-t", "all", "-o", "%i|%T|%r"])
    for line in [*history, *queue]:
        job, name, reason = (*line.split("|"), "", "")[:3]
        if job.partition("_")[0] in jobs:
            found[job] = State(name.split()[0] if name else "", "" if reason in ("None", "") else reason)
    return found


def _lines(command: list[str], *, optional: bool = False) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        if optional:
            return []
        raise UserError(f"{command[0]} is not on PATH: ask from a machine of the cluster") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} did not answer within a minute; is the cluster's controller there?") from None
    if done.returncode and not optional:
        raise UserError(f"{command[0]}: {done.stderr.strip()}")
    return [line for line in done.stdout.splitlines() if line] if not done.returncode else []


def progress(run: Path) -> tuple[str, str, str]:
    """(attempts, last update, how the last attempt ended) of a run, from its folder."""
    step = str(RunDir(run).newest_step() or "")
    try:
        ended = requeue.read(run)
    except (OSError, ValueError, TypeError):  # the rest of the table is worth showing
        return "?", step, f"{requeue.FILE_NAME} cannot be read"
    return str(len(ended)), step, f"exit code {ended[-1].exit_code}" if ended else ""


def _runs(folders: Sequence[str]) -> list[Path]:
    found = [Path(folder) for folder in folders] or sorted(
        path.parent for path in Path("runs").glob(f"*/{ledger.FILE_NAME}")
    )
    if not found:
        raise UserError("runs/ has no run that was submitted; name run directories: livetrain jobs RUN …")
    return found


WIDTH = 200  # nothing is left out for a narrow terminal, which wraps the lines
COLUMNS = ("run", "job", "what", "state", "reason", "attempts", "update", "last end")


def rows(folders: Sequence[Path]) -> list[list[str]]:
    """COLUMNS of each job, and of each task of an array."""
    made = []
    submitted = {folder: ledger.read(folder) for folder in folders}
    known = states([job.job for jobs in submitted.values() for job in jobs])
    for jobs in submitted.values():
        for job in jobs:
            for number, run in enumerate(job.runs):
                name = f"{job.job}_{number}" if len(job.runs) > 1 else job.job
                state = known.get(name) or known.get(job.job) or State("gone")
                made.append([run, name, job.what, state.name, state.reason, *progress(Path(run))])
    return made


def jobs(arguments: Sequence[str]) -> int:
    """`livetrain jobs`. Returns the exit code."""
    print("\n".join(fitted(COLUMNS, rows(_runs(arguments)), WIDTH)))
    return 0


def cancel(arguments: Sequence[str]) -> int:
    """`livetrain cancel`. Returns the exit code."""
    if not arguments:
        raise UserError("name the runs to cancel: livetrain cancel RUN …")
    submitted: list[tuple[Path, list[Submitted]]] = [(Path(name), ledger.read(Path(name))) for name in arguments]
    for folder, found in submitted:
        known = states([job.job for job in found])
        wanted = sorted({job.partition("_")[0] for job, state in known.items() if state.name in QUEUED})
        if not wanted:
            print(f"{folder}: nothing of it is queued or running")
            continue
        for run in {str(folder), *(run for job in found for run in job.runs)}:
            ledger.cancel(Path(run))
        # The batch script hears it too: it passes the stop on, and a run saves. SLURM refuses signals to waiting jobs,
        # and any request about a job that is cancelled: in this order.
        _lines(["scancel", "--state=RUNNING", "--full", "--signal=TERM", *wanted])
        _lines(["scancel", "--state=PENDING", *wanted])
        print(f"{folder}: cancelled {', '.join(wanted)}; what runs saves first")
    return 0
