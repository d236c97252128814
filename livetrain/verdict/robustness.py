"""What is left of a verdict when the same test clips come cropped, small, recompressed, recoloured, blurred, shortened.

robustness.json: every figure at the frozen threshold, with its interval, and its difference to the clean split with the
interval of the difference. Differences are paired: the same people and clips are drawn for both (bootstrap over people,
2.5 and 97.5 % of the draws), so what makes a split hard cancels out, and a small change can be told from none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.verdict import metrics
from livetrain.verdict.rates import rate
from livetrain.verdict.scores import Scores

FILE_NAME = "robustness.json"
NUM_DRAWS = 2000
CHUNK_CELLS = 4_000_000  # counts held at a time
FIGURES = ("apcer_max", "apcer_pooled", "bpcer", "hter")


def build(clean: Scores, perturbed: Mapping[str, tuple[str, Scores]], threshold: float) -> dict[str, Any]:
    """`perturbed`: name → (what was done, scores of the same clips). JSON-able; rows in the order given."""
    return {
        "format": 1,
        "threshold": threshold,
        "clean": _figures(clean, threshold) | {"auc": metrics.summary(clean)["auc"]},
        "rows": [
            {"name": name, "text": text, **_figures(scores, threshold), **_compared(clean, scores, threshold)}
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


def _figures(scores: Scores, threshold: float) -> dict[str, Any]:
    """Each of FIGURES as {rate, low, high}; interval None where there is no single binomial behind it (HTER)."""
    found = metrics.at_threshold(scores, threshold)
    accepted, attacks, live = scores.p_live >= threshold, scores.scored & ~scores.live, scores.scored & scores.live
    by_type = found["apcer"]
    worst = attacks & (scores.attack_type == max(by_type, key=lambda kind: by_type[kind])) if by_type else attacks
    parts = {"apcer_max": rate(accepted[worst], scores.group[worst])}
    parts["apcer_pooled"] = rate(accepted[attacks], scores.group[attacks])
    parts["bpcer"] = rate(~accepted[live], scores.group[live])
    figures: dict[str, Any] = {"num_failed": metrics.failures(scores)["num"]}
    for name in FIGURES:
        part = parts.get(name)
        figures[name] = {"rate": found[name], "low": part and part["low"], "high": part and part["high"]}
    return figures


def _compared(clean: Scores, other: Scores, threshold: float) -> dict[str, Any]:
    """`difference`: figure → {value, low, high} in rates, over the clips that both have a score of; `auc`."""
    place = {key: index for index, key in enumerate(clean.key.tolist())}
    rows = np.array([place[key] for key in other.key.tolist()], dtype=np.int64)
    both = clean.scored[rows] & other.scored
    a, b = clean.p_live[rows][both] >= threshold, other.p_live[both] >= threshold
    live, kinds, group = other.live[both], other.attack_type[both], other.group[both]
    before, after = _resampled(group, a, live, kinds), _resampled(group, b, live, kinds)
    difference = {}
    for name in FIGURES:
        change = after[name] - before[name]  # of the split itself first
        known = change[1:][np.isfinite(change[1:])]
        low, high = np.quantile(known, [0.025, 0.975]).tolist() if len(known) else (None, None)
        value = float(change[0]) if len(change) and np.isfinite(change[0]) else None
        difference[name] = {"value": value, "low": low, "high": high}
    return {"difference": difference, "auc": metrics.summary(other)["auc"]}


def _resampled(
    group: NDArray[Any], accepted: NDArray[np.bool_], live: NDArray[np.bool_], kinds: NDArray[Any]
) -> dict[str, NDArray[np.float64]]:
    """FIGURES of the split itself and then of NUM_DRAWS draws of people, each [1 + NUM_DRAWS]; NaN where a draw lacks a
    class. The draws depend on the people alone. A clip whose person is unknown is a person of its own; of one person
    alone there are no draws."""
    people = [name or f"\0{index}" for index, name in enumerate(group.tolist())]
    names, index = np.unique(np.array(people, dtype=str), return_inverse=True)

    def per_person(among: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(index[among], minlength=len(names)).astype(np.float64)

    sets = {"bpcer": (live, ~accepted), "apcer_pooled": (~live, accepted)}
    sets |= {f"apcer {kind}": (~live & (kinds == kind), accepted) for kind in sorted(set(kinds[~live].tolist()))}
    # One column for each numerator, one for each denominator: a draw is a row of counts times these.
    columns = np.stack([per_person(part) for among, flags in sets.values() for part in (among & flags, among)], axis=1)
    sums = np.concatenate([counts @ columns for counts in _draws(len(names))])
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = dict(zip(sets, (sums[:, 0::2] / sums[:, 1::2]).T, strict=True))
    by_type = [values for name, values in shares.items() if name.startswith("apcer ")]
    return {
        "apcer_max": np.fmax.reduce(by_type) if by_type else np.full(len(sums), np.nan),
        "apcer_pooled": shares["apcer_pooled"],
        "bpcer": shares["bpcer"],
        "hter": (shares["apcer_pooled"] + shares["bpcer"]) / 2,
    }


def _draws(num_people: int) -> Iterator[NDArray[np.float64]]:
    """How often each person is drawn, in chunks [r, num_people]: once each, then as many as there are, with
    replacement."""
    yield np.ones((1, num_people))
    random = np.random.Generator(np.random.Philox(0))
    left = NUM_DRAWS if num_people > 1 else 0
    while left:
        rows = min(left, max(1, CHUNK_CELLS // num_people))
        yield random.multinomial(num_people, np.full(num_people, 1 / num_people), size=rows).astype(np.float64)
        left -= rows


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
