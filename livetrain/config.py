"""The configuration: one dataclass a section, a docstring under each field, checks that name the key and what it
allows.

    load_config(["configs/nuaa.yaml"], ["optim.lr=3e-4", "train.epochs=5"])

Defaults are here and nowhere else. A YAML file says what it changes, and may build on another one (`base: other.yaml`,
relative to itself); `key=value` comes last. Unknown keys, wrong types and values out of range raise UserError; a key
that was set but cannot have an effect under the other options is warned about.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from livetrain.errors import UserError, first_line
from livetrain.fileio import is_url
from livetrain.selection import Selection


def _choice(default: str, *allowed: str) -> Any:
    """A field that takes one of a few words."""
    return field(default=default, metadata={"allowed": (default, *allowed)})


def _number(default: float, low: float = -math.inf, high: float = math.inf) -> Any:
    """A numeric field with inclusive bounds."""
    return field(default=default, metadata={"low": low, "high": high})


def _probability(default: float) -> Any:
    return _number(default, 0.0, 1.0)


@dataclass
class DataConfig:
    """Which clips, which of their frames, and how they reach the model."""

    shards: str = ""
    """Folder written by `python -m shards build`, or its URL: s3://, gs://, https://."""
    sources: list[str] = field(default_factory=list)
    """Several such folders in place of data.shards: [data/casia_fasd, data/msu_mfsd]."""
    weights: list[float] = field(default_factory=list)
    """Share of each source in training, in their order; empty: every clip once an epoch, whatever its source."""
    cache_dir: str = ""
    """Folder for downloaded shards, on a disk of the node; empty: livetrain/shards in $XDG_CACHE_HOME or ~/.cache."""
    cache_gb: float = _number(50.0, 0.0)
    """Bound of that folder, 1e9 bytes; best above the size of the data set, else shards are downloaded every epoch."""
    download_ahead: int = _number(32, 0)
    """Micro-batches whose shards are downloaded before they are needed, as far as half of the cache holds them."""
    retries: int = _number(5, 0, 100)
    """Further attempts after a failed request, with waits of 0.5, 1, 2, 4 … 30 s between them."""
    num_frames: int = _number(8, 1)
    """Frames of a clip that training sees."""
    balance: str = _choice("none", "class", "attack", "domain")
    """Train on classes, kinds of attack (beside as many live clips as attacks in all), or domains equally often."""
    balance_strength: float = _number(1.0, 0.0, 1.0)
    """1: equally often; 0: as often as they are there; in between: in proportion to their number ^ (1 - this)."""
    nvdec_lanes: int = _number(4, 1, 16)
    """Pipelines that decode videos side by side on a GPU."""
    decode_memory_mb: int = _number(4096, 1)
    """Decoded pictures, before they are resized, take at most so much of the GPU (or of DALI on the CPU) at a time."""
    sampling: str = _choice("segments", "interval", "stride")
    """segments: a frame of each of num_frames equal parts. interval: a fixed time apart. stride: every n-th frame."""
    frame_stride: int = _number(1, 1)
    """Frames from one to the next when sampling=stride; 1: all, one after the other."""
    frame_interval_seconds: float = _number(0.2, 1e-3)
    """Time between frames when sampling=interval."""
    image_size: int = _number(224, 16)
    """Side of the square picture the model sees, pixels."""
    train_split: str = "train"
    """Split that is learned from; fold1+fold2: two; train@zalo+nuaa: of these domains; train@-zalo: of all others."""
    dev_split: str = "dev"
    """Split that chooses the checkpoint and the threshold."""
    test_split: str = "test"
    """Split that is looked at once, at the end; all is every split."""
    fold: str = ""
    """2/5: test on fold2 of shards built with --folds 5, choose on the next, train on the others; 0/5 to 4/5."""
    leave_out: str = ""
    """Domains (A+B) that are tested alone: puts @-A+B behind train_split and dev_split, and @A+B behind test_split."""
    allow_leak: bool = False
    """Go on with people who are in two of the splits; the verdict says so in its first line."""
    fit: str = _choice("stretch", "center")
    """How a frame becomes square in evaluation: stretch the whole of it, or cut its centre."""
    apply_sar: bool = True
    """Cut a square of what a player shows: with pixels as wide as the video says (sample aspect ratio), not square."""
    on_error: str = _choice("skip", "stop")
    """A clip that cannot be read or decoded: go on without it and count it, or end the run."""
    max_lost_percent: float = _number(1.0, 0.0, 100.0)
    """A run fails at its end when more of its training clips than this did not arrive when they were last wanted."""
    prefetch: int = _number(2, 1)
    """Micro-batches prepared ahead."""
    threads: int = _number(0, 0)
    """Decoding threads of a process; 0: the machine's cores over the processes on it."""
    decoder: str = _choice("auto", "cpu", "gpu")
    """Video decoder: auto takes NVDEC on CUDA and libav elsewhere."""


