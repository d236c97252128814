"""From the features of a clip's frames [B,F,D] to one vector a clip [B,D]. None of them knows the frames' order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from livetrain.errors import UserError


class MeanPool(nn.Module):
    """Mean over the frames."""

    def forward(self, features: Tensor) -> Tensor:
        """[B,F,D] → [B,D]."""
        return features.mean(dim=1)

    def shares(self, features: Tensor) -> Tensor:
        """[B,F,D] → float32 [B,F]: the share of each frame in the pooled vector; sums to 1 over F."""
        return features.new_full(features.shape[:2], 1 / features.shape[1], dtype=torch.float32)


class MaxPool(nn.Module):
    """Maximum over the frames, feature by feature."""

    def forward(self, features: Tensor) -> Tensor:
        """[B,F,D] → [B,D]."""
        return features.amax(dim=1)

    def shares(self, features: Tensor) -> Tensor:
        """[B,F,D] → float32 [B,F]: the share of the features whose maximum is in that frame; sums to 1 over F."""
        winners = torch.nn.functional.one_hot(features.argmax(dim=1), features.shape[1])  # [B,D,F]
        return winners.float().mean(dim=1)


class AttentionPool(nn.Module):
    """Weighted mean; the weights are a softmax over the frames of w·tanh(V h).

    Ilse et al., "Attention-based Deep Multiple Instance Learning", ICML 2018, equation 8. w starts at zero: the pool
    starts as the mean.
    """

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # a bias would cancel in the softmax
        nn.init.zeros_(self.score.weight)

    def shares(self, features: Tensor) -> Tensor:
        """[B,F,D] → float32 [B,F]: the share of each frame; sums to 1 over F."""
        scores = self.score(torch.tanh(self.hidden(features))).squeeze(-1)
        return torch.softmax(scores.float(), dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """[B,F,D] → [B,D]."""
        weights = self.shares(features).to(features.dtype)
        return (weights.unsqueeze(-1) * features).sum(dim=1)


def build_pool(name: str, dim: int) -> nn.Module:
    """The pooling called mean, max or attention, for features of length `dim`."""
    if name == "mean":
        return MeanPool()
    if name == "max":
        return MaxPool()
    if name == "attention":
        return AttentionPool(dim)
    raise UserError(f"model.pool={name!r} is not one of mean, max, attention")
