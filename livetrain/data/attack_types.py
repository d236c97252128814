"""Which kind each clip is, live or one of loss.attack_types: what the second head learns to name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.data.dataset import Dataset

LIVE = "live"  # as the index has it


def check(dataset: Dataset, config: Config) -> None:
    """Raises UserError for an attack type that no clip of the training split has."""
    if not config.loss.attack_types:
        return
    codes, words = dataset.codes("attack_type")
    present = np.bincount(codes[dataset.rows(config.data.train_split)], minlength=len(words)) > 0
    known = sorted(set(words[present]) - {LIVE})
    for name in config.loss.attack_types:
        if name not in known:
            raise UserError(
                f"loss.attack_types: no clip of split {config.data.train_split!r} is of the attack type {name!r}; it "
                f"has: {', '.join(known)}"
            )


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
