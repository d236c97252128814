"""The model: a timm backbone by name, pooling of a clip's frames, a head; its loss, optimizer, schedule and cost."""

from livetrain.model.backbone import check_single_frame
from livetrain.model.cost import count_flops, count_parameters, count_training_flops, estimate_memory_bytes
from livetrain.model.ema import Ema, EvenAverage
from livetrain.model.liveness import LivenessModel, build_model, live_logit, p_live, prepare_model
from livetrain.model.local_shards import clip_by_unit
from livetrain.model.losses import build_loss
from livetrain.model.optim import (
    build_optimizer,
    build_schedule,
    fits,
    is_element_wise,
    keeping_options,
    load_optimizer,
    param_groups,
    warmup_steps,
)
from livetrain.model.weights import load_backbone_weights

__all__ = [
    "Ema",
    "EvenAverage",
    "LivenessModel",
    "build_loss",
    "build_model",
    "build_optimizer",
    "build_schedule",
    "check_single_frame",
    "clip_by_unit",
    "count_flops",
    "count_parameters",
    "count_training_flops",
    "estimate_memory_bytes",
    "fits",
    "is_element_wise",
    "keeping_options",
    "live_logit",
    "load_backbone_weights",
    "p_live",
    "load_optimizer",
    "param_groups",
    "prepare_model",
    "warmup_steps",
]
