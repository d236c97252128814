"""The liveness model: backbone on each frame, pooling over the clip's frames, dropout, one linear head.

model = build_model(config.model, config.loss, config.data.image_size).to(device)
prepare_model(model, config.model, device, num_processes)   # for training: sync BN, torch.compile
p = p_live(model(clips))
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from livetrain.config import LossConfig, ModelConfig
from livetrain.config.domains import DomainsConfig, is_contrastive
from livetrain.core.errors import UserError
from livetrain.model import lora, patch_tokens
from livetrain.model.backbone import Triple, build_backbone, normalization, num_features
from livetrain.model.domain_losses import domain_head, reverse_gradient
from livetrain.model.freezing import freeze
from livetrain.model.keyed_dropout import KeyedDropout, SampleKeys, with_keys
from livetrain.model.pooling import ThumbnailPool, build_pool

HEAD = 10_000  # the noise layer's number of the head; those of the backbone are below


class Outputs(NamedTuple):
    """What a model gives in training, where more than logits is asked of it.

    logits: [B] or [B,2]. kinds: logits of live and each of loss.attack_types [B, 1 + K]. domains: logits of each of
    domains.names. features: of clips [B,D], before dropout. patches: logits of each patch, [B,P] or [B,P,2] with those
    of all frames, and its attention [B,P], which sums to 1.
    """

    logits: Tensor
    kinds: Tensor | None = None
    domains: Tensor | None = None
    features: Tensor | None = None
    patches: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def of(outputs: Tensor | Outputs) -> Outputs:
        return Outputs(outputs) if isinstance(outputs, Tensor) else outputs


class LivenessModel(nn.Module):
    """Clips [B,F,3,H,W] → logits: [B] of "live" with one output, [B,2] of (attack, live) with two.

    In training Outputs, where loss.attack_types or `domains` ask for more. domain_weights: float32 [2 x domains], the
    weights of attacks and live clips of each domain in the loss (domains.weighting=dro).

    mean, std: what the clips must be normalised with, on the scale 0 to 1. A frozen backbone stays in evaluation mode
    (its batch statistics and drop path too) and keeps no activations. noise.clips: see livetrain.model.keyed_dropout;
    the trainer sets it for each micro-batch.
    """

    def __init__(
        self,
        backbone: nn.Module,
        cfg: ModelConfig,
        *,
        num_outputs: int,
        mean: Triple,
        std: Triple,
        num_attack_types: int = 0,
        domains: DomainsConfig | None = None,
        gives_patches: bool = False,
    ) -> None:
        """Raises UserError where model.freeze names nothing of the backbone, or it has no patches to give."""
        super().__init__()
        dim = num_features(backbone)
        self.backbone = backbone
        self.pool = build_pool(cfg.pool, dim)
        self.noise = SampleKeys()
        with_keys(backbone, self.noise)
        self.dropout = KeyedDropout(cfg.dropout, self.noise, HEAD)
        self.head = nn.Linear(dim, num_outputs)
        self.attack_head = nn.Linear(dim, 1 + num_attack_types) if num_attack_types else None
        domains = domains or DomainsConfig()
        self.domain_head = domain_head(dim, len(domains.names)) if domains.adversary else None
        if domains.weighting == "dro":
            groups = 2 * len(domains.names)
            self.register_buffer("domain_weights", torch.full((groups,), 1 / groups))
        self.gives_features, self.gives_patches = is_contrastive(domains), gives_patches
        if gives_patches:
            patch_tokens.check(cfg.backbone, backbone)
        self.frozen, self.channels_last, self.mean, self.std = cfg.freeze_backbone, cfg.channels_last, mean, std
        if self.frozen:
            backbone.requires_grad_(False).eval()
        self.frozen_modules = freeze(backbone, cfg)
        if self.channels_last:
            _to_channels_last(self)

    def train(self, mode: bool = True) -> LivenessModel:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        for name in self.frozen_modules:
            self.backbone.get_submodule(name).eval()
        return self

    def features(self, clips: Tensor) -> Tensor:
        """Clips [B,F,3,H,W] → features of each frame [B,F,D]. Half-precision clips are cast where no autocast is."""
        return self._features(clips, with_patches=False)[0]

    def _features(self, clips: Tensor, *, with_patches: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(as `features`; of each picture that the backbone sees, [N,D], and of its patches, [N,P,D], or None)."""
        if not torch.is_autocast_enabled(clips.device.type):
            clips = clips.to(self.head.weight.dtype)
        num_alike = 1
        if isinstance(self.pool, ThumbnailPool):
            clips, num_alike = self.pool.arranged(clips), ThumbnailPool.FRAMES
        frames = clips.flatten(0, 1)
        if self.channels_last:
            frames = frames.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if with_patches:
                seen, patches = patch_tokens.features_and_patches(self.backbone, frames)
            else:
                seen, patches = self.backbone(frames), None
        features: Tensor = seen.unflatten(0, clips.shape[:2])
        features = features if num_alike == 1 else torch.stack([features] * num_alike, dim=2).flatten(1, 2)
        return features, seen, patches

    def forward(
        self, clips: Tensor, per_frame: bool = False, reversal: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...] | Outputs:
        """Clips [B,F,3,H,W] → logits [B] or [B,2].

        reversal: share of the gradient of the domain's head that is reversed (a scalar). per_frame: also those of each
        frame, [B,F] or [B,F,2], and shares [B,F].

        A frame's logits are those of its features alone. With mean and attention pooling the clip's logits are their
        mean weighted by the shares (1/F; the attention), which sum to 1; a transformer adds to them what it makes of
        the frames together. With max pooling no frame has a share of
        its own: each feature is that of the frame where it is largest, and the share is how many features a frame gave.
        """
        features, seen, patches = self._features(clips, with_patches=self.training and self.gives_patches)
        pooled = self.pool(features)
        logits = self._classify(pooled)
        if self.training and (self.attack_head or self.domain_head or self.gives_features or self.gives_patches):
            kinds = self.attack_head(self.dropout(pooled)) if self.attack_head else None
            domains = None
            if self.domain_head and reversal is not None:
                domains = self.domain_head(reverse_gradient(pooled, reversal))
            of_patches = None if seen is None or patches is None else self._judge(len(clips), seen, patches)
            return Outputs(logits, kinds, domains, pooled if self.gives_features else None, of_patches)
        if not per_frame:
            return logits
        return logits, self._classify(features), self.pool.shares(features)  # type: ignore[operator]

    def _judge(self, num_clips: int, seen: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs.patches, of pictures [N,D] and their patches [N,P,D]; those of a clip's pictures count alike."""
        logits = self.head(patches)
        logits = logits.squeeze(-1) if self.head.out_features == 1 else logits
        shares = patch_tokens.attention(seen, patches) * num_clips / len(seen)
        return logits.unflatten(0, (num_clips, -1)).flatten(1, 2), shares.unflatten(0, (num_clips, -1)).flatten(1)

    def _classify(self, features: Tensor) -> Tensor:
        """Features [...,D] → logits [...] or [...,2]."""
        logits = self.head(self.dropout(features))
        return logits.squeeze(-1) if self.head.out_features == 1 else logits


def build_model(
    cfg: ModelConfig, loss: LossConfig, image_size: int | None, domains: DomainsConfig | None = None
) -> LivenessModel:
    """The model of the configuration, on the CPU, float32, in training mode; two outputs for the loss "ce", else one.

    image_size: side of the square pictures, pixels; None: the backbone's own. domains: what training needs beside; none
    for a model that scores. Initial weights come from torch's global generator. Raises UserError (see
    livetrain.model.backbone).
    """
    backbone = build_backbone(cfg, image_size)
    lora.add(backbone, cfg)
    mean, std = normalization(backbone, cfg.normalization)
    num_outputs, num_attack_types = 2 if loss.name == "ce" else 1, len(loss.attack_types)
    return LivenessModel(
        backbone, cfg, num_outputs=num_outputs, mean=mean, std=std, num_attack_types=num_attack_types, domains=domains,
        gives_patches=loss.patch_tokens > 0,
    ).train()  # fmt: skip


def prepare_model(
    model: LivenessModel,
    cfg: ModelConfig,
    device: torch.device,
    num_processes: int,
    *,
    backend: str = "inductor",
    blocks: Sequence[nn.Module] | None = None,
) -> None:
    """What training adds, in place: synchronised batch norm and torch.compile. Names in the state dict stay.

    Call it before the optimizer and DDP. Batch norm over one process is synchronised by nature, and a frozen backbone
    has no batch statistics: then nothing is converted. Raises UserError for sync_bn over CPU processes (torch's
    SyncBatchNorm has no CPU implementation) or without any batch norm, and for compile without a C++ compiler. blocks:
    what is compiled one by one instead of the whole (FSDP2 gathers their weights in between).
    """
    if cfg.sync_bn and not cfg.freeze_backbone:
        _synchronise_batch_norm(model, cfg, device, num_processes)
    if cfg.grad_checkpointing and not cfg.freeze_backbone:
        _count_batches_once(model)
    if cfg.compile:
        if backend == "inductor" and not _has_compiler(device):
            raise UserError("model.compile=true needs a C/C++ compiler (Debian: apt-get install g++), found none")
        for module in (model,) if blocks is None else blocks:
            module.compile(backend=backend)


def p_live(logits: Tensor) -> Tensor:
    """Logits [B] or [B,2] → probability of live, float32 [B]. Column 1 of two is live."""
    return torch.sigmoid(live_logit(logits, 1))


def live_logit(logits: Tensor, dims: int) -> Tensor:
    """Logits of "live", or of (attack, live) in a last dimension beyond `dims` → float32 log-odds of live."""
    logits = logits.float()
    return logits if logits.ndim == dims else logits[..., 1] - logits[..., 0]


def _synchronise_batch_norm(model: LivenessModel, cfg: ModelConfig, device: torch.device, num_processes: int) -> None:
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise UserError(f"model.backbone={cfg.backbone} has no batch norm; set model.sync_bn=false")
    if num_processes == 1:
        return
    if device.type != "cuda":
        raise UserError(
            f"model.sync_bn=true needs CUDA: torch's SyncBatchNorm does not run on {device.type}; "
            "set model.sync_bn=false, or choose a backbone with layer or group norm"
        )
    # timm's, not torch's: torch's would lose the activation that timm's batch norm layers hold
    model.backbone = convert_sync_batchnorm(model.backbone)


def _count_batches_once(model: nn.Module) -> None:
    """Keep batch norm from updating its statistics while activations are recomputed.

    In the backward pass they have seen the batch already.
    """
    kept: dict[nn.Module, tuple[float, torch.Tensor]] = {}  # of those that are recomputing

    def before(module: Any, _: Any) -> None:
        if torch._C._current_graph_task_id() != -1:  # in a backward pass, as torch.utils.checkpoint asks
            kept[module] = module.momentum, module.num_batches_tracked.clone()
            module.momentum = 0.0

    def after(module: Any, *_: Any) -> None:
        if module in kept:
            module.momentum, num_batches = kept.pop(module)
            module.num_batches_tracked.copy_(num_batches)

    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats and module.momentum is not None:
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after, always_call=True)


def _to_channels_last(model: nn.Module) -> None:
    """Lay out the model's weights channels last, in place.

    Not `Module.to`, which refuses weights that two layers share (CoaT).

    torch 2.14 writes beyond its memory in the backward pass of a strided 1x1 convolution over fewer than 16 channels
    with channels last on the CPU (FastViT's stem; a segmentation fault sooner or later): such a layer keeps its layout.
    """
    spared = [module for module in model.modules() if isinstance(module, nn.Conv2d) and _overruns(module)]
    weights = {id(module.weight) for module in spared}
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.ndim == 4 and id(tensor) not in weights:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    for module in spared:
        module.register_forward_pre_hook(_dense_on_cpu)


def _overruns(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.groups == 1 and conv.in_channels < 16


def _dense_on_cpu(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(item.contiguous() if item.device.type == "cpu" else item for item in inputs)


def _has_compiler(device: torch.device) -> bool:
    """Whether inductor finds what it compiles with: C++ on the CPU; on CUDA Triton's launcher needs C."""
    named = os.environ.get("CXX" if device.type == "cpu" else "CC")
    found = ("g++", "clang++") if device.type == "cpu" else ("gcc", "clang")
    return any(shutil.which(name) for name in (named, *found) if name)
