"""Losses that compare clips of several domains, against their definitions written out."""

from __future__ import annotations

import math

import pytest
import torch

from livetrain.model import domain_losses

CLASSES = torch.tensor([0, 1, 0, 2, 1, -1, 0, 3])  # 3 is alone in its class, -1 is left out


def unit_features() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 5, generator=generator, dtype=torch.float32)


def test_supervised_contrastive_is_its_formula() -> None:
    features = unit_features()
    found = domain_losses.supervised_contrastive(features, CLASSES, 0.2)
    z = [row / row.norm() for row in features.double()]
    for i, own in enumerate(CLASSES.tolist()):
        others = [a for a in range(8) if a != i and CLASSES[a] >= 0]
        alike = [a for a in others if CLASSES[a] == own]
        total = sum(math.exp(float(z[i] @ z[a]) / 0.2) for a in others)
        wanted = -sum(float(z[i] @ z[p]) / 0.2 - math.log(total) for p in alike) / len(alike) if alike else 0.0
        assert float(found[i]) == pytest.approx(wanted if own >= 0 else 0.0, abs=1e-4), i
    assert (found > 0).sum() == 5


def test_hard_triplet_is_its_formula() -> None:
    features = unit_features()
    found = domain_losses.hard_triplet(features, CLASSES, 0.5)
    z = [row / row.norm() for row in features.double()]
    for i, own in enumerate(CLASSES.tolist()):
        others = [a for a in range(8) if a != i and CLASSES[a] >= 0]
        alike = [float((z[i] - z[a]).norm()) for a in others if CLASSES[a] == own]
        apart = [float((z[i] - z[a]).norm()) for a in others if CLASSES[a] != own]
        wanted = max(0.0, 0.5 + max(alike) - min(apart)) if alike and own >= 0 else 0.0
        assert float(found[i]) == pytest.approx(wanted, abs=1e-4), i


@pytest.mark.parametrize("classes", [CLASSES, torch.full((8,), -1), torch.arange(8), torch.zeros(8, dtype=torch.long)])
def test_gradients_are_finite_where_clips_are_alone_or_the_same(classes: torch.Tensor) -> None:
    features = unit_features()
    features[2] = features[0]
    features[5] = 0
    features.requires_grad_()
    loss = domain_losses.supervised_contrastive(features, classes, 0.07) + domain_losses.hard_triplet(
        features, classes, 0.1
    )
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(features.grad).all()


def test_classes() -> None:
    domains, labels = torch.tensor([0, 0, 1, 1, -1, -1]), torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    assert domain_losses.classes_of(domains, labels, "domain_label").tolist() == [1, 0, 3, 2, -1, -1]
    assert domain_losses.classes_of(domains, labels, "merge_live").tolist() == [0, 1, 0, 2, -1, -1]


def test_a_reversed_gradient_leaves_the_features() -> None:
    features = unit_features().requires_grad_()
    out = domain_losses.reverse_gradient(features, torch.tensor(0.25))
    torch.testing.assert_close(out, features)
    out.backward(torch.ones_like(out))
    torch.testing.assert_close(features.grad, torch.full_like(features, -0.25))


def test_the_reversal_grows_from_nothing() -> None:
    found = [domain_losses.reversal_strength(step, 100) for step in (0, 10, 50, 100, 1000)]
    assert found[0] == 0 and found == sorted(found) and found[3] == found[4] == pytest.approx(math.tanh(5))
