"""The keys of the configuration: one dataclass a section, defaults and bounds, a docstring under each field."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from livetrain.config.augment import AugmentConfig
from livetrain.config.data import DataConfig
from livetrain.config.domains import DomainsConfig
from livetrain.config.fields import choice, number, probability


@dataclass
class ModelConfig:
    """The backbone, how frames become one clip, and how the network runs."""

    backbone: str = "tf_efficientnet_b0"
    """Name of a timm model."""
    pretrained: bool = False
    """Take timm's weights from the hub (a download)."""
    weights: str = ""
    """Local file of backbone weights, .safetensors or .pth."""
    pool: str = choice("mean", "max", "attention", "transformer", "difference", "thumbnail")
    """How the features of a clip's frames become one vector; thumbnail: four frames are one picture, two by two."""
    dropout: float = number(0.0, 0.0, 0.99)
    """Dropout before the head."""
    drop_path: float = number(0.0, 0.0, 0.99)
    """Stochastic depth of the backbone."""
    freeze_backbone: bool = False
    """Train pooling and head alone."""
    freeze: list[str] = field(default_factory=list)
    """Parts of the backbone that are not trained, by the beginnings of their names: [patch_embed, blocks.0.]."""
    unfreeze_last: int = number(0, 0)
    """Train the backbone's last blocks alone, so many, and what follows them; 0: all."""
    lora_rank: int = number(0, 0)
    """Train low-rank updates of linear layers in place of the backbone's own weights, of this rank; 0: none."""
    lora_alpha: float = number(16.0, 0.001)
    """Their scale: they count alpha / rank."""
    lora_targets: list[str] = field(default_factory=lambda: ["attn.qkv", "attn.proj"])
    """Endings of the names of the linear layers that have one."""
    channels_last: bool = True
    """Memory format of the weights and pictures; faster convolutions."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """torch.compile the network."""
    sync_bn: bool = False
    """Batch statistics over all processes (CUDA)."""
    normalization: str = choice("auto", "imagenet", "half")
    """Mean and deviation of pixels: those of the timm model, ImageNet's, or 0.5 and 0.5."""


@dataclass
class LossConfig:
    """The loss of a clip."""

    name: str = choice("bce", "ce", "focal")
    """Binary cross-entropy, two-class cross-entropy, or focal loss (Lin et al., 2017)."""
    label_smoothing: float = number(0.0, 0.0, 0.99)
    """Share of the label given to both classes evenly."""
    focal_gamma: float = number(2.0, 0.0)
    """Focusing exponent of the focal loss."""
    live_weight: float = number(1.0, 0.0)
    """Weight of live clips."""
    attack_weight: float = number(1.0, 0.0)
    """Weight of attack clips."""
    attack_types: list[str] = field(default_factory=list)
    """Attack types that a second head learns to name beside live, in training alone: [print, replay]; empty: none."""
    attack_types_weight: float = number(0.3, 0.0)
    """Weight of that head's cross-entropy, which is added to the loss of a clip."""
    patch_tokens: float = number(0.0, 0.0)
    """Weight of the loss of each patch of a ViT by itself, in proportion to its attention; 0: none."""


@dataclass
class OptimConfig:
    """The optimizer and the schedule of its learning rate."""

    name: str = "adamw"
    """Name of a timm optimizer."""
    lr: float = number(3e-4, 0.0)
    """Peak learning rate."""
    weight_decay: float = number(0.05, 0.0)
    """Weight decay of matrices and kernels; norms and biases have none."""
    beta1: float = number(0.9, 0.0, 0.999999)
    """First moment's decay (Adam family)."""
    beta2: float = number(0.999, 0.0, 0.999999)
    """Second moment's decay (Adam family)."""
    momentum: float = number(0.9, 0.0, 0.999999)
    """Momentum (SGD family)."""
    layer_decay: float = number(1.0, 0.0, 1.0)
    """Learning rate of each layer over that of the next one nearer to the head; 1: all alike."""
    clip_grad_norm: float = number(0.0, 0.0)
    """Largest norm of the gradient; 0: no clipping."""
    clip_grad_value: float = number(0.0, 0.0)
    """Largest value in the gradient, after that; 0: no clipping."""
    clip_agc: float = number(0.0, 0.0)
    """Largest norm of a unit's gradient over its weights' (Brock et al., 2021), the heads left out; 0: no clipping."""
    schedule: str = "cosine"
    """constant, or the name of a timm scheduler: cosine, tanh, step, multistep, poly."""
    warmup_steps: int = number(0, 0)
    """Steps over which the learning rate rises linearly to its peak; half of a run that is not longer than that."""
    min_lr_ratio: float = number(0.01, 0.0, 1.0)
    """Last learning rate over the peak."""


