"""Attacks made of live clips: what a print or a screen and a second camera do to a picture, in the graph, planned.

A live clip that is chosen (`augment.recapture`) goes through one operator, which names its attack type
(`synthetic:moire`), as a rule through `edge` as well (a sheet or screen held before a live scene) and through
`rephotograph` (the second camera's curve and softness). Its label becomes attack. All frames of a clip share the
parameters: what changes from frame to frame would be a cue of the operator, not of an attack. Only the bands of a
screen's refresh wander, as they do before a camera. The usual augmentations come after, for live clips and attacks
alike.

livetrain.data.recapture_operators says what each operator does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livetrain.config import AugmentConfig
from livetrain.data.augment import Node, Parameters
from livetrain.data.philox import uniforms
from livetrain.data.recapture_operators import NUM_UNIFORMS, OPERATORS, Operator

STREAM = 4  # of the random numbers of a run: 0 to 2 are plan.py's, 3 mixup.py's
SYNTHETIC = "synthetic:"  # + the operator: the attack type of such a clip


def is_active(config: AugmentConfig) -> bool:
    """Whether any clip can become an attack."""
    return config.enabled and config.recapture > 0


def active_operators(config: AugmentConfig) -> list[Operator]:
    """What the graph must hold, in order of application."""
    if not is_active(config):
        return []
    wanted = {*config.recapture_operators, *(("edge",) if config.recapture_edge else ())}
    wanted |= {"rephotograph"} if config.recapture_rephotograph else set()
    return [item for item in OPERATORS if item.name in wanted]


@dataclass(frozen=True)
class Recapture:
    """A livetrain.data.augment.Change: the operators one after the other."""

    operators: Sequence[Operator]

    def apply(self, frames: Node, p: dict[str, Node], size: int) -> Node:
        """See livetrain.data.augment.Augmentation."""
        scene = frames
        for item in self.operators:
            frames = item.apply(frames, scene, p, size)
        return frames


def planned(
    config: AugmentConfig,
    seed: int,
    epochs: NDArray[np.int64],
    rows: NDArray[np.int64],
    live: NDArray[np.bool_],
    size: int,
) -> tuple[NDArray[np.int64], Parameters]:
    """Which clips become attacks, and how, where `is_active`.

    epochs, rows: int64 [n], as for the other random numbers. live: bool [n], those that may. Returns int64 [n], the
    place of the operator in `config.recapture_operators` + 1, or 0, and the parameters of all operators of the graph.
    """
    (u,) = uniforms(seed, epochs, rows, [(STREAM, NUM_UNIFORMS * (1 + len(OPERATORS)))])
    names = list(config.recapture_operators)
    place = _chosen(config, u, live)
    params: Parameters = {}
    for item in active_operators(config):
        own = (1 + OPERATORS.index(item)) * NUM_UNIFORMS
        on = (place == names.index(item.name) + 1) if item.name in names else np.zeros(len(rows), bool)
        if item.name == "edge":
            on = on | ((place > 0) & (u[:, 2] < config.recapture_edge))
        if item.name == "rephotograph":
            on = on | ((place > 0) & (u[:, 3] < config.recapture_rephotograph))
        params[f"{item.name}_on"] = on
        params |= item.draw(u[:, own : own + NUM_UNIFORMS], size)
    return place, params


def chosen(
    config: AugmentConfig, seed: int, epochs: NDArray[np.int64], rows: NDArray[np.int64], live: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Which clips become attacks, as `planned` says, and nothing else."""
    (u,) = uniforms(seed, epochs, rows, [(STREAM, 2)])
    return _chosen(config, u, live)


def _chosen(config: AugmentConfig, u: NDArray[np.float64], live: NDArray[np.bool_]) -> NDArray[np.int64]:
    place = 1 + np.floor(u[:, 1] * len(config.recapture_operators)).astype(np.int64)
    return np.where(live & (u[:, 0] < config.recapture), place, 0)


def attack_types(config: AugmentConfig) -> list[str]:
    """The attack types that clips can get."""
    return [SYNTHETIC + name for name in config.recapture_operators] if is_active(config) else []


def attack_type(config: AugmentConfig, chosen: int) -> str:
    """The attack type of a clip of which `planned` says `chosen`, from 1 on."""
    return SYNTHETIC + config.recapture_operators[chosen - 1]
