"""Backbone weights from files and from the hub: what fits is loaded whole, what does not is reported."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from livetrain.config import LossConfig, ModelConfig
from livetrain.core.errors import UserError
from livetrain.model import build_model, load_backbone_weights
from livetrain.model.weights import read_weights

REAL = Path(__file__).parents[3] / "shared" / "weights"


def backbone(name: str = "test_resnet", seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(name, **{"num_classes": 0, **options}).eval()


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": w},
        lambda w: {"model_ema": w, "model": {k: v * 0 for k, v in w.items()}},
        lambda w: {f"module.{k}": v for k, v in w.items()},
        lambda w: {f"_orig_mod.module.{k}": v for k, v in w.items()},
        lambda w: {"head.weight": torch.zeros(1, 9)} | {f"backbone.{k}": v for k, v in w.items()},
    ],
    ids=["bare", "state_dict", "model", "model_ema", "module", "compiled", "livetrain"],
)
def test_pth(wrap: Any, tmp_path: Path) -> None:
    source, target = backbone(seed=1), backbone(seed=2)
    assert not same(source, target)
    torch.save(wrap(source.state_dict()), tmp_path / "w.pth")
    load_backbone_weights(target, tmp_path / "w.pth")
    assert same(source, target)


def test_safetensors_with_a_classifier(tmp_path: Path) -> None:
    for name in ("test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050"):
        source, target = backbone(name, 1, num_classes=10), backbone(name, 2)
        save_file(source.state_dict(), tmp_path / "w.safetensors")
        load_backbone_weights(target, tmp_path / "w.safetensors")
        x = torch.randn(1, 3, *target.pretrained_cfg["input_size"][1:])  # type: ignore[index, misc, operator]
        torch.testing.assert_close(source.forward_head(source.forward_features(x), pre_logits=True), target(x))  # type: ignore[operator]


def test_own_checkpoint_is_a_source(tmp_path: Path) -> None:
    """The model.safetensors of a run gives its backbone to the next."""
    first = build_model(ModelConfig(backbone="test_resnet", pool="attention"), LossConfig(), 64)
    save_file({k: v.contiguous() for k, v in first.state_dict().items()}, tmp_path / "model.safetensors")
    cfg = ModelConfig(backbone="test_resnet", weights=str(tmp_path / "model.safetensors"))
    assert same(build_model(cfg, LossConfig(), 64).backbone, first.backbone)


SWIN = "swin_tiny_patch4_window7_224", {"img_size": 112, "window_size": 4}


@pytest.mark.parametrize("num_classes", [0, 10])
@pytest.mark.parametrize(
    ("name", "options"), [("test_vit", {"img_size": 96}), pytest.param(*SWIN, marks=pytest.mark.slow)]
)
def test_positions_are_resized(name: str, options: dict[str, int], num_classes: int, tmp_path: Path) -> None:
    source, target = backbone(name, 1, num_classes=num_classes), backbone(name, 2, **options)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_backbone_weights(target, tmp_path / "w.safetensors")
    ours, theirs = target.state_dict(), source.state_dict()
    resized = {key for key in ours if ours[key].shape != theirs[key].shape}
    assert resized and all("pos_embed" in key or "relative_position" in key for key in resized)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() - resized)
    reference = backbone(name, 3, **options)
    reference.load_state_dict(
        timm.models.vision_transformer.checkpoint_filter_fn(dict(theirs), reference), strict=False
    ) if name == "test_vit" else None
    if name == "test_vit":
        assert torch.equal(ours["pos_embed"], reference.state_dict()["pos_embed"])


def test_mismatch_report(tmp_path: Path) -> None:
    weights = backbone().state_dict()
    names = list(weights)
    del weights[names[0]], weights[names[1]]
    weights[names[6]] = torch.zeros(2, 2)
    weights |= {f"extra.{i}": torch.zeros(1) for i in range(7)}
    torch.save(weights, tmp_path / "w.pt")
    target = backbone(seed=3)
    with pytest.raises(UserError) as caught:
        load_backbone_weights(target, tmp_path / "w.pt", name="test_resnet")
    message = str(caught.value)
    assert f"2 missing ({names[0]}, {names[1]})" in message
    assert "7 unexpected (extra.0, extra.1, extra.2, extra.3, extra.4 and 2 more)" in message
    assert f"1 of another shape ({names[6]} (2, 2) for" in message
    assert "w.pt does not fit test_resnet" in message and "model.backbone" in message
    assert same(target, backbone(seed=3)), "nothing was loaded"


@pytest.mark.parametrize("other", ["test_vit", "test_convnext", "test_efficientnet", "swin_tiny_patch4_window7_224"])
def test_weights_of_another_model(other: str, tmp_path: Path) -> None:
    save_file(backbone("test_resnet").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"\d+ missing .*; \d+ unexpected"):
        load_backbone_weights(backbone(other), tmp_path / "w.safetensors")


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("pwned",)


def test_files_that_are_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = tmp_path / "good.safetensors"
    save_file(backbone().state_dict(), good)
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:5000])
    torch.save(backbone().state_dict(), tmp_path / "good.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:5000])
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({"w": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"w": Evil()}))
    (tmp_path / "w.npz").write_bytes(b"x")
    for name, says in [
        ("absent.pth", "no such file"),
        ("cut.safetensors", "not a safetensors file, or damaged"),
        ("cut.pth", "damaged"),
        ("empty.pth", "damaged"),
        ("numbers.pth", "no state dict"),
        ("list.pth", "no state dict"),
        ("evil.pth", "tensors only"),
        ("plain.pth", "tensors only"),
        ("w.npz", "must end in"),
    ]:
        with pytest.raises(UserError, match=says) as caught:
            read_weights(tmp_path / name)
        assert name in str(caught.value)
    assert not (tmp_path / "pwned").exists(), "no code of the file ran"


def test_pretrained_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"model\.pretrained=true.*test_resnet cannot be downloaded.*model\.weights"):
        build_model(ModelConfig(backbone="test_resnet", pretrained=True), LossConfig(), 64)


def test_pretrained_takes_timms_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same path as from the hub, with a file in the place of the download."""
    source = backbone(seed=5, num_classes=1000)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf", lambda *_, **__: load_file(tmp_path / "model.safetensors")
    )
    model = build_model(ModelConfig(backbone="test_resnet", pretrained=True), LossConfig(), 64)
    source.reset_classifier(0)  # type: ignore[operator]
    assert same(model.backbone, source)


@pytest.mark.parametrize(
    ("file", "name"), [("mobilenetv2_100",) * 2, pytest.param(*("tf_efficientnet_lite0",) * 2, marks=pytest.mark.slow)]
)
def test_real_weights(file: str, name: str) -> None:
    path = REAL / f"{file}.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository, in shared/weights")
    cfg = ModelConfig(backbone=name, weights=str(path))
    model = build_model(cfg, LossConfig(), 96)
    in_file, loaded = load_file(path), model.backbone.state_dict()
    assert len(loaded) > 200 and all(torch.equal(loaded[key], in_file[key]) for key in loaded)
    with pytest.raises(UserError, match="does not fit mobilenetv3_small_050: .*missing"):
        build_model(ModelConfig(backbone="mobilenetv3_small_050", weights=str(path)), LossConfig(), 96)
