"""The patches of a vision transformer, each with features of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from livetrain.core.errors import UserError


def check(name: str, backbone: nn.Module) -> None:
    """Raises UserError for a backbone whose features are not those of patches."""
    if not hasattr(backbone, "num_prefix_tokens") or not hasattr(backbone, "blocks"):
        raise UserError(f"loss.patch_tokens needs a vision transformer, and model.backbone={name} is none; set it to 0")


def features_and_patches(backbone: nn.Module, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [N,3,H,W] → their features [N,D], as the backbone gives them, and those of their patches [N,P,D]."""
    tokens = backbone.forward_features(frames)  # type: ignore[operator]
    features = backbone.forward_head(tokens, pre_logits=True)  # type: ignore[operator]
    patches = tokens[:, backbone.num_prefix_tokens :]
    return features, backbone.fc_norm(patches) if hasattr(backbone, "fc_norm") else patches  # type: ignore[operator]


def attention(features: Tensor, patches: Tensor) -> Tensor:
    """How much a picture's features attend to each of its patches: [N,D], [N,P,D] → float32 [N,P], sums to 1 over P.

    The softmax of their products over the root of D (Vaswani et al., 2017, equation 1), without a gradient: patches are
    not trained to be looked at less.
    """
    with torch.no_grad():
        products = (patches.float() * features.float()[:, None]).sum(dim=-1)
        return torch.softmax(products / math.sqrt(features.shape[-1]), dim=-1)