@dataclass
class AugmentConfig:
    """What training does to a clip; every frame of it alike. Probabilities are per clip."""

    preset: str = _choice("standard", "none", "light", "strong")
    """What the keys below are where they are not given: standard is what is listed here; none is enabled=false."""
    enabled: bool = True
    """False: whole frames, unchanged."""
    crop_scale_min: float = _number(0.6, 0.01, 1.0)
    """Smallest area of the random crop, of what evaluation shows."""
    crop_scale_max: float = _number(1.0, 0.01, 1.0)
    """Largest area of the random crop."""
    crop_ratio_min: float = _number(0.8, 0.1, 10.0)
    """Narrowest crop, width over height."""
    crop_ratio_max: float = _number(1.25, 0.1, 10.0)
    """Widest crop, width over height."""
    flip: float = _probability(0.5)
    """Probability of mirroring left and right."""
    flip_vertical: float = _probability(0.0)
    """Probability of turning top and bottom round."""
    affine: float = _probability(0.0)
    """Probability of a small turn, shift, shear and change of size."""
    affine_degrees: float = _number(10.0, 0.0, 180.0)
    """Largest turn."""
    affine_translate: float = _number(0.05, 0.0, 1.0)
    """Largest shift, of the picture's side."""
    affine_scale: float = _number(0.1, 0.0, 10.0)
    """Largest change of size: by up to 1 + this, or down to its inverse."""
    affine_shear_degrees: float = _number(5.0, 0.0, 80.0)
    """Largest shear."""
    color: float = _probability(0.5)
    """Probability of changing brightness, contrast, saturation and hue."""
    brightness: float = _probability(0.2)
    """Largest relative change of brightness."""
    contrast: float = _probability(0.2)
    """Largest relative change of contrast."""
    saturation: float = _probability(0.2)
    """Largest relative change of saturation."""
    hue_degrees: float = _number(10.0, 0.0, 180.0)
    """Largest turn of the hue."""
    temperature: float = _probability(0.0)
    """Probability of a warmer or colder light."""
    temperature_max: float = _number(0.15, 0.0, 0.9)
    """Largest gain of red, taken from blue, or the other way round."""
    gamma: float = _probability(0.0)
    """Probability of another transfer curve."""
    gamma_max: float = _number(1.5, 1.0, 10.0)
    """Largest exponent; the smallest is its inverse."""
    grayscale: float = _probability(0.05)
    """Probability of taking the colour away."""
    blur: float = _probability(0.1)
    """Probability of a Gaussian blur."""
    blur_sigma_max: float = _number(2.0, 0.1, 20.0)
    """Largest sigma, in pixels of a picture 224 pixels wide."""
    motion_blur: float = _probability(0.0)
    """Probability of a blur along a line."""
    motion_blur_length_max: float = _number(9.0, 1.0, 100.0)
    """Longest line, in pixels of a picture 224 pixels wide."""
    noise: float = _probability(0.0)
    """Probability of a sensor's grain, the same in all frames of a clip."""
    noise_sigma_max: float = _number(10.0, 0.0, 255.0)
    """Largest standard deviation, in levels of 255."""
    jpeg: float = _probability(0.3)
    """Probability of JPEG compression."""
    jpeg_quality_min: int = _number(40, 1, 95)
    """Lowest JPEG quality."""
    downscale: float = _probability(0.2)
    """Probability of shrinking and enlarging again."""
    downscale_min: float = _number(0.4, 0.02, 1.0)
    """Smallest relative size in between."""
    erase: float = _probability(0.1)
    """Probability of greying out a rectangle."""
    erase_scale_max: float = _number(0.2, 0.02, 1.0)
    """Largest area of the rectangle."""
    mixup: float = _probability(0.0)
    """Probability of blending two neighbouring clips of a batch, and their labels."""
    mixup_alpha: float = _number(0.2, 0.01, 100.0)
    """Both parameters of the beta distribution of a clip's share in the blend."""
    cutmix: float = _probability(0.0)
    """Probability of setting a rectangle of one clip into its neighbour, and blending their labels by area."""
    cutmix_alpha: float = _number(1.0, 0.01, 100.0)
    """Both parameters of the beta distribution of the share that stays."""


