"""Neighbouring clips of a micro-batch blended into each other, with their labels: mixup and cutmix, planned.

Positions 2k and 2k+1 of the run's stream are partners and are blended alike. A pair never parts: it is in one process's
micro-batch whatever their number.

Sources: Zhang et al., "mixup", ICLR 2018; Yun et al., "CutMix", ICCV 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config

if TYPE_CHECKING:
    import torch

STREAM = 3  # of the random numbers of a run: 0 to 2 are plan.py's


@dataclass(frozen=True)
class Blend:
    """How n clips are mixed with their partners.

    shares: float32 [n], each clip's own share of picture and label, 1 for none. cuts: int64 [n, 4], the rectangle (top,
    left, bottom, right; pixels) that comes from the partner; zeros for none: then all of it is mixed.
    """

    shares: NDArray[np.float32]
    cuts: NDArray[np.int64]

    @staticmethod
    def none(size: int) -> Blend:
        return Blend(np.ones(size, np.float32), np.zeros((size, 4), np.int64))


def partners(size: int) -> NDArray[np.int64]:
    """Position of each clip's partner in a micro-batch of `size` clips (1, 0, 3, 2, …)."""
    return np.arange(size) ^ 1


def planned(config: Config, positions: NDArray[np.int64]) -> Blend:
    """What becomes of the clips at `positions` (int64 [n]) of the run's stream."""
    blend, options = Blend.none(len(positions)), config.augment
    if not options.enabled or not (options.mixup or options.cutmix):
        return blend
    for index, pair in enumerate((positions // 2).tolist()):
        key = np.array([config.seed, 0], np.uint64)
        bits = np.random.Philox(key=key, counter=np.array([0, STREAM, pair, 0], np.uint64))
        random = np.random.Generator(bits)
        drawn = random.random()  # one for both: each happens as often as its key says
        if drawn < options.mixup:
            blend.shares[index] = random.beta(options.mixup_alpha, options.mixup_alpha)
        elif drawn < options.mixup + options.cutmix:
            share = random.beta(options.cutmix_alpha, options.cutmix_alpha)
            cut = _rectangle(share, random.random(2), config.data.image_size)
            blend.cuts[index] = cut
            blend.shares[index] = 1 - (cut[2] - cut[0]) * (cut[3] - cut[1]) / config.data.image_size**2
    return blend


def apply(
    clips: torch.Tensor, targets: NDArray[np.float32], valid: NDArray[np.bool_], blend: Blend
) -> tuple[torch.Tensor, NDArray[np.float32]]:
    """Clips [n, F, 3, S, S] and targets [n, …] blended; a pair stays as it is where one of the two failed to load."""
    if (blend.shares == 1).all():
        return clips, targets
    import torch  # plans are made without it

    other = partners(len(blend.shares))
    shares = np.where(valid & valid[other], blend.shares, np.float32(1))
    is_cut = blend.cuts.any(axis=1)
    weights = torch.from_numpy(np.where(is_cut, np.float32(1), shares)).to(clips.device, clips.dtype)
    weights = weights.view(-1, 1, 1, 1, 1)
    theirs = clips[torch.from_numpy(other).to(clips.device)]
    blended = clips * weights + theirs * (1 - weights)
    for index in np.flatnonzero(is_cut & (shares < 1)).tolist():
        top, left, bottom, right = blend.cuts[index].tolist()
        blended[index, ..., top:bottom, left:right] = theirs[index, ..., top:bottom, left:right]
    own = shares.reshape(-1, *(1 for _ in targets.shape[1:]))
    return blended, (own * targets + (1 - own) * targets[other]).astype(np.float32)


def _rectangle(share: float, u: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """A rectangle of 1 - `share` of the picture's area around a point at `u` of it, cut at the picture's edges."""
    side = size * np.sqrt(1 - share)
    first = np.floor(u * size - side / 2).clip(0, size)
    last = np.floor(u * size + side / 2).clip(0, size)
    return np.concatenate([first, last]).astype(np.int64)
