"""From the features of a clip's frames [B,F,D] to one vector a clip [B,D].

The transformer alone knows the frames' order; differences and thumbnails see what changes between neighbours.
"""

from __future__ import annotations

import math

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from livetrain.core.errors import UserError


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


class TransformerPool(MeanPool):
    """The frames' mean, and what a class token learns of their order through two transformer blocks.

    Frames have sinusoidal positions (Vaswani et al., NeurIPS 2017, section 3.5). The projection that adds the token
    starts at zero: the pool starts as the mean. The token has no shares: `shares` are those of the mean.
    """

    def __init__(self, dim: int, depth: int = 2) -> None:
        super().__init__()
        heads = next(count for count in (8, 6, 4, 3, 2, 1) if dim % count == 0)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, mlp_ratio=2.0, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim, bias=False)
        nn.init.normal_(self.token, std=0.02)
        nn.init.zeros_(self.project.weight)

    def forward(self, features: Tensor) -> Tensor:
        """[B,F,D] → [B,D]."""
        num_frames, dim = features.shape[1:]
        frames = features + _positions(num_frames, dim, features.device).to(features.dtype)
        tokens = torch.cat([self.token.to(features.dtype).expand(features.shape[0], -1, -1), frames], dim=1)
        return features.mean(dim=1) + self.project(self.norm(self.blocks(tokens)[:, 0]))


class DifferencePool(MeanPool):
    """The frames' mean, and what changes between neighbours: a projection of the mean of |h(t+1) - h(t)|.

    The projection starts at zero: the pool starts as the mean. A print has other changes than a face: all of one piece.
    Shares are those of the mean.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, features: Tensor) -> Tensor:
        """[B,F,D] → [B,D]."""
        earlier = (torch.arange(features.shape[1], device=features.device) - 1).clamp(min=0)  # the first has none
        changes = (features - features[:, earlier]).abs().mean(dim=1)
        return features.mean(dim=1) + self.project(self.norm(changes))


class ThumbnailPool(MeanPool):
    """Mean over pictures that each show four frames, two by two, at half their size.

    A picture's features see four moments at once, whatever the backbone, for a fourth of the cost (TALL: Y. Xu et al.,
    "TALL: Thumbnail Layout for Deepfake Video Detection", ICCV 2023). `arranged` makes the pictures; the four frames of
    one have its features each.
    """

    FRAMES = 4

    @staticmethod
    def arranged(clips: Tensor) -> Tensor:
        """Clips [B,F,3,H,W], F a multiple of 4, H and W even → pictures [B,F/4,3,H,W]: first frames above."""
        small = nn.functional.avg_pool2d(clips.flatten(0, 1), 2).unflatten(0, clips.shape[:2])
        rows = [torch.cat([small[:, first::4], small[:, first + 1 :: 4]], dim=-1) for first in (0, 2)]
        return torch.cat(rows, dim=-2)


def _positions(num_frames: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoidal positions, float32 [num_frames, dim]; an odd last feature has none."""
    rate = torch.exp(torch.arange(dim // 2, device=device) * (-2 * math.log(10_000.0) / dim))
    phase = torch.arange(num_frames, device=device)[:, None] * rate
    return nn.functional.pad(torch.cat([phase.sin(), phase.cos()], dim=1), (0, dim % 2))


def build_pool(name: str, dim: int) -> nn.Module:
    """The pooling of that name, for features of length `dim`."""
    if name == "mean":
        return MeanPool()
    if name == "max":
        return MaxPool()
    if name == "attention":
        return AttentionPool(dim)
    if name == "transformer":
        return TransformerPool(dim)
    if name == "difference":
        return DifferencePool(dim)
    if name == "thumbnail":
        return ThumbnailPool()
    raise UserError(f"model.pool={name!r} is not one of mean, max, attention, transformer, difference, thumbnail")