# What a preset changes of the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "standard": {},
    "none": {"enabled": False},
    "light": {
        "crop_scale_min": 0.8, "color": 0.3, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue_degrees": 4.0,
        "grayscale": 0.0, "blur": 0.0, "jpeg": 0.15, "jpeg_quality_min": 60, "downscale": 0.0, "erase": 0.0,
    },
    "strong": {
        "crop_scale_min": 0.35, "color": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4,
        "hue_degrees": 18.0, "grayscale": 0.1, "affine": 0.3, "temperature": 0.3, "gamma": 0.3, "blur": 0.2,
        "motion_blur": 0.2, "noise": 0.3, "jpeg": 0.5, "jpeg_quality_min": 20, "downscale": 0.4, "downscale_min": 0.2,
        "erase": 0.25,
    },
}  # fmt: skip


@dataclass
class ModelConfig:
    """The backbone, how frames become one clip, and how the network runs."""

    backbone: str = "tf_efficientnet_b0"
    """Name of a timm model."""
    pretrained: bool = False
    """Take timm's weights from the hub (a download)."""
    weights: str = ""
    """Local file of backbone weights, .safetensors or .pth."""
    pool: str = _choice("mean", "max", "attention", "transformer")
    """How the features of a clip's frames become one vector."""
    dropout: float = _number(0.0, 0.0, 0.99)
    """Dropout before the head."""
    drop_path: float = _number(0.0, 0.0, 0.99)
    """Stochastic depth of the backbone."""
    freeze_backbone: bool = False
    """Train pooling and head alone."""
    freeze: list[str] = field(default_factory=list)
    """Parts of the backbone that are not trained, by the beginnings of their names: [patch_embed, blocks.0.]."""
    channels_last: bool = True
    """Memory format of the weights and pictures; faster convolutions."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """torch.compile the network."""
    sync_bn: bool = False
    """Batch statistics over all processes (CUDA)."""
    normalization: str = _choice("auto", "imagenet", "half")
    """Mean and deviation of pixels: those of the timm model, ImageNet's, or 0.5 and 0.5."""


@dataclass
class LossConfig:
    """The loss of a clip."""

    name: str = _choice("bce", "ce", "focal")
    """Binary cross-entropy, two-class cross-entropy, or focal loss (Lin et al., 2017)."""
    label_smoothing: float = _number(0.0, 0.0, 0.99)
    """Share of the label given to both classes evenly."""
    focal_gamma: float = _number(2.0, 0.0)
    """Focusing exponent of the focal loss."""
    live_weight: float = _number(1.0, 0.0)
    """Weight of live clips."""
    attack_weight: float = _number(1.0, 0.0)
    """Weight of attack clips."""
    attack_types: list[str] = field(default_factory=list)
    """Attack types that a second head learns to name beside live, in training alone: [print, replay]; empty: none."""
    attack_types_weight: float = _number(0.3, 0.0)
    """Weight of that head's cross-entropy, which is added to the loss of a clip."""


@dataclass
class OptimConfig:
    """The optimizer and the schedule of its learning rate."""

    name: str = "adamw"
    """Name of a timm optimizer."""
    lr: float = _number(3e-4, 0.0)
    """Peak learning rate."""
    weight_decay: float = _number(0.05, 0.0)
    """Weight decay of matrices and kernels; norms and biases have none."""
    beta1: float = _number(0.9, 0.0, 0.999999)
    """First moment's decay (Adam family)."""
    beta2: float = _number(0.999, 0.0, 0.999999)
    """Second moment's decay (Adam family)."""
    momentum: float = _number(0.9, 0.0, 0.999999)
    """Momentum (SGD family)."""
    layer_decay: float = _number(1.0, 0.0, 1.0)
    """Learning rate of each layer over that of the next one nearer to the head; 1: all alike."""
    clip_grad_norm: float = _number(0.0, 0.0)
    """Largest norm of the gradient; 0: no clipping."""
    clip_grad_value: float = _number(0.0, 0.0)
    """Largest value in the gradient, after that; 0: no clipping."""
    clip_agc: float = _number(0.0, 0.0)
    """Largest norm of a unit's gradient over its weights' (Brock et al., 2021), the heads left out; 0: no clipping."""
    schedule: str = "cosine"
    """constant, or the name of a timm scheduler: cosine, tanh, step, multistep, poly."""
    warmup_steps: int = _number(0, 0)
    """Updates over which the learning rate rises linearly to its peak."""
    min_lr_ratio: float = _number(0.01, 0.0, 1.0)
    """Last learning rate over the peak."""


