"""Parameter groups, optimizers, schedules, averages of the weights."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from timm.optim import list_optimizers

from livetrain.config import LossConfig, ModelConfig, OptimConfig
from livetrain.core.errors import UserError
from livetrain.model import (
    Ema,
    EvenAverage,
    LivenessModel,
    build_model,
    build_optimizer,
    build_schedule,
    load_optimizer,
    param_groups,
)
from livetrain.model.optim import SCHEDULES, num_states


def make(backbone: str = "test_vit", **options: object) -> LivenessModel:
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone=backbone, **options), LossConfig(), 32)  # type: ignore[arg-type]


def by_name(model: LivenessModel, groups: list[dict]) -> dict[str, dict]:
    names = {id(p): name for name, p in model.named_parameters()}
    found = [(names[id(p)], group) for group in groups for p in group["params"]]
    assert len(found) == len({name for name, _ in found}), "no parameter twice"
    return dict(found)


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_weight_decay_spares_norms_biases_and_positions(layer_decay: float) -> None:
    model = make(pool="attention")
    groups = by_name(model, param_groups(model, OptimConfig(weight_decay=0.1, layer_decay=layer_decay)))
    assert groups.keys() == dict(model.named_parameters()).keys()
    for name, group in groups.items():
        spared = name.endswith(".bias") or "norm" in name or "pos_embed" in name or "cls_token" in name
        assert group["weight_decay"] == (0.0 if spared else 0.1), name


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "test_convnext"])
def test_layer_decay_falls_towards_the_input(backbone: str) -> None:
    model = make(backbone, pool="attention")
    groups = by_name(model, param_groups(model, OptimConfig(layer_decay=0.5)))
    for name, group in groups.items():
        assert (group["lr_scale"] == 1.0) == (not name.startswith("backbone.")), name
    scales = sorted({group["lr_scale"] for group in groups.values()}, reverse=True)
    assert len(scales) > 4 and scales == [0.5**i for i in range(len(scales))]
    if backbone == "test_vit":
        depth = len(model.backbone.blocks)  # type: ignore[arg-type]
        for i in range(depth - 1):
            assert groups[f"backbone.blocks.{i}.attn.qkv.weight"]["lr_scale"] == scales[depth - i]
        assert groups["backbone.patch_embed.proj.weight"]["lr_scale"] == scales[-1]


def test_layer_decay_reaches_the_steps() -> None:
    """SGD without momentum moves a parameter by its own learning rate times the gradient."""
    model = make()
    cfg = OptimConfig(name="momentum", lr=0.1, momentum=0.0, weight_decay=0.0, layer_decay=0.5)
    optimizer = build_optimizer(model, cfg)
    build_schedule(optimizer, cfg, 10).step_update(0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    groups = by_name(model, optimizer.param_groups)
    moved = {name: (before[name] - p.detach()).mean().item() for name, p in model.named_parameters()}
    assert moved["head.weight"] == pytest.approx(0.1, rel=1e-3)
    for name, distance in moved.items():
        assert distance == pytest.approx(0.1 * groups[name]["lr_scale"], rel=2e-2), name


def test_frozen_parameters_are_in_no_group() -> None:
    model = make(freeze_backbone=True)
    for layer_decay in (1.0, 0.5):
        groups = by_name(model, param_groups(model, OptimConfig(layer_decay=layer_decay)))
        assert groups.keys() == {"head.weight", "head.bias"}


def test_optimizer_takes_its_options() -> None:
    model = make()
    adamw = build_optimizer(model, OptimConfig(lr=0.5, beta1=0.8, beta2=0.9, weight_decay=0.3))
    assert type(adamw) is torch.optim.AdamW
    assert all(group["betas"] == (0.8, 0.9) and group["lr"] == 0.5 for group in adamw.param_groups)
    assert {group["weight_decay"] for group in adamw.param_groups} == {0.0, 0.3}
    sgd = build_optimizer(model, OptimConfig(name="sgd", momentum=0.7))
    assert all(group["momentum"] == 0.7 for group in sgd.param_groups)


SLOW_OR_FOREIGN = ("kron", "bnb", "fused", "adahessian")  # compiled on first use; need other packages; second order


@pytest.mark.parametrize("name", [n for n in map(str, list_optimizers()) if not n.startswith(SLOW_OR_FOREIGN)])
def test_any_timm_optimizer_steps_and_goes_on_from_its_state(name: str) -> None:
    def weights() -> list[torch.nn.Parameter]:
        torch.manual_seed(0)
        return [torch.nn.Parameter(torch.randn(6, 5)), torch.nn.Parameter(torch.randn(5))]

    def head(parameters: list[torch.nn.Parameter]) -> LivenessModel:
        model = copy.deepcopy(frozen)
        model.head.weight, model.head.bias = parameters
        return model

    cfg = OptimConfig(name=name, lr=0.01)
    frozen = make("test_resnet", freeze_backbone=True)
    straight = weights()
    optimizer = build_optimizer(head(straight), cfg)
    for step in range(4):
        if step == 2:
            saved = copy.deepcopy(optimizer.state_dict())
            resumed = [torch.nn.Parameter(p.detach().clone()) for p in straight]
        for p in straight:
            p.grad = p.detach() * (step + 1)
        optimizer.step()
    again = build_optimizer(head(resumed), cfg)
    again.load_state_dict(saved)
    for step in (2, 3):
        for p in resumed:
            p.grad = p.detach() * (step + 1)
        again.step()
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(straight, weights(), strict=True))


def test_optimizers_that_cannot_be_had() -> None:
    model = make()
    with pytest.raises(UserError, match=r"optim\.name=adamv is not a timm optimizer; did you mean adam"):
        build_optimizer(model, OptimConfig(name="adamv"))
    with pytest.raises(UserError, match=r"optim\.name=bnbadamw cannot be used here"):
        build_optimizer(model, OptimConfig(name="bnbadamw"))
    with pytest.raises(UserError, match="second derivatives"):
        build_optimizer(model, OptimConfig(name="adahessian"))


def test_num_states() -> None:
    for name, states in [("adamw", 2), ("sgd", 1), ("adan", 4), ("lion", 1), ("mars", 3)]:
        assert num_states(OptimConfig(name=name)) == pytest.approx(states, abs=0.001), name


# --- schedule ---------------------------------------------------------------------------------------------------------


def rates(steps: int = 101, **options: object) -> list[float]:
    cfg = OptimConfig(lr=2.0, **options)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.lr)
    schedule = build_schedule(optimizer, cfg, steps)
    found = []
    for step in range(steps):
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_cosine() -> None:
    found = rates(schedule="cosine", min_lr_ratio=0.1)
    expected = [0.2 + 0.9 * (1 + math.cos(math.pi * step / 100)) for step in range(101)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_peak_and_end(schedule: str) -> None:
    found = rates(schedule=schedule, warmup_steps=10, min_lr_ratio=0.01)
    assert found[:11] == pytest.approx([2.0 * (step + 1) / 11 for step in range(11)])
    assert found[10] == max(found)
    assert found[-1] == pytest.approx(2.0 if schedule == "constant" else 0.02)
    after = found[10:]
    assert all(b <= a + 1e-12 for a, b in zip(after, after[1:], strict=False))
    assert len(set(after)) == {"constant": 1, "step": 3, "multistep": 3}.get(schedule, len(set(after)))


def test_a_warm_up_longer_than_the_run_takes_half_of_it() -> None:
    assert rates(101, warmup_steps=500) == rates(101, warmup_steps=50) != rates(101, warmup_steps=100)
    assert rates(1, warmup_steps=5) == [pytest.approx(2.0)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_shortest_runs(schedule: str, steps: int) -> None:
    found = rates(steps, schedule=schedule)
    assert found[0] == pytest.approx(2.0) and all(0 < rate <= 2.0 for rate in found)


def test_the_schedule_is_set_before_the_first_update_and_has_no_state() -> None:
    model = make()
    cfg = OptimConfig(warmup_steps=3, lr=1.0, layer_decay=0.5)
    first, second = build_optimizer(model, cfg), build_optimizer(model, cfg)
    straight, resumed = build_schedule(first, cfg, 20), build_schedule(second, cfg, 20)
    assert max(group["lr"] for group in first.param_groups) == 0.25
    for step in range(13):
        straight.step_update(step)
    resumed.step_update(12)
    assert [g["lr"] for g in first.param_groups] == [g["lr"] for g in second.param_groups]
    assert len({g["lr"] for g in first.param_groups}) > 4, "layers keep their scales"


def test_schedules_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"optim\.schedule=cosin \(did you mean cosine\?\)"):
        rates(schedule="cosin")
    with pytest.raises(UserError, match=r"optim\.min_lr_ratio above 0"):
        rates(schedule="step", min_lr_ratio=0.0)


# --- averages of the weights ------------------------------------------------------------------------------------------


def nudge(model: LivenessModel, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
        model(torch.randn(2, 2, 3, 32, 32))  # moves the batch statistics


def test_ema_is_the_average() -> None:
    model = make("test_resnet")
    ema = Ema(model, 0.9)
    start = copy.deepcopy(model.state_dict())
    seen = []
    for seed in range(3):
        nudge(model, seed)
        ema.update(model)
        seen.append(copy.deepcopy(model.state_dict()))
    for key, value in ema.module.state_dict().items():
        if value.is_floating_point():
            expected = 0.9**3 * start[key] + 0.1 * (0.81 * seen[0][key] + 0.9 * seen[1][key] + seen[2][key])
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
        else:
            assert value == seen[2][key]
    assert not ema.module.training and not any(p.requires_grad for p in ema.module.parameters())
    assert all(torch.equal(p, seen[2][name]) for name, p in model.named_parameters()), "the model itself is left alone"


def test_an_even_average_is_the_mean_of_the_weights_from_its_first_update_on() -> None:
    model = make("test_resnet")
    average, seen = EvenAverage(model, first=2), []
    for step in range(5):
        nudge(model, step)
        average.update(model, step=step)
        seen.append(copy.deepcopy(model.state_dict()))
        if step <= 2:
            assert all(torch.equal(p, seen[step][name]) for name, p in average.module.named_parameters()), step
    for name, value in average.module.named_parameters():
        mean = torch.stack([state[name].double() for state in seen[2:]]).mean(dim=0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)


def test_ema_goes_on_exactly_from_its_state() -> None:
    model = make("test_resnet")
    straight = Ema(model, 0.9)
    nudge(model, 0)
    straight.update(model)
    resumed = Ema(make("test_resnet"), 0.9)
    resumed.module.load_state_dict(copy.deepcopy(straight.module.state_dict()))
    nudge(model, 1)
    straight.update(model)
    resumed.update(model)
    a, b = straight.module.state_dict(), resumed.module.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])
def test_dense_moments_are_laid_out_as_channels_last_weights(name: str) -> None:
    """Checkpoints are dense; a fused kernel beside another layout would give weights the moments of others."""

    def step(optimizer: torch.optim.Optimizer, model: LivenessModel) -> None:
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()

    straight = make("test_resnet").to(memory_format=torch.channels_last)
    optimizer = build_optimizer(straight, OptimConfig(name=name, lr=0.01))
    step(optimizer, straight)
    resumed = copy.deepcopy(straight)
    state = optimizer.state_dict()
    state["state"] = {
        index: {k: v.contiguous() if isinstance(v, torch.Tensor) else v for k, v in values.items()}
        for index, values in state["state"].items()
    }
    again = build_optimizer(resumed, OptimConfig(name=name, lr=0.01))
    load_optimizer(again, copy.deepcopy(state))
    step(optimizer, straight)
    step(again, resumed)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_torchs_own_optimizers_are_fused(name: str) -> None:
    """One kernel for all tensors; the step is the one of a loop over them but for rounding."""
    model = make()
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.1))
    assert all(group["fused"] for group in optimizer.param_groups)
    before = [p.detach().clone().requires_grad_() for p in model.parameters()]
    for p, q in zip(model.parameters(), before, strict=True):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
    places = {id(p): index for index, p in enumerate(model.parameters())}
    groups = [
        {k: v for k, v in group.items() if k not in ("fused", "params", "param_names")}
        | {"params": [before[places[id(p)]] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    loop = type(optimizer)(groups, lr=0.1, foreach=False)
    optimizer.step()
    loop.step()
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6)
