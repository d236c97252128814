"""Losses of a clip, one value a clip, in float32 also under autocast. Labels may be soft: any value in [0, 1].

All are sums over the two classes of -y' log p, with smoothed labels y' = (1-s) y + s/2, times the clip's weight
y live_weight + (1-y) attack_weight (of the label as given, not smoothed).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from livetrain.config import LossConfig
from livetrain.core.errors import UserError

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(cfg: LossConfig) -> Loss:
    """(logits, labels [B]) → loss of each clip, float32 [B]. logits: [B] for bce and focal, [B,2] for ce."""
    functions: dict[str, Loss] = {
        "bce": binary_cross_entropy,
        "ce": cross_entropy,
        "focal": lambda logits, labels: focal(logits, labels, cfg.focal_gamma),
    }
    if cfg.name not in functions:
        raise UserError(f"loss.name={cfg.name!r} is not one of {', '.join(functions)}")
    function, smoothing = functions[cfg.name], cfg.label_smoothing

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            labels = labels.float()
            weights = labels * cfg.live_weight + (1 - labels) * cfg.attack_weight
            return weights * function(logits.float(), labels * (1 - smoothing) + smoothing / 2)

    return loss


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-(y log σ(x) + (1-y) log σ(-x)); [B], [B] → [B]."""
    _check(logits, labels, labels.shape)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-(y log p_1 + (1-y) log p_0) with p = softmax(x); [B,2], [B] → [B]."""
    _check(logits, labels, (len(labels), 2))
    return -(torch.stack([1 - labels, labels], dim=1) * F.log_softmax(logits, dim=1)).sum(dim=1)


def focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """-(y (1-p)^γ log p + (1-y) p^γ log(1-p)) with p = σ(x); [B], [B] → [B].

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4; its α is in the class weights. The
    powers are taken of log-probabilities, so that value and gradient stay finite for any logit.
    """
    _check(logits, labels, labels.shape)
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    return -(labels * torch.exp(gamma * log_q) * log_p + (1 - labels) * torch.exp(gamma * log_p) * log_q)


def kind_cross_entropy(logits: Tensor, kinds: Tensor) -> Tensor:
    """-Σ_k y_k log p_k with p = softmax(x), float32; [B,K], [B,K] → [B]. 0 for a clip of a kind that has no column."""
    with torch.autocast(logits.device.type, enabled=False):
        return -(kinds * F.log_softmax(logits.float(), dim=1)).sum(dim=1)


def _check(logits: Tensor, labels: Tensor, shape: tuple[int, ...]) -> None:
    assert logits.shape == shape, f"logits {tuple(logits.shape)} for labels {tuple(labels.shape)}, not {tuple(shape)}"