@dataclass
class TrainConfig:
    """Length, batch and arithmetic of the run."""

    epochs: float = _number(10.0, 1e-6)
    """Passes over the training split."""
    max_steps: int = _number(0, 0)
    """Updates of the run; 0: as many as train.epochs take."""
    global_batch: int = _number(32, 1)
    """Clips of an update, over all processes and accumulation: it does not change with the machine."""
    accumulation: int = _number(1, 1)
    """Micro-batches of an update on each process."""
    precision: str = _choice("fp32", "bf16", "fp16")
    """Arithmetic of the forward and backward pass."""
    on_non_finite: str = _choice("stop", "skip")
    """An update whose loss or gradient is no number: end the run, or leave it out (each then waits for the device)."""
    ema_decay: float = _number(0.0, 0.0, 0.999999)
    """Decay of an exponential moving average of the weights; 0: none."""
    ema_warmup: bool = True
    """The decay rises from 0, so that an average that is used early is not of the initial weights."""
    patience: int = _number(0, 0)
    """End training after so many evaluations of dev in a row that were not the best so far; 0: never."""
    deterministic: bool = False
    """Only kernels that give the same bits every time (slower on CUDA, and some operations have none)."""
    tf32: bool = False
    """On CUDA, multiply float32 matrices in TensorFloat-32: faster, with 10 bits behind the point."""
    cudnn_benchmark: bool = False
    """Have cuDNN try its convolutions and take the fastest; which one may differ from run to run."""
    log_every: int = _number(10, 1)
    """Updates between log lines."""
    eval_every_epochs: float = _number(1.0, 0.0)
    """Epochs between evaluations of the dev split; 0: at the end alone."""
    save_every_steps: int = _number(500, 0)
    """Updates between checkpoints; 0: at the end alone."""
    save_every_minutes: float = _number(0.0, 0.0)
    """Minutes between checkpoints, besides save_every_steps; 0: none by time."""
    keep_last: int = _number(2, 1)
    """Checkpoints kept besides the best."""
    keep_every_steps: int = _number(0, 0)
    """Checkpoints whose step is a multiple of it are kept for good; 0: none."""
    hang_timeout_seconds: float = _number(300.0, 1.0)
    """A process without progress for so long ends the run, naming the rank that is behind; more for a long compile."""


@dataclass
class DdpConfig:
    """How gradients of several processes are averaged (torch's DistributedDataParallel)."""

    bucket_mb: float = _number(25.0, 0.001)
    """Gradients are averaged in buckets of so many MiB, each as soon as it is full, while the backward pass goes on."""
    bucket_view: bool = True
    """Gradients are views of the buckets: saves a copy of them in memory and in time."""
    static_graph: bool = False
    """The network does the same every time: DDP learns the order of gradients once. Needs train.accumulation=1."""
    compression: str = _choice("none", "bf16", "fp16")
    """Gradients travel in half precision: half the traffic, and rounded."""


@dataclass
class FsdpConfig:
    """What travels between processes where weights are in shards (launch/fsdp2.yaml, launch/hsdp.yaml)."""

    param_dtype: str = _choice("fp32", "bf16")
    """Weights are gathered so: bf16 halves the traffic and the gathered weights; shards and moments stay float32."""
    reduce_dtype: str = _choice("fp32", "bf16")
    """Gradients are averaged so: bf16 halves the traffic, and rounds."""


@dataclass
class EvalConfig:
    """How a split is scored."""

    num_frames: int = _number(8, 0)
    """Frames of a video, evenly spaced; 0: all of them, a video at a time."""
    batch_size: int = _number(32, 1)
    """Videos a process scores at once."""
    aggregate: str = _choice("model", "mean", "median", "max", "topk", "trimmed")
    """Score of a video: by the model's own pooling, or from the scores of its frames."""
    top_frames: int = _number(3, 1)
    """How many frames, those with the highest scores, eval.aggregate=topk averages."""
    trim: float = _number(0.25, 0.0, 0.49)
    """Share of the frames that eval.aggregate=trimmed leaves out at either end."""
    tta: str = _choice("none", "flip", "five_crop", "ten_crop")
    """Views of a video whose scores are averaged: mirrored too; corners and centre; those and mirrored."""
    use_ema: bool = True
    """Score the moving average of the weights, where there is one."""
    robustness: bool = False
    """Score the test split also cropped, downscaled, recompressed, recoloured, blurred and shortened, 14 ways."""
    criterion: str = _choice("eer", "auc", "loss")
    """Dev metric that chooses the best checkpoint."""


@dataclass
class PredictConfig:
    """`livetrain predict`: scores of videos without labels."""

    failed_score: float = _probability(0.0)
    """Score in submission.csv of a video that cannot be decoded; 0 refuses it."""


