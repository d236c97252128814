"""The same rates on parts of a split: where the errors are.

A slice is the clips that share a value of one attribute: an attack type, a device, a tertile of brightness. Slices are
sorted worst first, by the lower end of the interval of their worse rate: one error in two clips is weak evidence,
twenty in two hundred are strong evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.verdict import calibration, intervals
from livetrain.verdict.clip_metadata import Details
from livetrain.verdict.intervals import USUAL, Interval, Settings
from livetrain.verdict.scores import Scores

MAX_VALUES = 40  # of a worded attribute that are distinguished; the rest is one slice

# Attributes whose values are numbers, cut at the thirds of the split: name → (details' field, format).
NUMERIC: dict[str, tuple[str, Callable[[float], str]]] = {
    "brightness": ("brightness", lambda value: f"{value:.2f}"),
    "length": ("video_seconds", lambda value: f"{value:.1f} s"),
    "face height": ("face_height", lambda value: f"{100 * value:.0f} %"),
}


Slice = dict[str, Any]  # a row of `slices`


def slices(scores: Scores, details: Mapping[str, Details], threshold: float, settings: Settings = USUAL) -> list[Slice]:
    """The slices of a split's scored clips, worst first, as JSON-able dicts.

    Each has `attribute`, `value`, `num_clips`, `num_subjects` (None where unknown), and `apcer` and `bpcer` as
    {num, errors, rate, low, high} or None without such clips, and `temperature`: of the scores of that slice alone
    (livetrain.verdict.calibration; above 1: surer than they are right), None where a class is missing. It is reported,
    not used. An attribute with one value alone gives no slice.
    """
    found = []
    rows = np.flatnonzero(scores.scored)
    for attribute, values in _attributes(scores, details, rows).items():
        names = [name for name in dict.fromkeys(values.tolist()) if name]
        if len(names) < 2 and attribute != "attack type":
            continue
        for name in names:
            figures = _figures(scores, rows[values == name], threshold, settings)
            found.append({"attribute": attribute, "value": name} | figures)
    return sorted(found, key=badness, reverse=True)


def badness(item: Mapping[str, Any]) -> tuple[float, float]:
    """What slices are ordered by: (lower end of the interval, rate) of the worse of the two rates."""
    known = [(part["low"], part["rate"]) for part in (item["apcer"], item["bpcer"]) if part]
    return max(known, default=(-1.0, -1.0))


def table(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of slices, in their order."""
    parts = ("num", "errors", "rate", "low", "high")
    columns = [
        "attribute",
        "value",
        "clips",
        "people",
        *(f"{name}, {part}" for name in ("apcer", "bpcer") for part in parts),
        "temperature",
    ]
    rows = [
        [item["attribute"], item["value"], item["num_clips"], item["num_subjects"]]
        + [(item[name] or {}).get(part) for name in ("apcer", "bpcer") for part in parts]
        + [item["temperature"]]
        for item in found
    ]
    return columns, rows


def _figures(scores: Scores, rows: NDArray[np.int64], threshold: float, settings: Settings) -> dict[str, Any]:
    part = scores.select(rows)
    bounds = intervals.rates(part, threshold, settings)
    accepted = part.p_live >= threshold
    people = set(part.subject.tolist()) - {""}

    def share(errors: NDArray[np.bool_], interval: Interval | None) -> dict[str, Any] | None:
        if interval is None:
            return None
        ends = {end: interval[end] for end in ("low", "high")}
        return {"num": len(errors), "errors": int(errors.sum()), "rate": float(errors.mean()), **ends}

    return {
        "num_clips": len(rows),
        "num_subjects": len(people) or None,
        "apcer": share(accepted[~part.live], bounds["apcer_pooled"]),
        "bpcer": share(~accepted[part.live], bounds["bpcer"]),
        "temperature": calibration.fit_temperature(part.live, part.p_live) if 0 < part.live.sum() < len(part) else None,
    }


def _attributes(scores: Scores, details: Mapping[str, Details], rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Attribute → the value of each of `rows`, "" where it has none."""
    of = [details.get(key, Details()) for key in scores.key[rows].tolist()]
    live = scores.live[rows]
    found = {"attack type": np.where(live, "", scores.attack_type[rows])}
    for name in ("device", "session", "domain"):
        found[name] = _common(np.array([getattr(item, name) for item in of], dtype=object))
    sizes = [f"{item.width:g}x{item.height:g}" if item.width and item.height else "" for item in of]
    found["resolution"] = _common(np.array(sizes, dtype=object))
    for name, (field, form) in NUMERIC.items():
        numbers = np.array([np.nan if (v := getattr(item, field)) is None else v for item in of], dtype=np.float64)
        found[name] = _thirds(numbers, form)
    return found


def _common(values: NDArray[Any]) -> NDArray[Any]:
    """The most frequent MAX_VALUES values, the others as "other"."""
    names, counts = np.unique(values.astype(str), return_counts=True)
    kept = set(names[np.argsort(-counts, kind="stable")][:MAX_VALUES].tolist()) | {""}
    return np.array([value if value in kept else "other" for value in values.tolist()], dtype=object)


def _thirds(numbers: NDArray[np.float64], form: Callable[[float], str]) -> NDArray[Any]:
    """Numbers as the third of all known numbers that they are in; equal numbers are in the same."""
    out = np.full(len(numbers), "", dtype=object)
    known = np.isfinite(numbers)
    if not known.any():
        return out
    low, high = numbers[known].min(), numbers[known].max()
    edges = [
        low,
        *(edge for edge in np.unique(np.quantile(numbers[known], [1 / 3, 2 / 3])) if low < edge <= high),
        high,
    ]
    for index, (first, last) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        inside = known & (numbers >= first) & ((numbers < last) | (index == len(edges) - 2))
        out[inside] = f"{form(first)} to {form(last)}"
    return out
