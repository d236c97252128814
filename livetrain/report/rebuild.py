"""Write RUN/report.html again, from what is in RUN.

    livetrain report RUN

Pictures come from the shards of the run, where they still are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.tracking.run_dir import RunDir


def parser() -> Parser:
    """The command line of `livetrain report`."""
    parser = Parser("report", __doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    return parser


def main(arguments: list[str]) -> int:
    """`livetrain report`. Returns the exit code."""
    print(rebuild(parser().parse(arguments).run))
    return 0


def rebuild(run_dir: Path) -> Path:
    """Write the report of an evaluated run again. Returns its path. Raises UserError without a verdict."""
    from livetrain.data import Dataset
    from livetrain.data.clip_pictures import clip_pictures
    from livetrain.report import page

    run = RunDir(run_dir)
    if not run.verdict.exists():
        raise UserError(f"{run_dir} has no verdict.json; `livetrain evaluate {run_dir}` makes it")
    config = run.load_config()
    pictures = None
    try:
        pictures = clip_pictures(Dataset.of(config.data))
    except UserError as error:  # the report is of scores, which are here
        print(f"warning: no pictures in the report: {error}", file=sys.stderr)
    return page.write(run_dir, pictures=pictures, worst_clips=config.tracking.worst_clips)
