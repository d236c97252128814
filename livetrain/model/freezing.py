"""Which parts of a backbone are trained: model.freeze, model.unfreeze_last."""

from __future__ import annotations

from collections.abc import Iterable

from timm.models import group_parameters
from torch import nn

from livetrain.config import ModelConfig
from livetrain.core.errors import UserError


def freeze(backbone: nn.Module, cfg: ModelConfig) -> list[str]:
    """Have parameters not trained that the configuration names or leaves out.

    Returns the modules that lie wholly within these: their batch statistics and drop path stay as in evaluation. Raises
    UserError for a beginning that no parameter has, and where there are not so many blocks.
    """
    frozen = {*_named(backbone, cfg.freeze), *_below(backbone, cfg.unfreeze_last)}
    for name, parameter in backbone.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return [
        name
        for name, module in backbone.named_modules()
        if name and (of := [f"{name}.{own}" for own, _ in module.named_parameters()]) and frozen.issuperset(of)
    ]


def _named(backbone: nn.Module, prefixes: Iterable[str]) -> list[str]:
    names = [name for name, _ in backbone.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            there = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise UserError(f"model.freeze: no parameter of the backbone begins with {prefix!r}; there are: {there}")
    return [name for name in names if name.startswith(tuple(prefixes))]


def _below(backbone: nn.Module, num_blocks: int) -> list[str]:
    """The parameters below the last `num_blocks` blocks; none for 0. Blocks are timm's layers, as for layer decay."""
    if not num_blocks:
        return []
    layers: dict[str, int] = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    last = max(layers.values())
    if num_blocks > last:
        raise UserError(f"model.unfreeze_last={num_blocks}: the backbone has {last} blocks; leave it out to train all")
    return [name for name, layer in layers.items() if layer <= last - num_blocks]
