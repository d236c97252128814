"""What is done to weights that may be in shards: of whole ones here, of shards in tests/distributed/test_fsdp.py."""

from __future__ import annotations

import pytest
import torch
from timm.utils.agc import adaptive_clip_grad
from torch import nn

from livetrain.config import OptimConfig
from livetrain.model import clip_by_unit, is_element_wise


@pytest.mark.parametrize("factor", [0.01, 0.3])
def test_clipping_by_units_is_what_timm_does(factor: float) -> None:
    """timm's own does not take shards."""
    torch.manual_seed(0)
    shapes = ((4, 3, 2, 2), (5, 7), (6,), (1,))
    ours, theirs = ([nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2))
    for mine, other in zip(ours, theirs, strict=True):
        mine.data = torch.randn(mine.shape)
        other.data = mine.data.clone()
        mine.grad = torch.randn(mine.shape) * torch.logspace(-3, 1, mine.shape[0]).view(-1, *[1] * (mine.ndim - 1))
        other.grad = mine.grad.clone()
    before = [parameter.grad.clone() for parameter in ours]
    clip_by_unit([*ours, nn.Parameter(torch.zeros(3))], factor)
    adaptive_clip_grad(theirs, factor)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, other.grad, rtol=1e-5, atol=0)
    assert not all(torch.equal(mine.grad, grad) for mine, grad in zip(ours, before, strict=True)), "some are clipped"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("adamw", True), ("sgd", True), ("lion", True), ("adan", True), ("lamb", False), ("adafactor", False),
     ("adamp", False), ("cadamw", False), ("muon", False), ("lars", False)],
)  # fmt: skip
def test_which_optimizers_go_number_by_number(name: str, expected: bool) -> None:
    assert is_element_wise(OptimConfig(name=name, lr=1e-3)) == expected