@dataclass
class VerdictConfig:
    """How the threshold is chosen on dev, and how intervals are made."""

    criterion: str = _choice("eer", "min_hter", "bpcer20", "max_apcer", "cost")
    """eer: both errors alike. min_hter: least mean of them. bpcer20: no attack type's APCER above 5 %."""
    max_apcer: float = _probability(0.01)
    """Largest APCER of any attack type on dev, with criterion=max_apcer."""
    attack_cost: float = _number(10.0, 0.0)
    """Cost of an accepted attack, with criterion=cost; attacks and live people count as equally frequent."""
    live_cost: float = _number(1.0, 0.0)
    """Cost of a refused live person, with criterion=cost."""
    confidence: float = _number(0.95, 0.5, 0.999)
    """Level of the intervals."""


@dataclass
class TrackingConfig:
    """Weights & Biases; metrics.jsonl in the run directory is written whatever is set here."""

    wandb: str = _choice("auto", "online", "offline", "disabled")
    """auto: online where a key is found, else offline."""
    project: str = "livetrain"
    """W&B project."""
    entity: str = ""
    """W&B team or user; empty: the key's own."""
    group: str = ""
    """W&B group; empty: the run's name."""
    worst_clips: int = _number(16, 0, 200)
    """Worst-scored clips shown in the report and in W&B."""


@dataclass
class RunConfig:
    """How a run directory is used."""

    fork: bool = False
    """Go on though data, seed, batch or model are others than when the run began: from there on it is another run."""


