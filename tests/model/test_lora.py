"""Low-rank updates: they alone are trained, and a model that scores has them in its weights."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from livetrain.config import LossConfig, ModelConfig, load_config
from livetrain.core.errors import UserError
from livetrain.inference import package
from livetrain.model import build_model, lora
from livetrain.model.liveness import LivenessModel
from livetrain.verdict import scores
from tests.runs import same_weights, small_config, train_here, weights

# Importing it takes seconds: only where these tests run.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="needs peft: pip install 'livetrain[lora]'"
)

LORA = {"lora_rank": 4, "lora_alpha": 8.0}


def make(**options: object) -> LivenessModel:
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone="test_vit", **options), LossConfig(), 32)  # type: ignore[arg-type]


def test_the_updates_and_the_head_are_trained_and_begin_as_nothing() -> None:
    model, clips = make(**LORA), torch.randn(2, 2, 3, 32, 32)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"head.weight", "head.bias"}
    assert len(trained) == 2 + 2 * 2 * len(model.backbone.blocks)
    plain = make()
    plain.load_state_dict(lora.merged(model.state_dict(), ModelConfig(**LORA)))  # type: ignore[arg-type]
    torch.testing.assert_close(plain.eval()(clips), model.eval()(clips))


def test_merged_weights_score_as_the_model_with_updates() -> None:
    model, clips = make(**LORA), torch.randn(2, 2, 3, 32, 32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    plain, before = make(), make()
    plain.load_state_dict(lora.merged(model.state_dict(), ModelConfig(**LORA)))  # type: ignore[arg-type]
    torch.testing.assert_close(plain.eval()(clips), model.eval()(clips), rtol=1e-4, atol=1e-5)
    before.head.load_state_dict(model.head.state_dict())
    assert (before.eval()(clips) - model(clips)).abs().max() > 0.01


@pytest.mark.slow
def test_a_run_trains_resumes_and_is_packaged(demo_shards: Path, tmp_path: Path) -> None:
    words = ("model.lora_rank=4", "train.ema_decay=0.5", "optim.lr=0.01", "optim.schedule=constant")
    whole, part = tmp_path / "whole", tmp_path / "part"
    train_here(small_config(demo_shards, whole, *words))
    train_here(small_config(demo_shards, part, *words, "train.max_steps=3"))
    train_here(small_config(demo_shards, part, *words))
    assert [name for name in weights(whole) if "lora_A" in name]
    assert same_weights(weights(part), weights(whole)) and same_weights(weights(part, "ema"), weights(whole, "ema"))
    assert max(float(t.abs().max()) for n, t in weights(whole).items() if "lora_B" in n) > 0, "it begins at 0"
    trained = package.load(whole)
    assert not [name for name in trained.model.state_dict() if "lora" in name or "base_layer" in name]
    package.write(trained, tmp_path / "package", version="1")
    again = package.load(tmp_path / "package")
    assert same_weights(again.model.state_dict(), trained.model.state_dict())
    assert len(scores.read(whole / "scores" / "test.csv")) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_targets": ["attn.kv"]}, "'attn.kv' names no layer of .* linear layers end in: attn.proj, attn.qkv"),
        ({"lora_targets": ["norm1"]}, "'norm1' names other layers than linear ones"),
    ],
)
def test_targets_that_are_none_are_an_error(options: dict[str, list[str]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(**LORA, **options)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install livetrain\[lora\]"):
        make(**LORA)


def test_two_ways_to_train_a_part_are_an_error() -> None:
    with pytest.raises(UserError, match="choose one"):
        load_config([], ["data.shards=x", "model.lora_rank=4", "model.unfreeze_last=1"])
