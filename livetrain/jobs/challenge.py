"""From labelled videos to a submission file in one command.

    livetrain challenge --videos V --labels L --test T --out submission.csv [--work DIR] [CONFIG.yaml …] [key=value …]

Runs the steps that one would run by hand, prints the command of each, and stops at the first that fails:

    1  livetrain shards build     shards of V, with person-disjoint train, dev and test splits
    2  livetrain shards verify    checksums of all shards
    3  livetrain train            train, choose the threshold on dev, evaluate on test once, write the report
    4  livetrain predict          score the videos in T

Shards and run are in --work (default: the name of the submission file without its suffix). Every step can be continued:
the same command skips what is done and resumes what was stopped, and any step can be repeated by hand with the command
that is shown. The test split is taken from the labelled videos; the videos in T have no labels and choose nothing.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from livetrain.config import load_config, split_arguments
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.tracking.run_dir import RunDir


def parser() -> Parser:
    """The command line of `livetrain challenge`."""
    parser = Parser("challenge", __doc__)
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="labelled videos")
    parser.add_argument("--labels", type=Path, required=True, metavar="CSV", help="their label file")
    parser.add_argument("--test", type=Path, required=True, metavar="DIR", help="videos to score")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="the submission file")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where shards and run go")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code of the first step that fails, else 0."""
    options, rest = parser().parse_some(arguments)
    for folder in (options.videos, options.test):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of videos")
    if not options.labels.is_file():
        raise UserError(f"{options.labels}: no such label file")
    work = options.work or options.out.with_suffix("")
    if work == options.out:
        raise UserError(f"--out {options.out}: name a file with a suffix, such as submission.csv")
    given = [item for item in rest if item.startswith(("data.shards=", "run_dir="))]
    if given:
        raise UserError(f"{given[0]}: livetrain challenge sets it; choose the folder with --work")
    shards, run = work / "shards", RunDir(work / "run")
    own = [f"data.shards={shards}", f"run_dir={run.path}"]
    if not any(item.startswith("name=") for item in rest):
        own.append(f"name={work.name}")
    files, words = split_arguments([*rest, *own])
    config = load_config(files, words)  # before anything takes time
    commands = [
        ["shards", "build", "--videos", options.videos, "--labels", options.labels, "--out", shards],
        ["shards", "verify", shards],
        ["train", *rest, *own],
        ["predict", "--checkpoint", run.path, "--videos", options.test, "--out", options.out],
    ]
    for number, command in enumerate(commands, start=1):
        text = shlex.join(["livetrain", *map(str, command)])
        print(f"[{number}/{len(commands)}] {text}", flush=True)
        if command[0] == "train" and run.verdict.exists():
            from livetrain.data import Dataset  # torch: seconds that a first run need not wait
            from livetrain.training.resume import refuse_another

            refuse_another(config, Dataset.of(config.data))
            print(f"{run.path} is trained and evaluated already", flush=True)
            continue
        if code := subprocess.run([sys.executable, "-m", "livetrain", *map(str, command)]).returncode:
            print(f"step {number} ended with exit code {code}; repeat it, or the whole command", file=sys.stderr)
            return code
    print(f"submission  {options.out}")
    print(f"report      {run.report}")
    print(f"next        livetrain package {run.path} --out DIR")
    return 0
