"""model.unfreeze_last: the last blocks learn, the rest stays as it is."""

from __future__ import annotations

import pytest
import torch

from livetrain.config import LossConfig, ModelConfig
from livetrain.core.errors import UserError
from livetrain.model import build_model
from livetrain.model.liveness import LivenessModel


def make(backbone: str, **options: object) -> LivenessModel:
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone=backbone, **options), LossConfig(), 32)  # type: ignore[arg-type]


def trained(model: LivenessModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_last_blocks_and_the_norm_behind_them_are_trained() -> None:
    model = make("test_vit", unfreeze_last=2)
    last = len(model.backbone.blocks) - 1
    parts = {name.split(".")[1] + name.split(".")[2] if "blocks" in name else name for name in trained(model)}
    assert parts == {
        f"blocks{last}", f"blocks{last - 1}", "backbone.norm.weight", "backbone.norm.bias", "head.weight", "head.bias",
    }  # fmt: skip
    model(torch.randn(2, 1, 3, 32, 32)).sum().backward()
    assert model.backbone.blocks[last].attn.qkv.weight.grad is not None
    assert model.backbone.patch_embed.proj.weight.grad is None


def test_batch_statistics_below_stay_and_those_above_follow() -> None:
    model = make("test_resnet", unfreeze_last=1, drop_path=0.1)
    before = {name: value.clone() for name, value in model.named_buffers() if name.endswith("running_mean")}
    model.train()(torch.randn(4, 1, 3, 32, 32))
    moved = {name for name, value in model.named_buffers() if name in before and not torch.equal(value, before[name])}
    learns = {name.rsplit(".", 1)[0] for name in trained(model)}
    assert moved and {name.rsplit(".", 1)[0] for name in moved} == {
        name.rsplit(".", 1)[0] for name in before if name.rsplit(".", 1)[0] in learns
    }
    assert 0 < len(moved) < len(before)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"])
def test_more_blocks_are_more_parameters_up_to_all(backbone: str) -> None:
    counts = [len(trained(make(backbone, unfreeze_last=number))) for number in (1, 2)]
    whole = len(trained(make(backbone)))
    assert 2 < counts[0] < counts[1] < whole


def test_more_than_there_are_is_an_error() -> None:
    with pytest.raises(UserError, match=r"model.unfreeze_last=99: the backbone has \d+ blocks"):
        make("test_vit", unfreeze_last=99)