@dataclass
class TrainConfig:
    """Length, batch and arithmetic of the run."""

    epochs: float = number(10.0, 1e-6)
    """Passes over the training split."""
    max_steps: int = number(0, 0)
    """Updates of the run; 0: as many as train.epochs take."""
    global_batch: int = number(32, 1)
    """Clips of an update, over all processes and accumulation: it does not change with the machine."""
    accumulation: int = number(1, 1)
    """Micro-batches of an update on each process."""
    precision: str = choice("fp32", "bf16", "fp16")
    """Arithmetic of the forward and backward pass."""
    on_non_finite: str = choice("stop", "skip")
    """An update whose loss or gradient is NaN or Inf: end the run, or leave it out (each then waits for the device)."""
    ema_decay: float = number(0.0, 0.0, 0.999999)
    """Decay of an exponential moving average of the weights; 0: none."""
    ema_warmup: bool = True
    """The decay rises from 0, so that an average that is used early is not of the initial weights."""
    swa_start: float = number(1.0, 0.0, 1.0)
    """Share of the run from which the weights of all updates are averaged evenly, in place of ema_decay; 1: never."""
    swa_bn_updates: int = number(20, 1)
    """Updates whose clips give that average its batch statistics, before each evaluation."""
    patience: int = number(0, 0)
    """End training after so many evaluations of dev in a row that were not the best so far; 0: never."""
    deterministic: bool = False
    """Only kernels that give the same bits every time (slower on CUDA, and some operations have none)."""
    tf32: bool = False
    """On CUDA, multiply float32 matrices in TensorFloat-32: faster, with 10 bits behind the point."""
    cudnn_benchmark: bool = False
    """Have cuDNN try its convolutions and take the fastest; which one may differ from run to run."""
    log_every: int = number(10, 1)
    """Updates between log lines."""
    eval_every_epochs: float = number(1.0, 0.0)
    """Epochs between evaluations of the dev split; 0: at the end alone."""
    save_every_steps: int = number(500, 0)
    """Updates between checkpoints; 0: at the end alone."""
    save_every_minutes: float = number(0.0, 0.0)
    """Minutes between checkpoints, besides save_every_steps; 0: none by time."""
    keep_last: int = number(2, 1)
    """Checkpoints kept besides the best."""
    keep_every_steps: int = number(0, 0)
    """Checkpoints whose step is a multiple of it are kept for good; 0: none."""
    hang_timeout_seconds: float = number(300.0, 1.0)
    """A process without progress for so long ends the run, naming the rank that is behind; more for a long compile."""


@dataclass
class DdpConfig:
    """How gradients of several processes are averaged (torch's DistributedDataParallel)."""

    bucket_mb: float = number(25.0, 0.001)
    """Size of the buckets (MiB) in which gradients are averaged during the backward pass, each when it is full."""
    bucket_view: bool = True
    """Gradients are views of the buckets: saves a copy of them in memory and in time."""
    static_graph: bool = False
    """The network does the same every time: DDP learns the order of gradients once. Needs train.accumulation=1."""
    compression: str = choice("none", "bf16", "fp16")
    """Gradients travel in half precision: half the traffic, and rounded."""


@dataclass
class FsdpConfig:
    """What travels between processes where weights are in shards (launch/fsdp2.yaml, launch/hsdp.yaml)."""

    param_dtype: str = choice("fp32", "bf16")
    """Weights are gathered so: bf16 halves the traffic and the gathered weights; shards and moments stay float32."""
    reduce_dtype: str = choice("fp32", "bf16")
    """Gradients are averaged so: bf16 halves the traffic, and rounds."""


