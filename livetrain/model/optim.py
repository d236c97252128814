"""Parameter groups, optimizer and learning-rate schedule, by timm's factories."""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_info,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from livetrain.config import OptimConfig
from livetrain.core.errors import UserError
from livetrain.model.liveness import LivenessModel

# Of torch's optimizers with one kernel for all tensors, those whose kernel takes DTensors (torch 2.14).
FUSED_IN_SHARDS = (torch.optim.Adam, torch.optim.AdamW)
SCHEDULES = ("cosine", "constant", "tanh", "step", "multistep", "poly", "wsd", "rsqrt")


def param_groups(model: LivenessModel, cfg: OptimConfig) -> list[dict[str, Any]]:
    """The trainable parameters, in groups with their weight_decay and, with layer decay, their lr_scale.

    Norms, biases and what the backbone's no_weight_decay() names (position embeddings, class tokens) have no weight
    decay. With optim.layer_decay d < 1 the backbone's layers (timm's group_matcher) have lr_scale d, d², ... from the
    one nearest to the head; pooling and heads have 1, and so keep the full rate.
    """
    spared = set(getattr(model.backbone, "no_weight_decay", set)())
    if cfg.layer_decay == 1:
        return param_groups_weight_decay(
            model, cfg.weight_decay, no_weight_decay_list={f"backbone.{n}" for n in spared}
        )
    groups = param_groups_layer_decay(
        model.backbone, cfg.weight_decay, no_weight_decay_list=spared, layer_decay=cfg.layer_decay
    )
    for group in groups:
        group["lr_scale"] *= cfg.layer_decay  # timm's scale is 1 at the last layer, which is the head when there is one
    for part in filter(None, (model.pool, model.head, model.attack_head, model.domain_head)):
        groups += [group | {"lr_scale": 1.0} for group in param_groups_weight_decay(part, cfg.weight_decay)]
    return groups


