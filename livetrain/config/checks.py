"""Checks of a whole configuration.

Unknown keys, values out of range, combinations that cannot work, and keys that have no effect under the others.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import os
from collections.abc import Iterator, Sequence

from livetrain.config import domains
from livetrain.config.augment import RECAPTURES, AugmentConfig
from livetrain.config.schema import Config, DdpConfig, default_of, known_keys, value_of
from livetrain.config.split_spec import Selection
from livetrain.core.errors import UserError
from livetrain.core.files import is_url


def check_known(key: str, origin: str) -> None:
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


def averages(config: Config) -> bool:
    """Whether a run keeps an average of its weights."""
    return config.train.ema_decay > 0 or config.train.swa_start < 1


def check_values(config: Config, explicit: dict[str, str]) -> None:
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
    for low_key, high_key in [(f"{name}_min", f"{name}_max") for name in ("crop_scale", "crop_ratio", "face_scale")]:
        low, high = getattr(config.augment, low_key), getattr(config.augment, high_key)
        if low > high:
            raise UserError(f"augment.{low_key}={low} is above augment.{high_key}={high}")
    if not all(0.5 <= scale <= 10 for scale in config.data.face_multi_scale):
        raise UserError(f"data.face_multi_scale={config.data.face_multi_scale} has scales outside of 0.5 to 10")
    if config.data.face_multi_scale and config.eval.tta in ("five_crop", "ten_crop"):
        raise UserError(f"data.face_multi_scale and eval.tta={config.eval.tta} both cut views; choose one of the two")
    if config.augment.mixup + config.augment.cutmix > 1:
        raise UserError(
            f"augment.mixup={config.augment.mixup} and augment.cutmix={config.augment.cutmix} are probabilities of one "
            "draw, and add up to more than 1; lower one"
        )
    domains.check(config.domains, blends=config.augment.enabled and config.augment.mixup + config.augment.cutmix > 0)
    if config.eval.watch:
        Selection.parse(config.eval.watch)
    if config.eval.select_on != "dev" and not config.eval.shifted_dev:
        raise UserError(f"eval.select_on={config.eval.select_on} needs eval.shifted_dev=true")
    if config.train.ema_decay and config.train.swa_start < 1:
        raise UserError("train.ema_decay and train.swa_start are two averages of the weights; choose one of the two")
    if config.model.lora_rank and config.model.unfreeze_last:
        raise UserError("model.lora_rank and model.unfreeze_last both say what of the backbone is trained; choose one")
    if config.model.pool == "thumbnail":
        for key in ("data.num_frames", "eval.num_frames"):
            if not value_of(config, key) or value_of(config, key) % 4:
                raise UserError(f"{key}={value_of(config, key)}: model.pool=thumbnail needs a multiple of 4")
        if config.data.image_size % 2:
            raise UserError(f"data.image_size={config.data.image_size}: model.pool=thumbnail needs an even number")
    wanted = config.augment.recapture_operators
    if not wanted or len(set(wanted)) < len(wanted) or set(wanted) - set(RECAPTURES):
        raise UserError(
            f"augment.recapture_operators={list(wanted)} must name some of {', '.join(RECAPTURES)}, each once"
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
    if config.data.on_outage == "wait" and 60 * config.data.outage_minutes >= config.train.hang_timeout_seconds:
        raise UserError(
            f"data.on_outage=wait waits for up to {config.data.outage_minutes:g} minutes, and the run ends after "
            f"train.hang_timeout_seconds={config.train.hang_timeout_seconds:g}; set that above "
            f"{60 * config.data.outage_minutes:g}"
        )
    if config.data.order == "windows":
        if config.data.weights or config.data.balance != "none":
            raise UserError(
                "data.order=windows goes shard by shard; it cannot be mixed by data.weights or data.balance"
            )
        if config.train.global_batch % config.data.window_lanes:
            raise UserError(
                f"data.window_lanes={config.data.window_lanes} does not divide "
                f"train.global_batch={config.train.global_batch}"
            )
    if config.data.weights and len(config.data.weights) != len(config.data.sources):
        numbers, folders = len(config.data.weights), len(config.data.sources)
        raise UserError(f"data.weights has {numbers} numbers, data.sources {folders} folders; give each a weight")


def keys_without_effect(config: Config, explicit: Sequence[str] | dict[str, str]) -> list[str]:
    """A line for each key of `explicit` that is not as by default and changes nothing under the other options."""
    return [
        f"warning: {key} has no effect with {reason}"
        for keys, without_effect, reason in _effects(config)
        if without_effect
        for key in keys
        if key in explicit and value_of(config, key) != default_of(key)
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
            ("tremble", "tremble_max"),
            ("noise", "noise_sigma_max"),
            *(("recapture", f"recapture_{name}") for name in ("operators", "edge", "rephotograph")),
            *(("affine", f"affine_{name}") for name in ("degrees", "translate", "scale", "shear_degrees")),
        ]:
            yield [f"augment.{name}"], getattr(aug, switch) == 0, f"augment.{switch}=0"
    # Several folders have one index for all processes of a node in the cache, if they are large.
    names = [] if len(config.data.sources) > 1 else ["cache_dir", "cache_gb"]
    names += ["download_ahead", "retries", "on_outage", "outage_minutes", "range_mb"]
    places = config.data.sources or [config.data.shards]
    yield (
        [f"data.{name}" for name in names],
        not any(map(is_url, places)),
        f"{'data.sources' if config.data.sources else 'data.shards'} in a local folder",
    )
    yield ["data.outage_minutes"], config.data.on_outage == "fail", "data.on_outage=fail"
    yield ["data.window_shards", "data.window_lanes"], config.data.order == "global", "data.order=global"
    in_shards = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    yield ["fsdp.param_dtype", "fsdp.reduce_dtype"], not in_shards, "weights that are not in shards"
    ddp = [f"ddp.{item.name}" for item in dataclasses.fields(DdpConfig)]
    yield ddp, in_shards, "weights in shards (FSDP2)"
    yield ["data.nvdec_pipelines"], config.data.decoder == "cpu", "data.decoder=cpu"
    whole = config.data.crop == "whole"
    yield ["data.apply_sar"], config.data.fit == "stretch" and whole, "data.fit=stretch"
    face = [f"data.face_{name}" for name in ("scale", "multi_scale", "missing")]
    face += [f"augment.face_{name}" for name in ("scale_min", "scale_max", "shift")]
    yield face, whole, "data.crop=whole"
    several = bool(config.data.face_multi_scale)
    yield ["data.face_scale", "augment.face_scale_min", "augment.face_scale_max"], several, "data.face_multi_scale set"
    random = [f"augment.crop_{name}_{end}" for name in ("scale", "ratio") for end in ("min", "max")]
    yield ["data.fit", *random], not whole and config.data.face_missing != "whole", "data.crop=face"
    yield ["data.balance_strength"], config.data.balance == "none", "data.balance=none"
    yield ["data.frame_stride"], config.data.sampling != "stride", f"data.sampling={config.data.sampling}"
    yield ["data.frame_interval_seconds"], config.data.sampling != "interval", f"data.sampling={config.data.sampling}"
    yield ["model.pretrained"], config.model.pretrained and bool(config.model.weights), "model.weights set"
    frozen = ["model.grad_checkpointing", "model.drop_path", "optim.layer_decay", "model.sync_bn"]
    yield frozen, config.model.freeze_backbone, "model.freeze_backbone=true"
    trained = ["model.freeze", "model.unfreeze_last", "model.lora_rank"]
    yield trained, config.model.freeze_backbone, "model.freeze_backbone=true"
    yield ["model.lora_alpha", "model.lora_targets"], config.model.lora_rank == 0, "model.lora_rank=0"
    yield ["loss.attack_types_weight"], not config.loss.attack_types, "loss.attack_types empty"
    yield from domains.effects(config.domains)
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
    yield ["train.ema_warmup"], config.train.ema_decay == 0, "train.ema_decay=0"
    yield ["eval.use_ema"], not averages(config), "train.ema_decay=0 and train.swa_start=1"
    yield ["train.swa_bn_updates"], config.train.swa_start == 1, "train.swa_start=1"
    yield ["train.patience"], config.train.eval_every_epochs == 0, "train.eval_every_epochs=0"
    wandb = [f"tracking.{name}" for name in ("project", "entity", "group")]
    yield wandb, config.tracking.wandb == "disabled", "tracking.wandb=disabled"
