"""Shortcuts: how well a cue that has nothing to do with liveness tells live clips from attacks, all by itself.

Each cue gets a model that knows nothing else: its values in eight bins of equally many clips, and a logistic regression
over the bins, trained on four fifths of the people and asked about the others. The AUC over all clips, each judged by
the model that has not seen its person, has a 95 % interval over people (Bayesian bootstrap, D. Rubin 1981). The
verdict's intervals reckon with one more person whom the model fails: a promise must hold for the worst. Here that
would hide a shortcut, so these do not. A cue is flagged when the low end is above FLAGGED: then a network can learn it
instead of faces, and a test split of the same data will not show that it did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from livetrain.verdict import bootstrap, metrics
from livetrain.verdict.scores import Scores
from shards.audit import picture_cues
from shards.audit.clips import Clips
from shards.audit.look_table import LookTable

FLAGGED = 0.6
GAIN = 0.01  # of AUC, that a cue adds to stronger ones
FOLDS = 5
BINS = 8
MAX_CLIPS = 20_000  # drawn evenly from all, where there are more
DRAWS = 2000
TAIL = 0.025
MIN_KNOWN = 0.5  # share of clips for which a cue must be known

MEANING = {
    "file size": "bytes stored for the clip",
    "bit rate": "bits a pixel and frame",
    "codec": "codec, profile of pixels",
    "resolution": "width and height, upright",
    "length": "number of frames",
    "frame rate": "frames a second",
    "time stamps": "date or time in the file's name",
    "brightness": "mean level within the borders",
    "contrast": "deviation of the levels, relative to their mean",
    "motion": "change from frame to frame, relative to the contrast",
    "borders": "plain edges of the picture",
    "background": "colour, light and detail around the face",
    "sharpness": "fine detail, relative to the contrast",
    "blocks": "steps at the borders of 8 x 8 blocks (JPEG quality)",
}


@dataclass(frozen=True)
class Probe:
    """What a cue alone is worth. auc, low, high: None with the reason where it cannot be measured.

    num_people: of the class that has fewer; unit: what they are. goes_with: a stronger cue beside which this one adds
    nothing: what makes one makes the other.
    """

    cue: str
    auc: float | None
    low: float | None
    high: float | None
    num_people: int = 0
    unit: str = ""
    reason: str = ""
    goes_with: str = ""

    @property
    def separates(self) -> bool:
        """Whether it separates the classes."""
        return self.low is not None and self.low > FLAGGED

    @property
    def flagged(self) -> bool:
        """Whether it separates the classes and does not merely go with a stronger cue."""
        return self.separates and not self.goes_with


def cues(clips: Clips, looks: LookTable) -> dict[str, NDArray[np.float64]]:
    """The cues of MEANING, float64 [n, k] each; NaN where a cue is not known."""
    numbers = clips.numbers
    turned = np.isin(numbers["rotation"], (90, 270))
    width = np.where(turned, numbers["height"], numbers["width"])
    height = np.where(turned, numbers["width"], numbers["height"])
    pixels = numbers["num_frames"] * width * height
    kinds = np.array([f"{a} {b}" for a, b in zip(clips.words["codec"], clips.words["pixel_format"], strict=True)])
    found = {
        "file size": numbers["size"],
        "bit rate": 8 * numbers["size"] / np.maximum(pixels, 1),
        "codec": np.stack([kinds == kind for kind in sorted(set(kinds))], axis=1).astype(np.float64),
        "resolution": np.stack([width, height], axis=1),
        "length": numbers["num_frames"],
        "frame rate": np.round(numbers["fps"], 2),
        "time stamps": np.array([time_stamp(video) for video in clips.words["video"]]),
    }
    found |= {name: looks.numbers(f"cue_{name}", width) for name, width in picture_cues.NUMBERS.items()}
    return {name: values.reshape(len(clips), -1) for name, values in found.items()}


_DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)(?:[-_. T]?([0-2]\d)[-_.:]?([0-5]\d)[-_.:]?([0-5]\d))?"
)
_EPOCH = re.compile(r"(?<!\d)(1\d{9})(\d{3})?(?!\d)")


def time_stamp(name: str) -> float:
    """Seconds since 1970 of the date in a file's name (2021-05-31, 20210531_120000, 1622462400), or NaN."""
    for match in _DATE.finditer(name):
        values = [int(value) for value in match.groups() if value]
        try:
            return datetime(*values, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]
        except ValueError:
            continue  # such as 20219999, which is no date
    epoch = _EPOCH.search(name)
    return float(epoch.group(1)) if epoch else float("nan")


