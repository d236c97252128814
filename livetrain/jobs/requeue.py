"""Whether a job that ended is worth starting again.

slurm/train.sbatch asks, with the script's exit code:

    python -m livetrain.jobs.requeue EXIT_CODE CONFIG.yaml … key=value …

It writes a line to run_dir/attempts.jsonl, says what it decided and why, and exits with 0 for another attempt, 1 for
none. A stop on request is always worth it; a fault too, unless three in a row brought the run no update forward.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from livetrain.config import load_config, split_arguments
from livetrain.core.errors import EXIT_NON_FINITE, EXIT_STOPPED, EXIT_USER_ERROR, UserError
from livetrain.jobs import ledger
from livetrain.tracking.run_dir import RunDir

FILE_NAME = "attempts.jsonl"
MAX_WITHOUT_PROGRESS = 3
MAX_STOPS_WITHOUT_PROGRESS = 5  # preemptions may come close upon each other

# It would end the same way again.
HOPELESS = {EXIT_USER_ERROR: "invalid input", EXIT_NON_FINITE: "a loss that is NaN or Inf"}


@dataclass(frozen=True)
class Attempt:
    """How one attempt of a run ended: `step`, the newest checkpoint's number of updates then (0: none)."""

    exit_code: int
    step: int
    job: str
    time: float


def decide(attempts: Sequence[Attempt]) -> tuple[bool, str]:
    """(start again?, why), from all attempts so far, the last one last."""
    last = attempts[-1]
    if last.exit_code == 0:
        return False, "the run is finished"
    if last.exit_code in HOPELESS:
        return False, f"exit code {last.exit_code} means {HOPELESS[last.exit_code]}; another attempt would end so too"
    if last.exit_code == EXIT_STOPPED:
        last_ones = attempts[-MAX_STOPS_WITHOUT_PROGRESS:]
        if len(last_ones) == MAX_STOPS_WITHOUT_PROGRESS and len({(one.exit_code, one.step) for one in last_ones}) == 1:
            return False, (
                f"{MAX_STOPS_WITHOUT_PROGRESS} stops in a row at {last.step} updates: a job has less time than "
                "an update and a checkpoint take; give it more, or a shorter lead"
            )
        return True, f"the run was stopped on request after {last.step} updates"
    faults = [attempt for attempt in attempts if attempt.exit_code != EXIT_STOPPED]
    recent = faults[-MAX_WITHOUT_PROGRESS:]
    before = faults[-MAX_WITHOUT_PROGRESS - 1].step if len(faults) > MAX_WITHOUT_PROGRESS else 0
    if len(recent) == MAX_WITHOUT_PROGRESS and all(attempt.step <= before for attempt in recent):
        codes = ", ".join(str(attempt.exit_code) for attempt in recent)
        return False, f"{MAX_WITHOUT_PROGRESS} faults (exit codes {codes}) without a checkpoint beyond {before} updates"
    return (
        True,
        f"exit code {last.exit_code} may be a fault that passes; newest checkpoint: {last.step} updates",
    )


def read(run_dir: Path) -> list[Attempt]:
    """All attempts of a run so far. Raises OSError, ValueError, TypeError for a file that is not of this kind."""
    path = run_dir / FILE_NAME
    if not path.exists():
        return []
    return [Attempt(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def note(run_dir: Path, exit_code: int, now: float) -> list[Attempt]:
    """Append this end to run_dir/attempts.jsonl; returns all attempts so far. Raises UserError."""
    attempt = Attempt(exit_code, RunDir(run_dir).newest_step(), os.environ.get("SLURM_JOB_ID", ""), now)
    path = run_dir / FILE_NAME
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(attempt)) + "\n")
        return read(run_dir)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: {error}; a crash loop cannot be detected without it, so nothing starts again"
        ) from None


def main(arguments: list[str]) -> int:
    """The command line. Returns 0 when the job should start again, else 1."""
    try:
        config = load_config(*split_arguments(arguments[1:]), warn=lambda line: None)
        again, why = decide(note(Path(config.run_dir), int(arguments[0]), time.time()))
        if ledger.is_cancelled(Path(config.run_dir)):
            again, why = False, "it was cancelled"
    except UserError as error:
        again, why = False, str(error)
    print(f"attempts: {'starting again' if again else 'not starting again'}: {why}", flush=True)
    return 0 if again else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
