"""Dropout and stochastic depth whose masks depend on the sample, not on the process that has it.

torch draws masks from a generator of each process, so the same clip would lose other features when it is trained by
another number of them. Here a mask is a hash of (seed, update, place in the global batch, frame, layer, feature): the
loss of an update does not depend on how its batch is cut into processes and micro-batches. It needs no state to resume,
and recomputed activations (gradient checkpointing) see the same masks.
"""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn

# SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), as signed numbers.
_GOLDEN, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685
_BITS = 24  # of a uniform number, which float32 holds


class SampleKeys:
    """The keys that the dropout layers of a model share.

    clips: int64 [B], a key for each clip of the current micro-batch; None outside training, where layers draw from
    torch's generator.
    """

    def __init__(self) -> None:
        self.clips: Tensor | None = None

    def rows(self, count: int) -> Tensor | None:
        """A key for each of `count` rows: clips, or the frames of clips one after the other."""
        if self.clips is None or count % len(self.clips):
            return None
        frames = count // len(self.clips)
        if frames == 1:
            return self.clips
        numbers = torch.arange(frames, device=self.clips.device)
        return mixed(self.clips[:, None] + _GOLDEN * (numbers + 1)).flatten()


def mixed(keys: Tensor) -> Tensor:
    """int64 → int64, each bit of the result depending on all of the argument."""
    keys = (keys ^ _shifted(keys, 30)) * _FIRST
    keys = (keys ^ _shifted(keys, 27)) * _SECOND
    return keys ^ _shifted(keys, 31)


def uniforms(keys: Tensor) -> Tensor:
    """int64 keys → float32 in [0, 1)."""
    return _shifted(mixed(keys), 64 - _BITS).float() * 2.0**-_BITS


def _shifted(values: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's keeps the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _weyl(number: int) -> int:
    """A place in SplitMix64's sequence, as a signed number of 64 bits."""
    value = _GOLDEN * (number + 1) % 2**64
    return value - 2**64 if value >= 2**63 else value


def batch_keys(seed: int, step: int, positions: Tensor) -> Tensor:
    """The keys of clips at `positions` (int64 [B]) of the global batch of update `step`."""
    here = torch.full_like(positions, seed)
    for number in (torch.full_like(positions, step), positions):
        here = mixed(here + _GOLDEN * (number + 1))
    return here


class KeyedDropPath(DropPath):
    """timm's DropPath: a sample (frame) skips the block, with its mask from the sample's key."""

    def __init__(self, like: DropPath, keys: SampleKeys, layer: int) -> None:
        super().__init__(like.drop_prob, like.scale_by_keep)
        self.keys, self.layer = keys, layer

    def forward(self, x: Tensor) -> Tensor:
        rows = self.keys.rows(len(x)) if self.training and self.drop_prob else None
        if rows is None:
            return super().forward(x)
        keep = 1 - self.drop_prob
        mask = (uniforms(rows + _weyl(self.layer)) < keep).to(x.dtype)
        if keep > 0 and self.scale_by_keep:
            mask = mask / keep
        return x * mask.view(-1, *[1] * (x.ndim - 1))


class KeyedDropout(nn.Dropout):
    """Dropout of features [B,D] or [B,F,D], with masks from the clip's key."""

    def __init__(self, p: float, keys: SampleKeys, layer: int) -> None:
        super().__init__(p)
        self.keys, self.layer = keys, layer

    def forward(self, x: Tensor) -> Tensor:
        rows = self.keys.rows(len(x)) if self.training and self.p else None
        if rows is None:
            return super().forward(x)
        base = mixed(rows + _weyl(self.layer))
        numbers = torch.arange(x[0].numel(), device=x.device)
        drawn = uniforms(base[:, None] + _GOLDEN * (numbers + 1)).view_as(x)
        return x * (drawn >= self.p).to(x.dtype) / (1 - self.p)


def with_keys(module: nn.Module, keys: SampleKeys) -> None:
    """Replace each DropPath in `module`, in place."""
    found = [(name, item) for name, item in module.named_modules() if isinstance(item, DropPath) and item.drop_prob]
    for layer, (name, item) in enumerate(found):
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, KeyedDropPath(item, keys, layer))
