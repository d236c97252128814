"""The targets of training: each clip's label, its kind (live or one of loss.attack_types), and its domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.data import recapture
from livetrain.data.clip_plan import PADDING, ClipPlan
from livetrain.data.dataset import Dataset


class Labelled(Protocol):
    """What has labels: see livetrain.data.batch.Clips."""

    def column(self, name: str) -> NDArray[Any]: ...
    def text(self, name: str, row: int) -> str: ...


LIVE = "live"  # as the index has it
UNNAMED = "attack"  # an attack whose type the label file does not give
CHUNK = 100_000  # clips whose random numbers are made at once
LIVE_THRESHOLD = 0.5  # labels from here on are live


def check(dataset: Dataset, config: Config) -> None:
    """Raises UserError for a training split of one class, an attack type or a domain that no clip of it has."""
    rows = dataset.rows(config.data.train_split)
    live = dataset.column("label")[rows] >= LIVE_THRESHOLD
    if live.all() and not recapture.is_active(config.augment) or not live.any():
        only, other = ("live clips", "attacks") if live.all() else ("attacks", "live clips")
        advice = "; augment.recapture makes some of live clips" if live.all() else ""
        raise UserError(f"split {config.data.train_split!r} has {only} alone, and no {other} to learn from{advice}")
    if config.domains.names:
        codes, words = dataset.codes("domain")
        there = words[np.bincount(codes[rows], minlength=len(words)) > 0]
        if absent := sorted(set(config.domains.names) - set(there)):
            raise UserError(
                f"domains.names: no clip of split {config.data.train_split!r} is of the domain {absent[0]!r}; it has: "
                f"{', '.join(sorted(there))}"
            )
    if not config.loss.attack_types:
        return
    codes, words = dataset.codes("attack_type")
    present = np.bincount(codes[rows], minlength=len(words)) > 0
    known = sorted(set(words[present]) - {LIVE})
    known += recapture.attack_types(config.augment)
    for name in config.loss.attack_types:
        if name not in known:
            raise UserError(
                f"loss.attack_types: no clip of split {config.data.train_split!r} is of the attack type {name!r}; it "
                f"has: {', '.join(known)}"
            )


def count_by_type(dataset: Dataset, config: Config) -> dict[str, int]:
    """Clips of the training split by attack type ("live" too), as its first pass sees them.

    Live clips that are made attacks count as `synthetic:` and the operator's name (livetrain.data.recapture).
    """
    rows = dataset.rows(config.data.train_split).astype(np.int64)
    live = dataset.column("label")[rows] >= LIVE_THRESHOLD
    codes, words = dataset.codes("attack_type")
    kinds = np.where(live, len(words), codes[rows])
    names = [*(str(word) or UNNAMED for word in words), LIVE]
    if recapture.is_active(config.augment):
        for first in range(0, len(rows), CHUNK):
            part = slice(first, first + CHUNK)
            place = recapture.chosen(config.augment, config.seed, np.zeros_like(rows[part]), rows[part], live[part])
            kinds[part] = np.where(place > 0, len(words) + place, kinds[part])
        names += recapture.attack_types(config.augment)
    counts = np.bincount(kinds, minlength=len(names))
    found: dict[str, int] = {}
    for name, count in zip(names, counts.tolist(), strict=True):
        if count:
            found[name] = found.get(name, 0) + count
    return found


def one_hot(kinds: Sequence[str], attack_types: Sequence[str]) -> NDArray[np.float32]:
    """The attack type (or "live") of n clips → float32 [n, 1 + len(attack_types)], live first.

    All zeros where it is none of them; no columns where there are no attack types.
    """
    if not attack_types:
        return np.zeros((len(kinds), 0), np.float32)
    place = {name: column for column, name in enumerate((LIVE, *attack_types))}
    targets = np.zeros((len(kinds), len(place)), np.float32)
    for row, kind in enumerate(kinds):
        if kind in place:
            targets[row, place[kind]] = 1
    return targets


def domains(clips: Labelled, plan: ClipPlan, config: Config) -> NDArray[np.int64]:
    """Places in domains.names of a plan's clips, int64 [n]; -1 for those of other domains and for padding."""
    places = {name: place for place, name in enumerate(config.domains.names)}
    if not places:
        return np.full(len(plan.rows), -1)
    of = [-1 if row == PADDING else places.get(clips.text("domain", row), -1) for row in plan.rows.tolist()]
    return np.array(of, np.int64)


def targets(clips: Labelled, plan: ClipPlan, valid: NDArray[np.bool_], config: Config) -> NDArray[np.float32]:
    """Labels and kinds of a plan's clips, before any blend: float32 [n, 1 + K], K as in `one_hot`.

    A live clip that is made an attack (livetrain.data.recapture) has that label and that kind. valid: bool [n].
    """
    # A masked clip's label must be a number too: NaN times zero is NaN in a gradient.
    labels = np.where(valid, clips.column("label")[plan.rows], 0).astype(np.float32)
    labels[plan.recaptured > 0] = 0
    wanted = config.loss.attack_types
    named = [clips.text("attack_type", row) if wanted and row != PADDING else "" for row in plan.rows.tolist()]
    for position in np.flatnonzero(plan.recaptured).tolist():
        named[position] = recapture.attack_type(config.augment, int(plan.recaptured[position]))
    return np.concatenate([labels[:, None], one_hot(named, wanted)], axis=1)