def probe_all(clips: Clips, values: Mapping[str, NDArray[np.float64]], seed: int = 0) -> list[Probe]:
    """A probe of each cue, the one that tells the classes apart best first."""
    rows = np.flatnonzero(clips.labelled)
    if len(rows) > MAX_CLIPS:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_CLIPS])
    live, people = clips.live[rows], clips.people[rows]
    known = {name: numbers[rows] for name, numbers in values.items()}
    found = [_probe(name, numbers, live, people, seed) for name, numbers in known.items()]
    found.sort(key=lambda probe: -(probe.low if probe.low is not None else -1.0))
    return _led(found, known, live, people, seed)


def _led(
    found: list[Probe],
    values: Mapping[str, NDArray[np.float64]],
    live: NDArray[np.bool_],
    people: NDArray[np.object_],
    seed: int,
) -> list[Probe]:
    """Cues in order of strength; those that add less than GAIN to the AUC of stronger ones go with the strongest."""
    units, best = _units(people), 0.0
    leaders: list[str] = []
    judged = []
    for probe in found:
        if probe.separates:
            columns = np.concatenate([np.nan_to_num(values[name]) for name in (*leaders, probe.cue)], axis=1)
            auc = float(roc_auc_score(live, out_of_fold(columns, live, units, seed)))
            if leaders and auc < best + GAIN:
                probe = replace(probe, goes_with=leaders[0])
            else:
                leaders.append(probe.cue)
                best = auc
        judged.append(probe)
    return judged


def _units(people: NDArray[np.object_]) -> NDArray[np.str_]:
    """Who a clip is of; a clip of an unknown person stands for itself."""
    return np.array([str(who) or f"\0{row}" for row, who in enumerate(people)])


def _probe(
    name: str, values: NDArray[np.float64], live: NDArray[np.bool_], people: NDArray[np.object_], seed: int
) -> Probe:
    known = ~np.isnan(values).any(axis=1)
    if known.mean() < MIN_KNOWN:
        return Probe(name, None, None, None, reason=f"known for {100 * known.mean():.0f} % of the clips")
    values, live, people = values[known], live[known], people[known]
    if (values == values[:1]).all():
        return Probe(name, None, None, None, reason="the same for all clips")
    units = _units(people)
    if min(len(set(units[live])), len(set(units[~live]))) < 2:
        return Probe(name, None, None, None, reason="fewer than two people of a class")
    judged = out_of_fold(values, live, units, seed)
    scores = Scores.from_rows(
        {
            "video": "", "key": str(row), "p_live": float(score), "label": float(is_live), "subject": str(who),
            "attack_type": "live" if is_live else "attack", "num_frames": 1, "seconds": 0.0, "status": "ok",
        }
        for row, (score, is_live, who) in enumerate(zip(judged, live, people, strict=True))
    )  # fmt: skip
    people_of = bootstrap.units(people)
    ranked = bootstrap.Ranking(scores, people_of)
    draws = [
        ranked.seen(weights.people, operating=False)["auc"]
        for weights in bootstrap.draws(people_of.num, DRAWS, seed, shared=True, width=len(scores))
    ]
    low, high = np.nanquantile(np.concatenate(draws), [TAIL, 1 - TAIL])
    auc = float(metrics.ranking(scores)["auc"])
    num = min(len(set(units[live])), len(set(units[~live])))
    return Probe(name, auc, min(float(low), auc), max(float(high), auc), num, people_of.name)


def out_of_fold(
    values: NDArray[np.float64], live: NDArray[np.bool_], units: NDArray[np.str_], seed: int
) -> NDArray[np.float64]:
    """P(live) of each clip by a model of these values that has seen no clip of its person: float64 [n]."""
    judged = np.full(len(live), live.mean())
    folds = min(FOLDS, len(set(units[live])), len(set(units[~live])))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(values, live, units):
        if live[train].all() or not live[train].any():
            continue
        columns = _binned(values[train]), _binned(values[train], values[test])
        weights = _per_person(units[train])
        model = LogisticRegression(C=1.0, max_iter=500).fit(columns[0], live[train], sample_weight=weights)
        judged[test] = model.predict_proba(columns[1])[:, 1]
    return judged


def _per_person(units: NDArray[np.str_]) -> NDArray[np.float64]:
    """Weights that give every person as much as another, 1 on average."""
    _, codes, counts = np.unique(units, return_inverse=True, return_counts=True)
    weights = 1 / counts[codes]
    return np.asarray(weights * len(weights) / weights.sum())


def _binned(known: NDArray[np.float64], values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Each column in BINS bins of equally many of `known`, as one column a bin."""
    values = known if values is None else values
    parts = []
    for column in range(known.shape[1]):
        edges = np.unique(np.quantile(known[:, column], np.arange(1, BINS) / BINS))
        parts.append(np.searchsorted(edges, values[:, column], side="right")[:, None] == np.arange(len(edges) + 1))
    return np.concatenate(parts, axis=1).astype(np.float64)
