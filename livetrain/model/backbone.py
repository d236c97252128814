"""The backbone: any timm model by name, without its classifier, at the picture size that is wanted.

Where timm's own message would be a traceback (an unknown name, no network, a size the network cannot take), a
UserError says what to set instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import timm
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath
from timm.models import parse_model_name, resolve_model_input_args, split_model_name_tag
from torch import nn

from livetrain.config import ModelConfig
from livetrain.core.errors import UserError, first_line
from livetrain.model.fake_forward import fake_forward
from livetrain.model.weights import load_backbone_weights

Triple = tuple[float, float, float]

_FITTING: set[tuple[str, int | None]] = set()
"""Backbones and sizes that were checked in this process: members of an ensemble, folds, trials are the same one."""


def build_backbone(cfg: ModelConfig, image_size: int | None) -> nn.Module:
    """The timm model of `cfg` as pictures [N,3,H,W] → features [N, num_features(backbone)], with its weights loaded.

    `image_size` (pixels, square; None: the model's own) is passed to architectures that are built for one size (ViT,
    Swin, MaxViT, ...), and a forward pass on fake tensors checks that the network takes it. Raises UserError for an
    unknown name, a failed download, an option that this backbone does not have, a file that does not fit.
    """
    arguments = _model_arguments(cfg.backbone, image_size)
    if cfg.drop_path and not cfg.freeze_backbone:
        arguments["drop_path_rate"] = cfg.drop_path
    backbone = _create(cfg.backbone, arguments, image_size)
    if (cfg.backbone, image_size) not in _FITTING:
        _check_size(cfg.backbone, backbone, image_size)
        _FITTING.add((cfg.backbone, image_size))
    if cfg.weights:
        load_backbone_weights(backbone, cfg.weights, name=cfg.backbone)
    elif cfg.pretrained:
        backbone = _create_pretrained(cfg.backbone, arguments)
    if cfg.grad_checkpointing and not cfg.freeze_backbone:
        try:
            backbone.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AssertionError, AttributeError):
            raise UserError(
                f"model.backbone={cfg.backbone} cannot recompute activations; set model.grad_checkpointing=false"
            ) from None
    return backbone


def num_features(backbone: nn.Module) -> int:
    """Length of the feature vector that the backbone makes of a picture."""
    return int(backbone.head_hidden_size)  # type: ignore[arg-type]


def normalization(backbone: nn.Module, kind: str) -> tuple[Triple, Triple]:
    """(mean, standard deviation) of pixels on the scale 0 to 1; kind: auto (the timm model's own), imagenet, half."""
    if kind == "imagenet":
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    if kind == "half":
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if kind != "auto":
        raise UserError(f"model.normalization={kind!r} is not one of auto, imagenet, half")
    own: Any = backbone.pretrained_cfg
    return _triple(own["mean"]), _triple(own["std"])


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _model_arguments(name: str, image_size: int | None) -> dict[str, Any]:
    """Arguments of timm.create_model; looks the name up without building anything."""
    if not parse_model_name(name)[0]:  # names like hf-hub:owner/model and local-dir:path are timm's to look up
        _check_name(name)
    try:
        found = resolve_model_input_args(name, {"img_size": image_size})
    except Exception as error:  # a hub name: whatever its client raises
        raise UserError(f"model.backbone={name} cannot be found: {first_line(error)}") from None
    return {"num_classes": 0, **({"img_size": found["img_size"]} if "img_size" in found else {})}


def _check_name(name: str) -> None:
    architecture, tag = split_model_name_tag(name)
    if not timm.is_model(architecture):
        raise UserError(f"model.backbone={name} is not a timm model; {_near(architecture, timm.list_models())}")
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in tagged:
        known = ", ".join(tagged) or "none"
        raise UserError(f"model.backbone={name}: timm has no weights named {tag!r} for {architecture}; known: {known}")


def _near(name: str, known: list[str]) -> str:
    """A hint with the names most like `name`."""
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    return "timm.list_models() lists the names"


def _create(name: str, arguments: dict[str, Any], image_size: int | None) -> nn.Module:
    try:
        backbone = timm.create_model(name, **arguments)
    except TypeError as error:
        if "drop_path_rate" in str(error):
            raise UserError(f"model.backbone={name} has no stochastic depth; set model.drop_path=0") from None
        raise
    except (AssertionError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise _size_error(name, image_size, error) from None
    dropping = [m for m in backbone.modules() if isinstance(m, DropPath) and m.drop_prob]
    if arguments.get("drop_path_rate") and not dropping:
        raise UserError(f"model.backbone={name} has no stochastic depth; set model.drop_path=0")
    return backbone


def _create_pretrained(name: str, arguments: dict[str, Any]) -> nn.Module:
    """The model with timm's weights, from the hub or its local cache."""
    try:
        return timm.create_model(name, pretrained=True, **arguments)
    except Exception as error:  # no network, no such file, a hub that is down: each client has errors of its own
        raise UserError(
            f"model.pretrained=true, but timm's weights of {name} cannot be downloaded "
            f"({type(error).__name__}: {first_line(error)}); without a network, set model.weights to a local file"
        ) from None


def _check_size(name: str, backbone: nn.Module, image_size: int | None) -> None:
    own: Any = backbone.pretrained_cfg
    height, width = (image_size, image_size) if image_size else own["input_size"][-2:]
    try:
        features = fake_forward(backbone, (2, 3, height, width))  # batch norm refuses one value a channel
    except (AssertionError, ValueError, RuntimeError) as error:
        raise _size_error(name, image_size, error) from None
    if tuple(features.shape) != (2, num_features(backbone)):
        raise UserError(
            f"model.backbone={name} gives no vector a picture but {tuple(features.shape)} for two; choose another"
        )


def check_single_frame(name: str, backbone: nn.Module, image_size: int) -> None:
    """Raises UserError for a backbone that cannot train on one frame of one clip: batch norm over a single value."""
    try:
        fake_forward(backbone, (1, 3, image_size, image_size))
    except ValueError as error:
        raise UserError(
            f"model.backbone={name} cannot train on one frame at once ({first_line(error)}): give each process two by "
            "data.num_frames, train.global_batch or a smaller train.accumulation"
        ) from None


def _size_error(name: str, image_size: int | None, error: Exception) -> UserError:
    own = timm.get_pretrained_cfg(name)
    native = f"; it was made for {own.input_size[-1]}" if own and own.input_size else ""
    return UserError(
        f"model.backbone={name} cannot be built for pictures of {image_size} pixels ({first_line(error)}); "
        f"set data.image_size to another multiple of 32{native}"
    )
