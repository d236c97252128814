"""The verdict on perturbed test clips: cropped, downscaled, recompressed, recoloured, blurred, shortened.

robustness.json: every figure at the frozen threshold, with its interval, and its difference to the clean split with the
interval of the difference and whether the data tell it from none. Differences are paired (livetrain.verdict.paired):
what makes a split hard cancels out. p-values are adjusted for all differences of the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from livetrain.verdict import intervals, metrics, paired
from livetrain.verdict.intervals import USUAL, Settings
from livetrain.verdict.paired import Difference
from livetrain.verdict.scores import Scores

FIGURES = ("apcer_max", "apcer_pooled", "bpcer", "hter")


def build(
    clean: Scores, perturbed: Mapping[str, tuple[str, Scores]], threshold: float, settings: Settings = USUAL
) -> dict[str, Any]:
    """`perturbed`: name → (what was done, scores of the same clips). JSON-able; rows in the order given."""
    found = [_differences(clean, scores, threshold, settings) for _, scores in perturbed.values()]
    decided = iter(paired.apart([item for part in found for item in part.values()], settings.confidence))
    rows = []
    for (name, (text, scores)), part in zip(perturbed.items(), found, strict=True):
        differences = dict.fromkeys(FIGURES, NO_DIFFERENCE) | {
            figure: _as_json(item, next(decided)) for figure, item in part.items()
        }
        rows.append(
            {
                "name": name,
                "text": text,
                **_figures(scores, threshold, settings),
                "difference": differences,
                "auc": metrics.summary(scores)["auc"],
            }
        )
    return {
        "format": 2,
        "threshold": threshold,
        "clean": _figures(clean, threshold, settings) | {"auc": metrics.summary(clean)["auc"]},
        "rows": rows,
    }


def read(path: Path, verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """robustness.json with `stale`: whether it is of another evaluation than `verdict`. None without one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
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


NO_DIFFERENCE: dict[str, Any] = dict.fromkeys(("value", "low", "high", "p_adjusted", "apart"))


def _differences(clean: Scores, other: Scores, threshold: float, settings: Settings) -> dict[str, Difference]:
    """Of the clips that both have a score of."""
    place = {key: index for index, key in enumerate(clean.key.tolist())}
    rows = np.array([place[key] for key in other.key.tolist()], dtype=np.int64)
    both = clean.scored[rows] & other.scored
    if not both.any():
        return {}
    pair = clean.select(rows[both]), other.select(both)
    return paired.of_differences(*pair, (threshold, threshold), FIGURES, settings)


def _as_json(item: Difference, decision: tuple[float, bool | None]) -> dict[str, Any]:
    p, apart = decision
    return {"value": item.difference, "low": item.low, "high": item.high, "p_adjusted": p, "apart": apart}


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
