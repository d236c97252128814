"""Write RUN/report.html again, from what is in RUN.

    livetrain report RUN

Pictures come from the shards of the run, where they still are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from livetrain.errors import UserError


def report(arguments: list[str]) -> int:
    """`livetrain report`. Returns the exit code."""
    from livetrain.config import load_config
    from livetrain.data import Dataset
    from livetrain.engine.conclude import clip_pictures
    from livetrain.verdict import report as page

    run_dir = _one_run(arguments, "report")
    if not (run_dir / "verdict.json").exists():
        raise UserError(f"{run_dir} has no verdict.json; `livetrain evaluate {run_dir}` makes it")
    config = load_config([run_dir / "config.yaml"], [], warn=lambda line: None)
    pictures = None
    try:
        pictures = clip_pictures(Dataset.of(config.data))
    except UserError as error:  # the report is of scores, which are here
        print(f"warning: no pictures in the report: {error}", file=sys.stderr)
    print(page.write(run_dir, pictures=pictures, worst_clips=config.tracking.worst_clips))
    return 0


def saliency(arguments: list[str]) -> int:
    """`livetrain saliency`: the maps, and the report with them. Returns the exit code."""
    from livetrain.engine import saliency as maps

    return maps.main(arguments) or report(arguments[:1])


def sync_check(arguments: list[str]) -> int:
    """`livetrain sync-check`. Returns the exit code: 1 where something differs."""
    from livetrain.engine import sync_check as check

    found = check.compare(_one_run(arguments, "sync-check"))
    print(check.format_text(found))
    return 0 if found.same else 1


def _one_run(arguments: list[str], verb: str) -> Path:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise UserError(f"usage: livetrain {verb} RUN")
    return Path(arguments[0])
