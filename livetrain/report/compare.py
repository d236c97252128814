"""Compare runs on the same test videos, or list all runs of a folder.

    livetrain compare RUN RUN … [--out DIR]
    livetrain leaderboard FOLDER [--out DIR] [--sort dev|test] [--wandb PROJECT]

Runs: each is compared with the first: differences with intervals over people, whether the data can tell them apart
(sign flips over people), how many more people it would take, and the videos they decide differently about, with
pictures: comparison.html and comparison.json in DIR (default: the first run's folder).

A folder of runs: what differs in their configurations, their cost, and their figures with intervals, ranked by dev EER:
leaderboard.csv and leaderboard.html in DIR (default: the folder), and with --wandb a table in that W&B project. Runs
whose splits hold other videos are groups of their own. --sort test ranks by test HTER: a run that is chosen by it looks
better than it is.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import write_json, write_text
from livetrain.core.tables import fitted
from livetrain.tracking.run_dir import RunDir

MAX_CLIPS = 24


def main(arguments: Sequence[str]) -> int:
    """`livetrain compare`. Returns the exit code."""
    options = compare_parser().parse(arguments)
    runs = options.folders
    if len(runs) < 2:
        raise UserError(f"livetrain compare needs two runs; for all runs of a folder: livetrain leaderboard {runs[0]}")
    if options.wandb:
        raise UserError("--wandb takes the table of a folder of runs: livetrain leaderboard FOLDER --wandb PROJECT")
    print(compare_runs(runs, options.out or runs[0]))
    return 0


def leaderboard(arguments: Sequence[str]) -> int:
    """`livetrain leaderboard`. Returns the exit code."""
    options = leaderboard_parser().parse(arguments)
    if len(options.folders) != 1:
        raise UserError("livetrain leaderboard takes one folder of runs; to compare some: livetrain compare RUN RUN …")
    print(sheet_of(options.folders[0], options.out or options.folders[0], options.wandb, options.sort))
    return 0


def compare_parser() -> Parser:
    """The command line of `livetrain compare`."""
    parser = Parser("compare", __doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the page goes (default: the first run)")
    parser.add_argument("--wandb", default="", metavar="PROJECT", help=argparse.SUPPRESS)
    return parser


def leaderboard_parser() -> Parser:
    """The command line of `livetrain leaderboard`."""
    parser = Parser("leaderboard", __doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the tables go (default: the folder)")
    parser.add_argument("--wandb", default="", metavar="PROJECT", help="also as a W&B table")
    parser.add_argument("--sort", choices=("dev", "test"), default="dev")
    return parser


def compare_runs(runs: Sequence[Path], out: Path) -> str:
    """Write comparison.json and comparison.html into `out`. Returns what to print."""
    from livetrain.report import leaderboard
    from livetrain.verdict import comparison

    judged = [_judged(run) for run in runs]
    pairs = comparison.pairs(judged[0], judged[1:])
    write_json(out / "comparison.json", {"format": 2, "pairs": pairs})
    table = [{"run": str(run), **leaderboard.figures(run)} for run in runs]
    shown = [_with_pictures(pair, runs[0]) for pair in pairs]
    page = out / "comparison.html"
    _write_page(page, "Comparison", leaderboard.cells(table), shown)
    lines = [row["sentence"] for pair in pairs for row in pair["differences"]]
    lines += [f"{len(pair['discordant'])} videos decided differently by {pair['other']}" for pair in pairs]
    return "\n".join([*lines, str(page)])


RANKED = {
    "dev": "Ranked by dev EER.",
    "test": "Sorted by test HTER: the test split was looked at, and the first run looks better than it is.",
}


def sheet_of(folder: Path, out: Path, project: str = "", sort: str = "dev") -> str:
    """Write leaderboard.csv and leaderboard.html of the runs in `folder` into `out`. Returns what to print."""
    from livetrain.report import leaderboard

    table = leaderboard.rows(folder, sort)
    remarks = [RANKED[sort]]
    if "group" in table[0]:
        remarks.append("Groups have other dev or test videos, and do not compare.")
    write_text(out / "leaderboard.csv", leaderboard.to_csv(table))
    title = f"Runs in {folder.resolve().name}"
    _write_page(out / "leaderboard.html", title, leaderboard.cells(table), [], " ".join(remarks))
    if project:
        _to_wandb(table, project, out)
    return "\n".join([*fitted(*leaderboard.summary(table)), *remarks, str(out / "leaderboard.html")])


def _judged(run: Path) -> Any:
    from livetrain.verdict import scores
    from livetrain.verdict.comparison import Judged

    threshold = float(RunDir(run).read_verdict()["threshold"])
    return Judged(str(run), scores.read(RunDir(run).scores("test")), threshold)


def _with_pictures(pair: dict[str, Any], run: Path) -> dict[str, Any]:
    """The discordant clips that are shown with a frame of each, where the run's shards are there."""
    try:
        config = RunDir(run).load_config()
        from livetrain.data import Dataset  # torch, DALI: seconds that a comparison without shards need not wait
        from livetrain.data.clip_pictures import clip_pictures

        pictures = clip_pictures(Dataset.of(config.data))
    except UserError:
        return pair
    clips, counts = [], {"one": 0, "other": 0}
    for clip in pair["discordant"]:
        counts[clip["right"]] += 1
        frames = pictures(clip["key"], ()) if counts[clip["right"]] <= MAX_CLIPS else []
        clips.append(clip | {"picture": base64.b64encode(frames[0]).decode() if frames else None})
    return pair | {"discordant": clips}


def _write_page(
    path: Path, title: str, table: tuple[list[str], list[list[str]]], pairs: list[dict[str, Any]], remarks: str = ""
) -> None:
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("livetrain.report", "."), autoescape=True, trim_blocks=True)
    template = environment.get_template("compare.html.j2")
    columns, lines = table
    write_text(
        path,
        template.render(title=title, columns=columns, lines=lines, pairs=pairs, max_clips=MAX_CLIPS, remarks=remarks),
    )


def _to_wandb(table: list[dict[str, Any]], project: str, out: Path) -> None:
    import wandb

    from livetrain.tracking.wandb_run import wandb_mode

    mode: Any = wandb_mode("auto")
    with wandb.init(project=project, job_type="leaderboard", mode=mode, dir=str(out)) as run:
        columns: list[str | int] = list(table[0])
        run.log({"leaderboard": wandb.Table(columns=columns, data=[list(row.values()) for row in table])})
