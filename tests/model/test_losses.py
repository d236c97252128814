"""Losses against torch's own and against the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from livetrain.config import LossConfig
from livetrain.core.errors import UserError
from livetrain.model import build_loss
from livetrain.model.losses import kind_cross_entropy

LOGITS = torch.tensor([-3.0, -0.5, 0.2, 4.0])
HARD = torch.tensor([0.0, 1.0, 0.0, 1.0])
SOFT = torch.tensor([0.1, 0.7, 0.5, 1.0])


def two(logits: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.zeros_like(logits), logits], dim=1)


def test_bce_is_torchs() -> None:
    loss = build_loss(LossConfig(name="bce"))
    for labels in (HARD, SOFT):
        expected = F.binary_cross_entropy_with_logits(LOGITS, labels, reduction="none")
        torch.testing.assert_close(loss(LOGITS, labels), expected)


def test_ce_is_torchs_and_column_one_is_live() -> None:
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    loss = build_loss(LossConfig(name="ce"))
    torch.testing.assert_close(loss(logits, HARD), F.cross_entropy(logits, HARD.long(), reduction="none"))
    soft = F.cross_entropy(logits, torch.stack([1 - SOFT, SOFT], 1), reduction="none")
    torch.testing.assert_close(loss(logits, SOFT), soft)
    smooth = build_loss(LossConfig(name="ce", label_smoothing=0.2))
    expected = F.cross_entropy(logits, HARD.long(), reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(smooth(logits, HARD), expected)


def test_bce_and_ce_agree() -> None:
    options = {"label_smoothing": 0.1, "live_weight": 2.0, "attack_weight": 0.5}
    bce, ce = (build_loss(LossConfig(name=name, **options)) for name in ("bce", "ce"))  # type: ignore[arg-type]
    torch.testing.assert_close(bce(LOGITS, SOFT), ce(two(LOGITS), SOFT))


def test_focal_is_lins() -> None:
    """Equation 4 with hard labels, and the paper's example: at p_t = 0.9 and gamma 2, 100 times less than CE."""
    p = torch.sigmoid(LOGITS)
    p_t = torch.where(HARD == 1, p, 1 - p)
    for gamma in (0.0, 0.5, 2.0, 5.0):
        loss = build_loss(LossConfig(name="focal", focal_gamma=gamma))
        torch.testing.assert_close(loss(LOGITS, HARD), -((1 - p_t) ** gamma) * p_t.log())
    at_09 = torch.tensor([math.log(0.9 / 0.1)])
    focal, ce = (build_loss(LossConfig(name=name))(at_09, torch.ones(1)) for name in ("focal", "bce"))
    torch.testing.assert_close(ce / focal, torch.tensor([100.0]), rtol=1e-4, atol=0)


def test_label_smoothing_gives_its_share_to_both() -> None:
    loss = build_loss(LossConfig(name="bce", label_smoothing=0.2))
    expected = F.binary_cross_entropy_with_logits(LOGITS, torch.tensor([0.1, 0.9, 0.1, 0.9]), reduction="none")
    torch.testing.assert_close(loss(LOGITS, HARD), expected)


@pytest.mark.parametrize("name", ["bce", "ce", "focal"])
def test_class_weights(name: str) -> None:
    logits = two(LOGITS) if name == "ce" else LOGITS
    plain = build_loss(LossConfig(name=name))(logits, HARD)
    weighted = build_loss(LossConfig(name=name, live_weight=3.0, attack_weight=0.5))(logits, HARD)
    torch.testing.assert_close(weighted / plain, torch.tensor([0.5, 3.0, 0.5, 3.0]))


@pytest.mark.parametrize("name", ["bce", "ce", "focal"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_under_autocast_and_at_extreme_logits(name: str, dtype: torch.dtype) -> None:
    loss = build_loss(LossConfig(name=name, focal_gamma=0.5))
    logits = torch.tensor([-200.0, 200.0, 0.0, -200.0]).to(dtype).requires_grad_()
    inputs = two(logits) if name == "ce" else logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = loss(inputs, HARD)
    assert values.dtype == torch.float32 and values.shape == (4,)
    assert values[3].item() == pytest.approx(200, rel=1e-3) and values[1].item() == pytest.approx(0, abs=1e-6)
    values.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_an_unlabelled_clip_has_no_loss() -> None:
    values = build_loss(LossConfig())(LOGITS, torch.tensor([0.0, math.nan, 1.0, 1.0]))
    assert values.isnan().tolist() == [False, True, False, False]


def test_unknown_name_and_wrong_shape() -> None:
    with pytest.raises(UserError, match=r"loss\.name='hinge' is not one of bce, ce, focal"):
        build_loss(LossConfig(name="hinge"))
    with pytest.raises(AssertionError, match="logits"):
        build_loss(LossConfig(name="bce"))(two(LOGITS), HARD)


def test_the_second_heads_loss_is_torchs_and_nothing_for_a_kind_without_a_column() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    kinds = torch.tensor([[0.0, 1, 0, 0], [0.3, 0, 0.7, 0], [0, 0, 0, 0]])
    found = kind_cross_entropy(logits, kinds)
    torch.testing.assert_close(found[:2], F.cross_entropy(logits[:2], kinds[:2], reduction="none"))
    assert found[2] == 0
