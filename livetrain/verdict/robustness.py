"""What is left of a verdict when the same test clips come cropped, small, recompressed, recoloured, blurred, shortened.

robustness.json: every figure at the frozen threshold, with its interval, and its difference to the clean split with the
interval of the difference. Differences are paired (intervals.of_differences): what makes a split hard cancels out, and
a small change can be told from none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from livetrain.verdict import intervals, metrics
from livetrain.verdict.intervals import USUAL, Settings
from livetrain.verdict.scores import Scores

FILE_NAME = "robustness.json"
FIGURES = ("apcer_max", "apcer_pooled", "bpcer", "hter")


def build(
    clean: Scores, perturbed: Mapping[str, tuple[str, Scores]], threshold: float, settings: Settings = USUAL
) -> dict[str, Any]:
    """`perturbed`: name → (what was done, scores of the same clips). JSON-able; rows in the order given."""
    return {
        "format": 1,
        "threshold": threshold,
        "clean": _figures(clean, threshold, settings) | {"auc": metrics.summary(clean)["auc"]},
        "rows": [
            {
                "name": name,
                "text": text,
                **_figures(scores, threshold, settings),
                **_compared(clean, scores, threshold, settings),
            }
            for name, (text, scores) in perturbed.items()
        ],
    }


def read(run_dir: Path, verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """robustness.json of the run with `stale`: whether it is of another evaluation than `verdict`. None without one."""
    try:
        found = json.loads((run_dir / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = all(found["clean"][name]["rate"] == verdict["test"][name] for name in FIGURES)
    return found | {"stale": not same or found["threshold"] != verdict["threshold"]}


def _figures(scores: Scores, threshold: float, settings: Settings) -> dict[str, Any]:
    """Each of FIGURES as {rate, low, high}."""
    found = metrics.at_threshold(scores, threshold)
    bounds = intervals.of_scores(scores, threshold, settings, ranking=False)
    figures: dict[str, Any] = {"num_failed": metrics.failures(scores)["num"]}
    for name in FIGURES:
        interval = bounds[name] or {"low": None, "high": None}
        figures[name] = {"rate": found[name], "low": interval["low"], "high": interval["high"]}
    return figures


def _compared(clean: Scores, other: Scores, threshold: float, settings: Settings) -> dict[str, Any]:
    """`difference`: figure → {value, low, high} in rates, over the clips that both have a score of; `auc`."""
    place = {key: index for index, key in enumerate(clean.key.tolist())}
    rows = np.array([place[key] for key in other.key.tolist()], dtype=np.int64)
    both = clean.scored[rows] & other.scored
    found = {}
    if both.any():
        pair = clean.select(rows[both]), other.select(both)
        found = intervals.of_differences(*pair, (threshold, threshold), FIGURES, settings)
    nothing = {"difference": None, "low": None, "high": None}
    parts = {name: found.get(name, nothing) for name in FIGURES}
    difference = {
        name: {"value": part["difference"], "low": part["low"], "high": part["high"]} for name, part in parts.items()
    }
    return {"difference": difference, "auc": metrics.summary(other)["auc"]}


def table(found: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the whole table, for W&B."""
    columns = ["perturbation", "auc", *FIGURES, *(f"{name}, difference" for name in FIGURES), "failed"]
    rows: list[list[Any]] = [
        ["none", found["clean"]["auc"], *(found["clean"][name]["rate"] for name in FIGURES), *[0.0] * len(FIGURES)]
        + [found["clean"]["num_failed"]]
    ]
    for row in found["rows"]:
        changes = [row["difference"][name]["value"] for name in FIGURES]
        rows.append([row["text"], row["auc"], *(row[name]["rate"] for name in FIGURES), *changes, row["num_failed"]])
    return columns, rows
