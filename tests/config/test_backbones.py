"""configs/backbones: timm has each, with weights, and it is built as configured (on the meta device: no memory)."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from livetrain.config import load_config
from livetrain.model import build_model

FILES = sorted((Path(__file__).parents[2] / "configs" / "backbones").glob("*.yaml"))
MILLIONS = {
    "convnext_large": 196, "convnext_xlarge": 348, "dinov2_base": 86, "dinov2_large": 303, "efficientnet_b4": 17.5,
    "swin_large_384": 195,
}  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [path if "base" in path.stem else pytest.param(path, marks=pytest.mark.slow) for path in FILES],
    ids=lambda path: path.stem,
)
def test_shipped_backbones(path: Path) -> None:
    config = load_config([path], ["data.shards=x", "model.pretrained=false"], warn=lambda line: None)
    assert load_config([path], ["data.shards=x"], warn=lambda line: None).model.pretrained
    assert config.model.backbone in timm.list_pretrained()
    with torch.device("meta"):
        model = build_model(config.model, config.loss, config.data.image_size)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(MILLIONS[path.stem], rel=0.02)
    assert config.name == path.stem and config.eval.num_frames == config.data.num_frames
