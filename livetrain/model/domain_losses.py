"""Losses that compare clips of several domains, and the head that names the domain. Features and losses are float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FAR = -1e9  # a similarity whose exponential is 0
HIDDEN = 512  # of the head that names the domain, as in SSDG (Jia et al., CVPR 2020)


def supervised_contrastive(features: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Loss of each clip; [N, D], int [N] → [N].

    Khosla et al., "Supervised contrastive learning", NeurIPS 2020, equation 2, of features scaled to length 1. Clips of
    class -1 are left out, and a clip that is alone in its class has no loss of its own: 0 for both.
    """
    found = F.normalize(features.float(), dim=1)
    similarity = found @ found.T / temperature
    others = _compared(classes)
    alike = others & (classes[:, None] == classes[None])
    # Not -inf: the gradient of a clip without others would be NaN.
    total = torch.logsumexp(similarity.masked_fill(~others, FAR), dim=1, keepdim=True)
    log_share = torch.where(alike, similarity - total, 0.0)
    return -log_share.sum(dim=1) / alike.sum(dim=1).clamp(min=1)


def hard_triplet(features: Tensor, classes: Tensor, margin: float) -> Tensor:
    """Loss of each clip; [N, D], int [N] → [N].

    max(0, margin + distance to the farthest clip of its class - distance to the nearest of another), of features scaled
    to length 1: Hermans et al., "In defense of the triplet loss", 2017, equation 5. Clips of class -1 are left out, and
    a clip without one of the two has no loss: 0 for both.
    """
    found = F.normalize(features.float(), dim=1)
    # Of unit vectors; not cdist, whose gradient at distance 0 is not finite.
    distance = (2 - 2 * found @ found.T).clamp(min=1e-12).sqrt()
    others = _compared(classes)
    alike = others & (classes[:, None] == classes[None])
    different = others & ~alike
    farthest = distance.masked_fill(~alike, 0.0).amax(dim=1)
    nearest = distance.masked_fill(~different, 2.0).amin(dim=1)
    is_known = alike.any(dim=1) & different.any(dim=1)
    return torch.where(is_known, (margin + farthest - nearest).clamp(min=0), 0.0)


def classes_of(domains: Tensor, labels: Tensor, how: str) -> Tensor:
    """Classes for the losses above: int [N], float [N] → int [N]; -1 where the domain is -1.

    domain_label: a class for the live clips and one for the attacks of each domain. merge_live: one for all live clips,
    and one for the attacks of each domain.
    """
    live = labels >= 0.5
    named = 2 * domains + live if how == "domain_label" else torch.where(live, 0, domains + 1)
    return torch.where(domains >= 0, named, -1)


def domain_head(num_features: int, num_domains: int) -> nn.Sequential:
    """Features [B, D] → logits [B, num_domains]."""
    return nn.Sequential(nn.Linear(num_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, num_domains))


def reverse_gradient(features: Tensor, strength: Tensor) -> Tensor:
    """The features, and in the backward pass their gradient times -strength (a scalar tensor).

    Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016.
    """
    return (1 + strength) * features.detach() - strength * features


def reversal_strength(step: int, warmup_steps: int) -> float:
    """2 / (1 + exp(-10 p)) - 1 with p = step / warmup_steps, at most 1: Ganin et al., section 5.2.2."""
    return 2 / (1 + math.exp(-10 * min(1.0, step / warmup_steps))) - 1


def _compared(classes: Tensor) -> Tensor:
    """Which clips are compared with which: bool [N, N]; none with itself."""
    known = classes >= 0
    return known[:, None] & known[None] & ~torch.eye(len(classes), dtype=torch.bool, device=classes.device)