@dataclass
class Config:
    """The whole configuration."""

    name: str = "run"
    """Name of the run."""
    run_dir: str = ""
    """Directory of the run; empty: runs/<name>."""
    seed: int = _number(0, 0, 2**62)
    """Seed of everything: initial weights, order of the samples, frames, augmentations, dropout."""
    dry_run: bool = False
    """Print the plan of the run and stop."""
    profile: bool = False
    """Write a torch trace of updates 13 to 17 of each process to run_dir/profile."""
    resume: str = "auto"
    """auto: go on from the run directory's newest checkpoint; never: there must be none; PATH: begin there if none."""
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    ddp: DdpConfig = field(default_factory=DdpConfig)
    fsdp: FsdpConfig = field(default_factory=FsdpConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


_ONE_METHOD = "intervals are made in one way, from people and one more who was not seen"
RETIRED: dict[str, tuple[Any, str]] = {
    "verdict.interval": ("bca", _ONE_METHOD),
    "verdict.resample": ("people", _ONE_METHOD),
    "verdict.bootstrap_replicates": (2000, _ONE_METHOD),
}
"""Keys of older versions: key → (its default then, why it is no more)."""


def load_config(
    paths: Sequence[str | Path], overrides: Sequence[str], warn: Callable[[str], None] | None = None
) -> Config:
    """Defaults ← YAML files in order ← `key=value` in order.

    `warn` gets a line for each key set without effect (default: standard error). Raises UserError for a file that
    cannot be read, an unknown key (with the nearest name), a wrong type, a value that is not allowed.
    """
    parts = [part for path in paths for part in _read_yaml(Path(path))] + [_read_overrides(overrides)]
    config = _merged(parts, warn)
    if not config.data.shards and not config.data.sources:
        raise UserError("data.shards is not set; name the folder that `python -m shards build --out DIR` wrote")
    return config


def config_from(
    values: Mapping[str, Any], origin: str, overrides: Sequence[str] = (), warn: Callable[[str], None] | None = None
) -> Config:
    """Defaults ← nested `values` ← `key=value`, as a configuration that needs no shards. `origin` names the file that
    holds `values` in errors, which are those of `load_config`."""
    return _merged([(origin, OmegaConf.create(dict(values))), _read_overrides(overrides)], warn)


def _merged(parts: Sequence[tuple[str, DictConfig]], warn: Callable[[str], None] | None) -> Config:
    merged: Any = OmegaConf.structured(Config)
    explicit: dict[str, str] = {}
    parts = [(origin, _without_retired(part, origin, warn or _to_stderr)) for origin, part in parts]
    for origin, part in parts:
        for key in _leaf_keys(part):
            _check_known(key, origin)
            explicit[key] = origin
    for origin, part in [_preset(parts), *parts]:
        try:
            merged = OmegaConf.merge(merged, part)
        except OmegaConfBaseException as error:
            key = error.full_key or str(error.key)
            raise UserError(f"{origin}: {key}: {first_line(error)} (default: {_default(key)!r})") from None
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    config.run_dir = config.run_dir or _default_run_dir(config.name)
    _fold(config.data, explicit)
    _leave_out(config.data)
    _check_values(config, explicit)
    for line in keys_without_effect(config, explicit):
        (warn or _to_stderr)(line)
    return config


def _without_retired(part: DictConfig, origin: str, warn: Callable[[str], None]) -> DictConfig:
    """`part` without keys of older versions, so that the configurations of older runs load; each is named, unless it
    was left as it was by default."""
    kept = part.copy()
    for key, (default, reason) in RETIRED.items():
        section, name = key.split(".")
        values = kept.get(section)
        if isinstance(values, DictConfig) and name in values:
            value = values.pop(name)
            if value != default:
                warn(f"warning: {origin}: {key}={value} has no effect any more: {reason}")
    return kept


def _preset(parts: Sequence[tuple[str, DictConfig]]) -> tuple[str, DictConfig]:
    """The values of the preset that is named last, to be merged before everything that is given."""
    named = [OmegaConf.select(part, "augment.preset") for _, part in parts]
    name = next((str(item) for item in reversed(named) if item is not None), "standard")
    return "augment.preset", OmegaConf.create({"augment": PRESETS.get(name, {})})


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML; `load_config` of it gives the same configuration."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested plain dicts."""
    return dataclasses.asdict(config)


def describe_keys() -> str:
    """Every key with its default and meaning, a line each: the docstrings under the fields of this module."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    meanings: dict[tuple[str, str], str] = {}
    for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for item, after in itertools.pairwise(node.body):
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                assert isinstance(item.target, ast.Name)
                meanings[node.name, item.target.id] = str(after.value.value)
    sections = {item.name: type(getattr(Config(), item.name)).__name__ for item in dataclasses.fields(Config)}
    lines = []
    for key, item in known_keys().items():
        section, _, name = key.rpartition(".")
        value = _default(key)
        default = "" if value in ("", []) else f"={str(value).lower() if item.type == 'bool' else value}"
        allowed = item.metadata.get("allowed")
        lines.append(
            f"{key + default:<40} {meanings[sections[section] if section else 'Config', name]}"
            + (f" ({', '.join(allowed)})" if allowed else "")
        )
    return "\n".join(lines)


def known_keys() -> dict[str, Any]:
    """Every key (`section.name`) and its field."""
    return dict(_fields(Config))


def value_of(config: Config, key: str) -> Any:
    """The value of `section.name`."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def keys_without_effect(config: Config, explicit: Sequence[str] | dict[str, str]) -> list[str]:
    """A line for each key of `explicit` that is not as by default and changes nothing under the other options."""
    return [
        f"warning: {key} has no effect with {reason}"
        for keys, without_effect, reason in _effects(config)
        if without_effect
        for key in keys
        if key in explicit and value_of(config, key) != _default(key)
    ]


def _effects(config: Config) -> Iterator[tuple[list[str], bool, str]]:
    """(keys, whether they are without effect, because of what)."""
    aug = config.augment
    names = [item.name for item in dataclasses.fields(AugmentConfig) if item.name not in ("enabled", "preset")]
    augmentations = [f"augment.{name}" for name in names]
    yield augmentations, not aug.enabled, "augment.enabled=false"
    if aug.enabled:
        color = ["brightness", "contrast", "saturation", "hue_degrees"]
        yield [f"augment.{name}" for name in color], aug.color == 0, "augment.color=0"
        for switch, name in [
            ("blur", "blur_sigma_max"),
            ("jpeg", "jpeg_quality_min"),
            ("downscale", "downscale_min"),
            ("erase", "erase_scale_max"),
            ("mixup", "mixup_alpha"),
            ("cutmix", "cutmix_alpha"),
            ("gamma", "gamma_max"),
            ("temperature", "temperature_max"),
            ("motion_blur", "motion_blur_length_max"),
            ("noise", "noise_sigma_max"),
            *(("affine", f"affine_{name}") for name in ("degrees", "translate", "scale", "shear_degrees")),
        ]:
            yield [f"augment.{name}"], getattr(aug, switch) == 0, f"augment.{switch}=0"
    remote = [f"data.{name}" for name in ("cache_dir", "cache_gb", "download_ahead", "retries")]
    places = config.data.sources or [config.data.shards]
    yield (
        remote,
        not any(map(is_url, places)),
        f"{'data.sources' if config.data.sources else 'data.shards'} in a local folder",
    )
    in_shards = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    yield ["fsdp.param_dtype", "fsdp.reduce_dtype"], not in_shards, "weights that are not in shards"
    ddp = [f"ddp.{item.name}" for item in dataclasses.fields(DdpConfig)]
    yield ddp, in_shards, "weights in shards (FSDP2)"
    yield ["data.nvdec_lanes"], config.data.decoder == "cpu", "data.decoder=cpu"
    yield ["data.apply_sar"], config.data.fit == "stretch", "data.fit=stretch"
    yield ["data.balance_strength"], config.data.balance == "none", "data.balance=none"
    yield ["data.frame_stride"], config.data.sampling != "stride", f"data.sampling={config.data.sampling}"
    yield ["data.frame_interval_seconds"], config.data.sampling != "interval", f"data.sampling={config.data.sampling}"
    yield ["model.pretrained"], config.model.pretrained and bool(config.model.weights), "model.weights set"
    frozen = ["model.grad_checkpointing", "model.drop_path", "optim.layer_decay", "model.sync_bn"]
    yield frozen, config.model.freeze_backbone, "model.freeze_backbone=true"
    yield ["model.freeze"], config.model.freeze_backbone, "model.freeze_backbone=true"
    yield ["loss.attack_types_weight"], not config.loss.attack_types, "loss.attack_types empty"
    yield ["loss.focal_gamma"], config.loss.name != "focal", f"loss.name={config.loss.name}"
    sgd = any(word in config.optim.name.lower() for word in ("sgd", "momentum", "nesterov", "rmsprop", "lars", "muon"))
    yield ["optim.momentum"], not sgd, f"optim.name={config.optim.name}"
    yield ["optim.beta1", "optim.beta2"], "sgd" in config.optim.name.lower(), f"optim.name={config.optim.name}"
    yield ["optim.min_lr_ratio"], config.optim.schedule == "constant", "optim.schedule=constant"
    yield ["train.epochs"], config.train.max_steps > 0, f"train.max_steps={config.train.max_steps}"
    yield ["eval.top_frames"], config.eval.aggregate != "topk", f"eval.aggregate={config.eval.aggregate}"
    yield ["eval.trim"], config.eval.aggregate != "trimmed", f"eval.aggregate={config.eval.aggregate}"
    yield ["eval.batch_size"], config.eval.num_frames == 0, "eval.num_frames=0"
    criterion = config.verdict.criterion
    yield ["verdict.max_apcer"], criterion != "max_apcer", f"verdict.criterion={criterion}"
    yield ["verdict.attack_cost", "verdict.live_cost"], criterion != "cost", f"verdict.criterion={criterion}"
    yield ["eval.use_ema", "train.ema_warmup"], config.train.ema_decay == 0, "train.ema_decay=0"
    yield ["train.patience"], config.train.eval_every_epochs == 0, "train.eval_every_epochs=0"
    wandb = [f"tracking.{name}" for name in ("project", "entity", "group")]
    yield wandb, config.tracking.wandb == "disabled", "tracking.wandb=disabled"


def _fold(data: DataConfig, explicit: Mapping[str, str]) -> None:
    """Write `fold` into the splits. Raises UserError when it is none, or when they are given too, and otherwise."""
    if not data.fold:
        return
    number, slash, count = data.fold.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count) >= 3):
        raise UserError(
            f"data.fold={data.fold} is no fold; write 0/5 to 4/5 for shards built with --folds 5 (3 or more)"
        )
    test, dev = int(number), (int(number) + 1) % int(count)
    train = "+".join(f"fold{other}" for other in range(int(count)) if other not in (test, dev))
    for name, split in (("train_split", train), ("dev_split", f"fold{dev}"), ("test_split", f"fold{test}")):
        given, at, domains = getattr(data, name).partition("@")
        # What leave_out wrote behind a split is in a configuration that was resolved before.
        if f"data.{name}" in explicit and (given != split or (at and not data.leave_out)):
            raise UserError(f"data.fold={data.fold} does not go with data.{name}={given}{at}{domains}; leave one out")
        setattr(data, name, split)


