"""Weights of a backbone from a local file, all of them or a clear report of what does not fit.

Reads safetensors and torch.save files (tensors only: no pickled code runs), bare or within a training checkpoint,
with the prefixes that wrappers leave. Position embeddings made for another picture size are resized, and old key
names translated, by timm's own filter for the architecture.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from livetrain.core.errors import UserError, first_line

# Where training checkpoints keep the weights; averaged ones first, as timm does.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.")
_BACKBONE = "backbone."
_SHOWN = 5


def load_backbone_weights(backbone: nn.Module, path: str | Path, *, name: str = "the backbone") -> None:
    """Load the file's weights into a timm model built with num_classes=0, in place.

    Every parameter and buffer but batch norm's counter must be in the file with its shape, and the file may hold
    nothing else but timm's classifier, which is dropped. Raises UserError that counts and names what is missing,
    unexpected or of another shape; the backbone is then unchanged.
    """
    expected = backbone.state_dict()
    weights = _fit(backbone, _own_keys(read_weights(path), expected), expected)
    # A count of batches that only a cumulative average reads; files from before torch 0.4.1 lack it.
    weights |= {key: expected[key] for key in expected if key.endswith("num_batches_tracked") and key not in weights}
    missing = [key for key in expected if key not in weights]
    unexpected = [key for key in weights if key not in expected]
    wrong = [
        f"{key} {tuple(weights[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    if missing or unexpected or wrong:
        parts = [_listed("missing", missing), _listed("unexpected", unexpected), _listed("of another shape", wrong)]
        raise UserError(
            f"model.weights={path} does not fit {name}: {'; '.join(part for part in parts if part)}. "
            f"Set model.backbone to the model that the file was saved from"
        )
    backbone.load_state_dict(weights, strict=True)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors, .pth, .pt or .bin file, on the CPU, without wrappers' prefixes.

    Raises UserError when the file is missing, damaged, or holds anything but tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"model.weights={path}: no such file")
    if file.suffix == ".safetensors":
        try:
            content: Any = safetensors.torch.load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"model.weights={path} is not a safetensors file, or damaged: {error}") from None
    elif file.suffix in (".pth", ".pt", ".bin", ".tar"):
        content = _torch_load(file)
    else:
        raise UserError(f"model.weights={path}: the name must end in .safetensors, .pth, .pt or .bin")
    if isinstance(content, Mapping):
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"model.weights={path} holds no state dict: names and tensors, bare or under 'state_dict'")
    return {_without_prefixes(key): tensor for key, tensor in content.items()}


def _torch_load(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"model.weights={file} cannot be read as tensors only ({first_line(error)}); "
            f"save its state_dict alone, best as .safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"model.weights={file} is damaged or no torch file: {first_line(error)}") from None


def _without_prefixes(key: str) -> str:
    while key.startswith(_PREFIXES):
        for prefix in _PREFIXES:
            key = key.removeprefix(prefix)
    return key


def _own_keys(weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Only the backbone's part of a whole model's weights (a livetrain checkpoint: backbone., pool., head.)."""
    if any(key.startswith(_BACKBONE) for key in expected) or not any(key.startswith(_BACKBONE) for key in weights):
        return weights
    return {key.removeprefix(_BACKBONE): tensor for key, tensor in weights.items() if key.startswith(_BACKBONE)}


def _fit(backbone: nn.Module, weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the classifier; if they are not the backbone's yet, as timm's filter translates them."""
    classifiers = _classifier_names(backbone)

    def without_classifier(values: dict[str, Tensor]) -> dict[str, Tensor]:
        dropped = {f"{name}.{kind}" for name in classifiers for kind in ("weight", "bias")} - set(expected)
        return {key: tensor for key, tensor in values.items() if key not in dropped}

    bare = without_classifier(weights)
    fits = bare.keys() == expected.keys() and all(bare[key].shape == expected[key].shape for key in expected)
    translate = None if fits else _timm_filter(backbone)
    if translate is None:
        return bare
    if bare.keys() == expected.keys():
        # Only shapes differ. Some filters (Swin's) take weights without a classifier for an older naming: show one.
        some = next(iter(bare.values()))
        bare = bare | {f"{name}.weight": some.new_zeros(1) for name in classifiers}
    try:
        return without_classifier(translate(bare, backbone))
    except (KeyError, RuntimeError, AttributeError, ValueError, IndexError, AssertionError):
        return without_classifier(weights)  # not weights of this architecture: the report says how


def _classifier_names(backbone: nn.Module) -> tuple[str, ...]:
    cfg: Any = getattr(backbone, "pretrained_cfg", None) or {}
    names = cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _timm_filter(backbone: nn.Module) -> Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] | None:
    """Timm's checkpoint_filter_fn of the architecture's module, if it has one."""
    module = sys.modules[type(backbone).__module__]
    return getattr(module, "checkpoint_filter_fn", None)


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})"
