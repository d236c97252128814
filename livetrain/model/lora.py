"""Low-rank updates of a backbone's linear layers, by the package peft: model.lora_rank.

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022: a layer computes W x + (alpha / rank) B A x,
of which A and B are trained and W stays. A model that scores has W + (alpha / rank) B A in place of the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from livetrain.config import ModelConfig
from livetrain.core.errors import UserError

LACKING = "model.lora_rank needs the package peft: pip install livetrain[lora]"
BASE, FIRST, SECOND = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"  # as peft names them


def add(backbone: nn.Module, cfg: ModelConfig) -> None:
    """Give the layers that model.lora_targets names their updates, in place; nothing else of the backbone is trained.

    Initial values come from torch's global generator. Raises UserError without the package, and where a target names no
    linear layer.
    """
    if not cfg.lora_rank:
        return
    peft = _peft()
    for target in cfg.lora_targets:
        found = [module for name, module in backbone.named_modules() if f".{name}".endswith(f".{target}")]
        if not found or not all(isinstance(module, nn.Linear) for module in found):
            raise UserError(
                f"model.lora_targets: {target!r} names {'other layers than linear ones' if found else 'no layer'} of "
                f"model.backbone={cfg.backbone}; its linear layers end in: {', '.join(_endings(backbone))}"
            )
    options = peft.LoraConfig(r=cfg.lora_rank, lora_alpha=cfg.lora_alpha, target_modules=list(cfg.lora_targets))
    peft.inject_adapter_in_model(options, backbone)


def merged(weights: Mapping[str, Tensor], cfg: ModelConfig) -> dict[str, Tensor]:
    """A model's weights with the updates added to those they are of: the names are those of a model without."""
    if not cfg.lora_rank:
        return dict(weights)
    found = {}
    for name, tensor in weights.items():
        if name.endswith((FIRST, SECOND)):
            continue
        layer, base, rest = name.partition(BASE)
        if base and rest == "weight":
            update = weights[layer + SECOND].float() @ weights[layer + FIRST].float()
            tensor = (tensor.float() + cfg.lora_alpha / cfg.lora_rank * update).to(tensor.dtype)
        found[f"{layer}.{rest}" if base else name] = tensor
    return found


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise UserError(LACKING) from None
    return peft


def _endings(backbone: nn.Module) -> list[str]:
    """The last two parts of the names of linear layers, each once."""
    names = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    return sorted({".".join(name.split(".")[-2:]) for name in names})
