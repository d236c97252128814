"""The loss of a ViT's patches: each judged by the head of the whole, in proportion to its attention."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from livetrain.config import LossConfig, ModelConfig, load_config
from livetrain.core.errors import UserError
from livetrain.data import Batch
from livetrain.model import build_loss, build_model
from livetrain.model.liveness import LivenessModel, Outputs
from livetrain.training.objective import Objective


def make(pool: str = "mean", loss: str = "bce", backbone: str = "test_vit") -> LivenessModel:
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone=backbone, pool=pool), LossConfig(name=loss, patch_tokens=0.5), 32)


@pytest.mark.parametrize("backbone", ["test_vit", "test_vit2", "test_vit3"])  # class token, mean of patches, attention
@pytest.mark.parametrize(("loss", "last"), [("bce", ()), ("ce", (2,))])
def test_logits_are_those_of_the_model_and_shares_sum_to_one(loss: str, last: tuple[int, ...], backbone: str) -> None:
    model, clips = make(loss=loss, backbone=backbone), torch.randn(3, 2, 3, 32, 32)
    found = model(clips)
    assert isinstance(found, Outputs) and found.patches is not None
    logits, shares = found.patches
    num_patches = 2 * model.backbone.patch_embed.num_patches
    assert logits.shape == (3, num_patches, *last) and shares.shape == (3, num_patches)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(shares[:, : num_patches // 2].sum(dim=1), torch.full((3,), 0.5))
    torch.testing.assert_close(model.eval()(clips), found.logits)


def test_a_thumbnail_has_the_patches_of_its_picture() -> None:
    found = make(pool="thumbnail")(torch.randn(2, 4, 3, 32, 32))
    assert isinstance(found, Outputs) and found.patches is not None
    torch.testing.assert_close(found.patches[1].sum(dim=1), torch.ones(2))


def test_the_loss_is_the_patches_own_in_proportion_to_their_shares() -> None:
    config = load_config([], ["data.shards=x", "loss.patch_tokens=0.5", "loss.live_weight=3"], warn=lambda line: None)
    logits, labels = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([1.0, 0.0])
    shares = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    outputs = Outputs(torch.tensor([0.3, -0.7]), patches=(logits, shares))
    loss = build_loss(config.loss)
    batch = Batch.made(torch.zeros(2, 1, 3, 4, 4), labels)
    objective = Objective(SimpleNamespace(), config, loss, None)  # type: ignore[arg-type]
    total, values = objective(outputs, batch)
    of = [[float(loss(logits[i, p : p + 1], labels[i : i + 1])) for p in (0, 1)] for i in (0, 1)]
    plain = loss(outputs.logits, labels).tolist()
    wanted = [plain[0] + 0.5 * (0.25 * of[0][0] + 0.75 * of[0][1]), plain[1] + 0.5 * of[1][0]]
    assert values.tolist() == pytest.approx(wanted) and float(total) == pytest.approx(sum(wanted))


def test_patches_are_trained_and_not_to_be_looked_at_less() -> None:
    model, clips = make(), torch.randn(2, 1, 3, 32, 32)
    logits, shares = model(clips).patches
    assert not shares.requires_grad
    logits.sum().backward()
    assert model.backbone.patch_embed.proj.weight.grad.abs().max() > 0


def test_a_network_without_patches_is_an_error() -> None:
    with pytest.raises(UserError, match="needs a vision transformer, and model.backbone=test_resnet is none"):
        make(backbone="test_resnet")
