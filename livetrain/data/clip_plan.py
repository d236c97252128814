"""What is planned of clips, and how evaluation sees them.

Neither torch nor DALI is needed: prediction with an exported model has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.data import region
from livetrain.data.clip_facts import Facts
from livetrain.data.frame_choice import chosen_frames
from livetrain.data.mixup import Blend

PADDING = -1


@dataclass(frozen=True)
class ClipPlan:
    """The plan of n clips of one micro-batch.

    rows: int64 [n], row of the index, or `PADDING`. frames: int64 [n, F], indices in display order. params: inputs of
    the graph by name, each [n, …]: `box` and `window` (see livetrain.data.region), `angle` float32 [n] (degrees
    counter-clockwise), `flip` int32 [n], and what the augmentations drew. recaptured: int64 [n], which operator makes
    an attack of a live clip (livetrain.data.recapture.attack_type), 0 for none. blend: what neighbours take from each
    other.
    """

    step: int
    rows: NDArray[np.int64]
    frames: NDArray[np.int64]
    params: dict[str, NDArray[Any]]
    recaptured: NDArray[np.int64]
    blend: Blend


def plan_views(facts: Facts, inside: NDArray[np.bool_], config: Config, batch: int) -> ClipPlan:
    """How evaluation sees n clips: frames evenly spaced, or all; the whole frame, its centre, or the face.

    Those not `inside` are `PADDING`.
    """
    size = len(inside)
    frames = evaluation_frames(facts, config)
    params = region.fixed_region(frames, facts, config) | {
        "angle": -facts.rotation.astype(np.float32),
        "flip": np.zeros(size, np.int32),
    }
    return ClipPlan(
        batch, np.where(inside, facts.rows, PADDING), frames, params, np.zeros(size, np.int64), Blend.none(size)
    )


def evaluation_frames(facts: Facts, config: Config) -> NDArray[np.int64]:
    """Which frames of n clips evaluation sees, int64 [n, eval.num_frames]; all those of the only clip for 0."""
    if not config.eval.num_frames:
        return np.arange(facts.num_frames[0], dtype=np.int64)[None]
    return chosen_frames(facts, config, config.eval.num_frames, None)


def evaluation_batch_size(config: Config) -> int:
    """Clips that a process scores at once: one where all frames are wanted, since videos differ in length."""
    return config.eval.batch_size if config.eval.num_frames else 1