def _leave_out(data: DataConfig) -> None:
    """Write `leave_out` into the splits. Raises UserError when they name other domains already."""
    if not data.leave_out:
        return
    for name, sign in (("train_split", "-"), ("dev_split", "-"), ("test_split", "")):
        split, at, domains = getattr(data, name).partition("@")
        if at and domains != f"{sign}{data.leave_out}":
            raise UserError(
                f"data.leave_out={data.leave_out} does not go with data.{name}={split}@{domains}; leave one out"
            )
        setattr(data, name, f"{split}@{sign}{data.leave_out}")


def _default_run_dir(name: str) -> str:
    """runs/<name>; of a trial that `wandb agent` started, runs/<name>-<its W&B id>, so that trials do not resume each
    other."""
    trial = os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""
    return str(Path("runs") / (f"{name}-{trial}" if trial else name))


def _read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, DictConfig]]:
    """The file's content after that of the files it builds on, each with its name."""
    if path.resolve() in seen:
        raise UserError(f"{path}: `base` leads back to the file itself")
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the configurations that come with livetrain are in configs/") from None
    except Exception as error:  # YAML's errors have no common base that omegaconf promises
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, DictConfig):
        raise UserError(f"{path}: must hold `key: value` lines")
    base = content.pop("base", None)
    before = [] if base is None else _read_yaml(path.parent / str(base), (*seen, path.resolve()))
    return [*before, (str(path), content)]


