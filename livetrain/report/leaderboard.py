"""The leaderboard: one row for each run of a folder.

What differs in the configurations, what the runs cost, and their figures with intervals.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from livetrain.config.load import read_mapping
from livetrain.core.errors import UserError
from livetrain.tracking.run_dir import RunDir
from livetrain.verdict import scores
from livetrain.verdict.threshold import digest

FIGURES = ("apcer_max", "bpcer", "hter", "eer", "auc")
SORTS = {"dev": "dev_eer", "test": "hter"}
SHORT = {"dev_eer": "dev EER", "hter": "test HTER", "apcer_max": "test APCER", "bpcer": "BPCER", "people": "people"}

NOT_COMPARED = ("name", "run_dir", "resume", "tracking.", "data.cache_dir")
Row = dict[str, Any]


def rows(folder: Path, sort: str = "dev") -> list[Row]:
    """A row for each run directory in `folder` or one level below.

    Runs whose dev and test splits hold the same videos are a group, numbered in the column `group`; figures of two
    groups do not compare. Within a group the lowest dev EER comes first or, with sort="test", the lowest test HTER.
    Raises UserError without runs.
    """
    found = sorted({path.parent for pattern in ("*/verdict.json", "*/*/verdict.json") for path in folder.glob(pattern)})
    if not found:
        raise UserError(f"{folder} holds no evaluated runs (no */verdict.json); name run directories, or their folder")
    settings = [_settings(RunDir(run).config) for run in found]
    keys = dict.fromkeys(key for one in settings for key in one)
    differing = [k for k in keys if not k.startswith(NOT_COMPARED) and len({str(one.get(k)) for one in settings}) > 1]
    lists = [tuple(_videos(RunDir(run).scores(split)) for split in ("dev", "test")) for run in found]
    groups = {one: number for number, one in enumerate(dict.fromkeys(lists), start=1)}
    table = []
    for run, one, videos in zip(found, settings, lists, strict=True):
        options = {key: one.get(key) for key in differing}
        group = {"group": groups[videos]} if len(groups) > 1 else {}
        table.append({"run": str(run.relative_to(folder)), **group, **figures(run), **cost(run), **options})
    name = SORTS[sort]
    return sorted(table, key=lambda row: (row.get("group", 1), row[name] is None, row[name] or 0.0, row["run"]))


def _videos(path: Path) -> str:
    """The digest of the videos that a file of scores is of; "" without the file."""
    return digest(scores.read(path)) if path.exists() else ""


def figures(run: Path) -> Row:
    """The dev EER of a run, and its test figures, each with `_low` and `_high`, and how many people they are over."""
    verdict = RunDir(run).read_verdict()
    dev, test = verdict["dev"], verdict["test"]
    found: Row = {"dev_eer": dev.get("eer"), "people": test.get("num_subjects"), "clips": test.get("num_clips")}
    for name in FIGURES:
        bounds = (test.get("intervals") or {}).get(name) or {}
        found |= {name: test.get(name), f"{name}_low": bounds.get("low"), f"{name}_high": bounds.get("high")}
    return found


def cost(run: Path) -> Row:
    """What a run took: updates, hours, device hours, size of the weights in MB.

    Hours of training are from the seconds an update took. None where nothing is known.
    """
    lines = _lines(RunDir(run).metrics)
    hours, before = 0.0, 0
    for line in lines:
        hours += line.get("step_seconds", 0.0) * (line["step"] - before) / 3600
        before = line["step"]
    environment = _json(RunDir(run).environment)
    processes = environment.get("num_processes")
    weights = max(run.glob("checkpoints/best-*/model.safetensors"), default=None)
    return {
        "updates": before or None,
        "train_hours": hours if lines else None,
        "device_hours": hours * processes if lines and processes else None,
        "device": environment.get("device"),
        "weights_mb": weights.stat().st_size / 1e6 if weights else None,
    }


def to_csv(table: list[Row]) -> str:
    """The sheet as CSV; empty fields where nothing is known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in table)
    return text.getvalue()


def cells(table: list[Row]) -> tuple[list[str], list[list[str]]]:
    """(header, lines) for reading.

    Figures in per cent with their interval in one cell; columns without values are dropped.
    """
    bounds = {f"{name}_{end}" for name in FIGURES for end in ("low", "high")}
    columns = [c for c in table[0] if c not in bounds and any(row[c] is not None for row in table)]
    return columns, [[_cell(row, column) for column in columns] for row in table]


def summary(table: list[Row]) -> tuple[list[str], list[list[str]]]:
    """(header, lines) of the figures alone, without intervals: what a terminal holds."""
    columns = ["run", *(["group"] if "group" in table[0] else []), *SHORT]
    return [SHORT.get(column, column) for column in columns], [
        [_cell({**row, **{f"{name}_low": None for name in FIGURES}}, column) for column in columns] for row in table
    ]


def _cell(row: Row, column: str) -> str:
    value = row[column]
    if value is None:
        return "-"
    if column == "dev_eer":
        return f"{100 * value:.2f} %"
    if column in FIGURES:
        scale, digits = (1, 4) if column == "auc" else (100, 2)
        low, high = row[f"{column}_low"], row[f"{column}_high"]
        interval = "" if low is None else f" [{low * scale:.{digits}f} - {high * scale:.{digits}f}]"
        return f"{value * scale:.{digits}f}{'' if scale == 1 else ' %'}{interval}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _settings(path: Path) -> Row:
    """config.yaml as `section.key` → value; {} when there is none."""
    if not path.exists():
        return {}
    found: Row = {}
    for name, value in read_mapping(path).items():
        found |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _lines(path: Path) -> list[Row]:
    from livetrain.tracking.metrics_log import read_metrics

    return [line for line in read_metrics(path) if line.get("kind") == "train"]


def _json(path: Path) -> Row:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