def build_optimizer(model: LivenessModel, cfg: OptimConfig) -> Optimizer:
    """Timm's optimizer of that name over `param_groups`. Raises UserError for an unknown name, a missing package.

    beta1 and beta2 go to optimizers with two betas; those with three (adan, ademamix) keep their defaults.
    """
    return _create(param_groups(model, cfg), cfg)


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a `state_dict()` of it, each tensor laid out in memory as its parameter.

    Options stay those it was built with (learning rate, weight decay, betas): the state has those of when it was saved.

    Checkpoints hold dense tensors. Fused kernels walk through a parameter and its moments in the order of memory, so
    beside channels_last weights, moments in another layout would be those of other weights (torch 2.14 checks nothing).
    """
    with keeping_options(optimizer):
        optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


@contextlib.contextmanager
def keeping_options(optimizer: Optimizer) -> Iterator[None]:
    """Give its groups back, after the block, the options that they had before."""
    before = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    yield
    for group, options in zip(optimizer.param_groups, before, strict=True):
        group.update(options)


def fits(optimizer: Optimizer, state: dict[str, Any]) -> bool:
    """Whether a `state_dict()` is of an optimizer of this kind over parameters in these groups."""
    own = optimizer.state_dict()["param_groups"]
    return [(len(group["params"]), set(group)) for group in own] == [
        (len(group["params"]), set(group)) for group in state["param_groups"]
    ]


def is_element_wise(cfg: OptimConfig) -> bool:
    """Whether the optimizer treats every element alone.

    Then three updates of a matrix are those of its two halves but for rounding. Raises UserError as `build_optimizer`
    does.
    """
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.1, 10.0, 96)[:, None]  # so that norms of the parts are not those of the whole
    start, *gradients = (scale * torch.randn(96, 64, generator=generator) for _ in range(4))
    unit = torch.nn.functional.normalize(start[40:], dim=1)
    for gradient in gradients:  # across the weights of one part alone, for those that look at such angles (AdamP)
        gradient[40:] -= (gradient[40:] * unit).sum(dim=1, keepdim=True) * unit

    def updated(rows: slice) -> torch.Tensor:
        part = nn.Parameter(start[rows].clone())
        optimizer = _create([{"params": [part]}], cfg)
        for gradient in gradients:
            part.grad = gradient[rows].clone()
            optimizer.step()
        return part.detach() - start[rows]

    whole, parts = updated(slice(0, 96)), torch.cat([updated(slice(0, 40)), updated(slice(40, 96))])
    return bool((whole - parts).norm() < 1e-4 * whole.norm())


def num_states(cfg: OptimConfig) -> float:
    """Numbers that the optimizer keeps for each parameter, found by one step on a small matrix (AdamW: 2)."""
    matrix = nn.Parameter(torch.zeros(128, 128))
    optimizer = _create([{"params": [matrix]}], cfg)
    matrix.grad = torch.ones_like(matrix)
    optimizer.step()
    state = optimizer.state_dict()["state"].get(0, {})
    return sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor)) / matrix.numel()


def _create(groups: list[dict[str, Any]], cfg: OptimConfig) -> Optimizer:
    name = cfg.name.lower()
    try:
        info = get_optimizer_info(name.removeprefix("lookahead_"))
    except ValueError:
        known = [str(item) for item in list_optimizers()]
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise UserError(f"optim.name={cfg.name} is not a timm optimizer; {hint}") from None
    if info.second_order:
        raise UserError(f"optim.name={cfg.name} needs second derivatives, which training does not make; choose another")
    extra: dict[str, Any] = {"betas": (cfg.beta1, cfg.beta2)} if info.has_betas and info.num_betas == 2 else {}
    takes_fused = callable(info.opt_class) and "fused" in inspect.signature(info.opt_class).parameters
    in_shards = any(isinstance(parameter, DTensor) for group in groups for parameter in group["params"])
    if takes_fused and (not in_shards or info.opt_class in FUSED_IN_SHARDS):
        extra["fused"] = (
            True  # one kernel for all tensors: AdamW of 5.7 M parameters on two cores, 15 ms instead of 117
        )
    try:
        optimizer = create_optimizer_v2(
            groups, name, lr=cfg.lr, weight_decay=cfg.weight_decay, momentum=cfg.momentum, **extra
        )
    except (ImportError, AssertionError, RuntimeError, ValueError) as error:
        raise UserError(f"optim.name={cfg.name} cannot be used here: {error}; choose another, as adamw") from None
    return optimizer


def warmup_steps(cfg: OptimConfig, num_steps: int) -> int:
    """Updates of the warm-up: optim.warmup_steps, or half of a run that is not longer than that."""
    return cfg.warmup_steps if cfg.warmup_steps < num_steps else num_steps // 2


def build_schedule(optimizer: Optimizer, cfg: OptimConfig, num_steps: int) -> Scheduler:
    """Timm's schedule over `num_steps` updates: call `.step_update(n)` before update n (from 0). It has no state.

    Update n of w (see warmup_steps) has lr (n+1)/(w+1); update w has the peak, optim.lr; the last, num_steps - 1, has
    optim.lr * min_lr_ratio, except with `constant`. Between them, by name: cosine, tanh, poly (linear); step (falls at
    one and two thirds), multistep (at one half and three quarters), by equal factors; wsd (constant, then falls over
    the last fifth); rsqrt (inverse square root with the warm-up's time scale, or a tenth of the run's without one,
    then falls over the last fifth). A group's lr_scale multiplies all. Raises UserError for an unknown name.
    """
    if cfg.schedule not in SCHEDULES:
        near = difflib.get_close_matches(cfg.schedule, SCHEDULES, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"optim.schedule={cfg.schedule}{hint} is not one of {', '.join(SCHEDULES)}")
    warmup = warmup_steps(cfg, num_steps)
    if cfg.schedule in ("step", "multistep") and not cfg.min_lr_ratio:
        raise UserError(f"optim.schedule={cfg.schedule} multiplies the rate: set optim.min_lr_ratio above 0")
    length = max(1, num_steps - 1 - warmup)  # updates from the peak to the last one
    decay: dict[str, Any] = {"decay_rate": cfg.min_lr_ratio**0.5}
    if cfg.schedule == "step":
        decay["decay_epochs"] = max(1.0, (length + 1) / 3)
    elif cfg.schedule == "multistep":
        decay["decay_milestones"] = [1 + max(1, round(length * part)) for part in (0.5, 0.75)]  # timm is one early
    elif cfg.schedule == "poly":
        decay["decay_rate"] = 1.0  # timm takes the power from here
    elif cfg.schedule in ("wsd", "rsqrt"):
        decay["decay_epochs"] = max(1, round(length * 0.2))
        decay["stable_timescale"] = warmup or max(1, num_steps // 10)
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched=cfg.schedule,
        num_epochs=length,
        warmup_epochs=warmup,
        warmup_prefix=True,
        warmup_lr=cfg.lr / (warmup + 1),
        min_lr=cfg.lr * cfg.min_lr_ratio,
        step_on_epochs=False,
        updates_per_epoch=1,
        **decay,
    )
    assert schedule is not None
    schedule.step_update(0)
    return schedule