def _read_overrides(overrides: Sequence[str]) -> tuple[str, DictConfig]:
    for item in overrides:
        if "=" not in item or item.startswith(("=", "-")):
            raise UserError(f"{item!r} is not key=value; write for example optim.lr=3e-4 (and name YAML files *.yaml)")
    try:
        # `key=` is the empty word, as a shell's user means it, not YAML's null.
        return "command line", OmegaConf.from_dotlist([f"{x}''" if x.endswith("=") else x for x in overrides])
    except Exception as error:
        raise UserError(f"command line: {' '.join(str(error).split())}") from None


def _leaf_keys(part: DictConfig, prefix: str = "") -> Iterator[str]:
    for name, value in OmegaConf.to_container(part, resolve=False).items():  # type: ignore[union-attr]
        key = f"{prefix}{str(name)}"
        if isinstance(value, dict):
            yield from _leaf_keys(OmegaConf.create(value), f"{key}.")
        else:
            yield key


def _fields(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for item in dataclasses.fields(section):
        if dataclasses.is_dataclass(item.default_factory):
            yield from _fields(item.default_factory, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", item


def _default(key: str) -> Any:
    item = known_keys().get(key)
    if item is None:
        return None
    return item.default_factory() if item.default is dataclasses.MISSING else item.default


def _check_known(key: str, origin: str) -> None:
    known = known_keys()
    if key in known:
        return
    sections = {name.split(".")[0] for name in known if "." in name}
    if key in sections:
        raise UserError(f"{origin}: {key} is a section; set its keys, for example {key}.{_first_key(key)}")
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    same_name = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    guess = (same_name or nearest or [""])[0]
    raise UserError(f"{origin}: unknown key {key}" + (f"; did you mean {guess}?" if guess else ""))


def _first_key(section: str) -> str:
    return next(name.split(".")[1] for name in known_keys() if name.startswith(f"{section}."))


def _check_values(config: Config, explicit: dict[str, str]) -> None:
    for key, item in known_keys().items():
        value = value_of(config, key)
        origin = explicit.get(key, "default")
        allowed = item.metadata.get("allowed")
        if allowed and value not in allowed:
            raise UserError(f"{origin}: {key}={value!r} is not one of {', '.join(allowed)}")
        low, high = item.metadata.get("low", -math.inf), item.metadata.get("high", math.inf)
        if "low" in item.metadata and not low <= value <= high:
            bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
            raise UserError(f"{origin}: {key}={value} is out of range; it must be {bounds}")
    for low_key, high_key in [("crop_scale_min", "crop_scale_max"), ("crop_ratio_min", "crop_ratio_max")]:
        low, high = getattr(config.augment, low_key), getattr(config.augment, high_key)
        if low > high:
            raise UserError(f"augment.{low_key}={low} is above augment.{high_key}={high}")
    if config.augment.mixup + config.augment.cutmix > 1:
        raise UserError(
            f"augment.mixup={config.augment.mixup} and augment.cutmix={config.augment.cutmix} are probabilities of one "
            "draw, and add up to more than 1; lower one"
        )
    for one, other in itertools.combinations(("train_split", "dev_split", "test_split"), 2):
        first, second = getattr(config.data, one), getattr(config.data, other)
        if Selection.parse(first).shares_samples(Selection.parse(second)):
            raise UserError(f"data.{one}={first} and data.{other}={second} share clips: their people would be in both")
    if config.ddp.static_graph and config.train.accumulation > 1:
        raise UserError(
            "ddp.static_graph=true needs train.accumulation=1: with more, gradients are not averaged every time"
        )
    if config.data.shards and config.data.sources:
        raise UserError("data.shards and data.sources are both set; leave one empty (data.shards=)")
    if config.data.weights and config.data.balance != "none":
        raise UserError("data.weights and data.balance are both set; choose one of the two ways to mix")
    if config.data.weights and len(config.data.weights) != len(config.data.sources):
        numbers, folders = len(config.data.weights), len(config.data.sources)
        raise UserError(f"data.weights has {numbers} numbers, data.sources {folders} folders; give each a weight")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
