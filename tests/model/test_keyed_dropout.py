"""Noise keyed by the sample: right rates, independent, the same however a batch is cut, and when recomputed."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import nn

from livetrain.config import LossConfig, ModelConfig
from livetrain.model import build_model
from livetrain.model.keyed_dropout import KeyedDropout, KeyedDropPath, SampleKeys, batch_keys, uniforms


def test_uniform_numbers_are_uniform_and_independent() -> None:
    keys = batch_keys(3, 7, torch.arange(200_000))
    drawn = uniforms(keys)
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = torch.histc(drawn, 20, 0, 1)
    assert ((counts - 10_000).abs() < 5 * 10_000**0.5).all()
    others = [uniforms(keys + 1), uniforms(batch_keys(4, 7, torch.arange(200_000))), drawn.roll(1)]
    others.append(uniforms(batch_keys(3, 8, torch.arange(200_000))))
    for other in others:
        assert abs(torch.corrcoef(torch.stack([drawn, other]))[0, 1]) < 0.012


def test_rates_and_scale() -> None:
    keys = SampleKeys()
    keys.clips = batch_keys(0, 0, torch.arange(4000))
    dropped = KeyedDropout(0.3, keys, 0)(torch.ones(4000, 50))
    assert abs((dropped == 0).float().mean() - 0.3) < 0.005 and abs(dropped.mean() - 1) < 0.01
    assert len(dropped.unique(dim=0)) == 4000 and abs((dropped == 0).float().mean(dim=0) - 0.3).max() < 0.04
    path = KeyedDropPath(DropPath(0.25), keys, 1)
    kept = path(torch.ones(8000, 3, 2))  # two frames a clip
    assert abs((kept == 0).float().mean() - 0.25) < 0.02 and abs(kept.mean() - 1) < 0.02
    assert ((kept == 0).all(dim=(1, 2)) | (kept != 0).all(dim=(1, 2))).all(), "a frame goes as a whole"
    assert (path.eval()(torch.ones(8, 3)) == 1).all()
    keys.clips = None
    assert (path.train()(torch.ones(8000, 3)) == 0).any(), "without keys as torch does"


def test_a_batch_cut_in_pieces_has_the_same_masks() -> None:
    """Of a whole model, frames and all; other updates have others."""
    torch.manual_seed(0)
    cfg = ModelConfig(backbone="test_vit", drop_path=0.4, dropout=0.4)
    model = build_model(cfg, LossConfig(), 96)
    assert sum(isinstance(m, KeyedDropPath) for m in model.modules()) > 1
    clips = torch.randn(6, 2, 3, 96, 96)

    def run(step: int, *pieces: range) -> torch.Tensor:
        out = []
        for piece in pieces:
            model.noise.clips = batch_keys(1, step, torch.tensor(list(piece)))
            out.append(model(clips[list(piece)]))
        return torch.cat(out)

    whole = run(5, range(6))
    assert torch.allclose(run(5, range(2), range(2, 5), range(5, 6)), whole, atol=1e-5)
    assert not torch.allclose(run(6, range(6)), whole, atol=1e-2)
    assert isinstance(model.dropout, nn.Dropout)


def test_recomputed_activations_see_the_same_masks() -> None:
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        cfg = ModelConfig(backbone="test_vit", drop_path=0.5, grad_checkpointing=recompute)
        model = build_model(cfg, LossConfig(), 96)
        model.noise.clips = batch_keys(1, 0, torch.arange(4))
        torch.manual_seed(1)
        model(torch.randn(4, 2, 3, 96, 96)).sum().backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-6), name
