"""Job arrays: many runs by one submission, each with some `key=value` of its own."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from livetrain.config import Config
from livetrain.core.errors import UserError


@dataclass(frozen=True)
class Array:
    """The runs of a job array.

    The `key=value` that each adds to the configuration, its folder in run_dir, and what joins them when they have
    ended: arguments of livetrain, and on what condition.
    """

    lines: list[str]
    folders: list[str]
    joined_by: list[str]
    condition: str


def make(config: Config, wanted: str, *, folds: bool, submitted: Path) -> Array | None:
    """The array that --array (`wanted`) or --folds asks for; None where neither does.

    submitted: the configuration that its jobs read. Raises UserError.
    """
    run_dir = config.run_dir
    if folds:
        count = num_folds(config)
        names = [f"fold-{fold}" for fold in range(count)]
        lines = [f"data.fold={fold}/{count} name={config.name}-{name}" for fold, name in enumerate(names)]
        return Array(lines, names, ["cv", str(submitted)], "afterok")
    if not wanted:
        return None
    is_keys = "=" in wanted and not Path(wanted).exists()
    lines = combinations(wanted) if is_keys else lines_of(Path(wanted))
    return Array(lines, [f"task-{number}" for number in range(len(lines))], ["leaderboard", run_dir], "afterany")


def combinations(text: str) -> list[str]:
    """`seed=0..2 model.pool=mean,max` → a line of `key=value` for each combination, the last key changing first.

    A range may stand within a value (data.fold=0..4/5); a comma or a blank within brackets does not part. Quoted as in
    a shell. Raises UserError.
    """
    choices = []
    for item in re.split(r"\s+(?![^\[]*\])", text.strip()):
        key, equals, values = item.partition("=")
        if not (key and equals and values):
            raise UserError(f"--array {text!r}: {item!r} is not key=value,value or key=first..last")
        found = [value for part in re.split(r",(?![^\[]*\])", values) for value in _range(part)]
        choices.append([shlex.quote(f"{key}={value}") for value in found])
    return [" ".join(line) for line in itertools.product(*choices)]


def _range(value: str) -> list[str]:
    """`a2..4b` → a2b, a3b, a4b; what holds no range, as it is."""
    match = re.fullmatch(r"(.*?)(\d+)\.\.(\d+)(.*)", value)
    if not match:
        return [value]
    before, first, last, after = match.groups()
    if int(last) < int(first):
        raise UserError(f"--array: {value!r} ends before it begins")
    return [f"{before}{number}{after}" for number in range(int(first), int(last) + 1)]


def lines_of(path: Path) -> list[str]:
    """The lines of an array file, each some `key=value`. Raises UserError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--array {path}: {error.strerror or error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            items = shlex.split(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        if not items or any("=" not in item for item in items):
            raise UserError(
                f"{path}, line {number}: must hold `key=value` for one run, blanks between; quote values with blanks"
            )
    if not lines:
        raise UserError(f"{path} is empty; it holds a line of `key=value` for each run")
    return lines


def num_folds(config: Config) -> int:
    """Folds of the shards, which must be here. Raises UserError without folds."""
    manifest = Path(config.data.shards) / "dataset.json"
    try:
        splits = json.loads(manifest.read_text(encoding="utf-8"))["splits"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{manifest}: {error}; --folds needs shards in a local folder") from None
    count = sum(name.startswith("fold") for name in splits)
    if count < 3:
        raise UserError(f"{config.data.shards} has the splits {', '.join(splits)}: build it with --folds K")
    return count


def check_size(count: int) -> None:
    """Raises UserError where the cluster takes no array of so many tasks. Nothing is known without its controller."""
    try:
        done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    if found and count >= int(found[1]):
        raise UserError(
            f"an array of {count} runs is more than this cluster takes (MaxArraySize={found[1]}); submit it in parts"
        )