@dataclass
class EvalConfig:
    """How a split is scored."""

    num_frames: int = number(8, 0)
    """Frames of a video, evenly spaced; 0: all of them, a video at a time."""
    batch_size: int = number(32, 1)
    """Videos a process scores at once."""
    aggregate: str = choice("model", "mean", "median", "max", "topk", "trimmed")
    """Score of a video: by the model's own pooling, or from the scores of its frames."""
    top_frames: int = number(3, 1)
    """How many frames, those with the highest scores, eval.aggregate=topk averages."""
    trim: float = number(0.25, 0.0, 0.49)
    """Share of the frames that eval.aggregate=trimmed leaves out at either end."""
    tta: str = choice("none", "flip", "five_crop", "ten_crop")
    """Views of a video whose scores are averaged: mirrored too; corners and centre; those and mirrored."""
    use_ema: bool = True
    """Score the average of the weights, where there is one."""
    robustness: bool = False
    """Score the test split also cropped, downscaled, recompressed, recoloured, blurred and shortened, 14 ways."""
    criterion: str = choice("eer", "auc", "loss")
    """Dev metric that chooses the best checkpoint."""
    shifted_dev: bool = False
    """Evaluate dev also shifted: every clip changed in one of the 14 ways of eval.robustness, always the same."""
    watch: str = ""
    """Another split that is scored at every evaluation of dev, for `livetrain protocol`: it chooses nothing."""
    select_on: str = choice("dev", "shifted", "worst")
    """Where the best checkpoint is chosen: dev, shifted dev, or the worse of the two (both need eval.shifted_dev)."""


@dataclass
class PredictConfig:
    """`livetrain predict`: scores of videos without labels."""

    failed_score: float = probability(0.0)
    """Score in submission.csv of a video that cannot be decoded; 0 refuses it."""


@dataclass
class VerdictConfig:
    """How the threshold is chosen on dev, and how intervals are made."""

    criterion: str = choice("eer", "min_hter", "bpcer20", "max_apcer", "cost")
    """eer: both errors alike. min_hter: least mean of them. bpcer20: no attack type's APCER above 5 %."""
    max_apcer: float = probability(0.01)
    """Largest APCER of any attack type on dev, with criterion=max_apcer."""
    attack_cost: float = number(10.0, 0.0)
    """Cost of an accepted attack, with criterion=cost; attacks and live people count as equally frequent."""
    live_cost: float = number(1.0, 0.0)
    """Cost of a refused live person, with criterion=cost."""
    confidence: float = number(0.95, 0.5, 0.999)
    """Level of the intervals."""


@dataclass
class TrackingConfig:
    """Weights & Biases; metrics.jsonl in the run directory is written whatever is set here."""

    wandb: str = choice("auto", "online", "offline", "disabled")
    """auto: online where a key is found, else offline."""
    project: str = "livetrain"
    """W&B project."""
    entity: str = ""
    """W&B team or user; empty: the key's own."""
    group: str = ""
    """W&B group; empty: the run's name."""
    worst_clips: int = number(16, 0, 200)
    """Worst-scored clips shown in the report and in W&B."""


@dataclass
class RunConfig:
    """How a run directory is used."""

    fork: bool = False
    """Continue although data, seed, batch or model differ from those the run began with."""


@dataclass
class Config:
    """The whole configuration."""

    name: str = "run"
    """Name of the run."""
    run_dir: str = ""
    """Directory of the run; empty: runs/<name>."""
    seed: int = number(0, 0, 2**62)
    """Seed of everything: initial weights, order of the samples, frames, augmentations, dropout."""
    dry_run: bool = False
    """Print the plan of the run and stop."""
    profile: bool = False
    """Write a torch trace of updates 13 to 17 of each process to run_dir/profile."""
    resume: str = "auto"
    """auto: resume from the run directory's newest checkpoint; never: there must be none; PATH: begin there if none."""
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    domains: DomainsConfig = field(default_factory=DomainsConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    ddp: DdpConfig = field(default_factory=DdpConfig)
    fsdp: FsdpConfig = field(default_factory=FsdpConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@functools.cache
def known_keys() -> Mapping[str, Any]:
    """Every key (`section.name`) and its field."""
    return MappingProxyType(dict(_fields(Config)))


def value_of(config: Config, key: str) -> Any:
    """The value of `section.name`."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _fields(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for item in dataclasses.fields(section):
        if dataclasses.is_dataclass(item.default_factory):
            yield from _fields(item.default_factory, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", item


def default_of(key: str) -> Any:
    item = known_keys().get(key)
    if item is None:
        return None
    return item.default_factory() if item.default is dataclasses.MISSING else item.default
