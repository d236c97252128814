"""From clips to scores: views of a clip (test-time augmentation), scores of its frames, one score a clip.

The one place where a model's output becomes p_live, for evaluation, prediction and ablation alike. Everything here is a
pure function of the clips the loader made: the crops of a view are cut from a picture that the loader renders larger
(`rendered`), so a clip is decoded once whatever the number of views.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from livetrain.config import Config, DataConfig, EvalConfig
from livetrain.model import LivenessModel, live_logit, p_live

CROPS = ("five_crop", "ten_crop")
RENDER = 8 / 7  # side of the picture that crops are cut from, over that of a crop (256 for 224)


def precision(config: Config) -> str:
    """The arithmetic of inference, fp32, bf16 or fp16: that of training, as far as this machine has it."""
    if config.train.precision == "fp16" and not torch.cuda.is_available():
        return "fp32"
    return config.train.precision


def mixed_precision(config: Config) -> str:
    """`precision` in Accelerate's words."""
    return {"fp32": "no"}.get(precision(config), precision(config))


def autocast(config: Config, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The context in which a model computes by `precision`."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision(config))
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()


def rendered(config: Config) -> Config:
    """The configuration by which the loader of an evaluation makes pictures: larger where views are cut from them.

    Of several face scales it is the largest, with as many pixels as give the smallest image_size.
    """
    data, scales = config.data, face_scales(config.data)
    if scales:
        side = round(data.image_size * max(scales) / min(scales))
        data = dataclasses.replace(data, image_size=side, face_scale=max(scales))
    elif config.eval.tta in CROPS:
        data = dataclasses.replace(data, image_size=round(data.image_size * RENDER))
    else:
        return config
    return dataclasses.replace(config, data=data)


def face_scales(data: DataConfig) -> list[float]:
    """The scales of face crops whose scores are averaged; none where there is one view of a face, or no face."""
    return data.face_multi_scale if data.crop == "face" else []


def num_views(config: Config) -> int:
    """How many views of each clip the model sees."""
    return {"none": 1, "flip": 2, "five_crop": 5, "ten_crop": 10}[config.eval.tta] * max(
        1, len(face_scales(config.data))
    )


def views(clips: Tensor, config: Config) -> list[Tensor]:
    """Clips as `rendered` made them [B,F,3,H,W] as the model sees them, each [B,F,3,image_size,image_size].

    tta none: as they are. flip: and mirrored. five_crop: the corners and the centre. ten_crop: and those mirrored. With
    data.face_multi_scale: the middle of each scale, resized (bilinear, antialiased), before that.
    """
    tta, size, scales = config.eval.tta, config.data.image_size, face_scales(config.data)
    if tta not in CROPS:
        seen = [_middle(clips, scale / max(scales), size) for scale in scales] if scales else [clips]
        return [*seen, *(view.flip(-1) for view in seen)] if tta == "flip" else seen
    end = clips.shape[-1] - size
    assert end > 0, "crops need pictures of `rendered`"
    corners = [(0, 0), (0, end), (end, 0), (end, end), (end // 2, end // 2)]
    crops = [clips[..., top : top + size, left : left + size] for top, left in corners]
    return crops + [crop.flip(-1) for crop in crops] if tta == "ten_crop" else crops


def _middle(clips: Tensor, share: float, size: int) -> Tensor:
    """The middle `share` of each side of clips [B,F,3,S,S], as [B,F,3,size,size]."""
    side = round(clips.shape[-1] * share)
    start = (clips.shape[-1] - side) // 2
    middle = clips[..., start : start + side, start : start + side]
    if side == size:
        return middle
    small = interpolate(middle.flatten(0, 1).float(), (size, size), mode="bilinear", antialias=True)
    return small.to(clips.dtype).unflatten(0, clips.shape[:2])


def aggregate(scores: Tensor, settings: EvalConfig) -> Tensor:
    """Scores of frames [B,F] → of clips [B], by eval.aggregate.

    mean, median (of an even number: the mean of the middle two), max, topk (mean of the eval.top_frames highest),
    trimmed (mean without the share eval.trim of the lowest, and of the highest).
    """
    how, num_frames = settings.aggregate, scores.shape[1]
    if how == "mean":
        return scores.mean(dim=1)
    if how == "max":
        return scores.amax(dim=1)
    ordered = scores.sort(dim=1).values
    if how == "topk":
        return ordered[:, -min(settings.top_frames, num_frames) :].mean(dim=1)
    out = int(settings.trim * num_frames) if how == "trimmed" else (num_frames - 1) // 2
    return ordered[:, out : num_frames - out].mean(dim=1)


def clip_logits(model: LivenessModel, clips: Tensor, config: Config) -> Tensor:
    """Clips as the loader made them [B,F,3,H,W] → logits, [B] or [B,2] as the model's, whose p_live is the score.

    With eval.aggregate=model the model's own pooling makes a clip's score, else `aggregate` that of its frames. Scores
    of several views are averaged.
    """
    return scored_frames(model, clips, config)[0]


def scored_frames(model: LivenessModel, clips: Tensor, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Clip logits, the score of each frame, and its share in the pooled clip.

    (`clip_logits`, p_live of each frame as a clip of its own [B,F], shares [B,F]), the last two float32, means over the
    views; see LivenessModel.forward.
    """
    settings = config.eval
    seen = [model(view, per_frame=True) for view in views(clips, config)]
    each = [torch.sigmoid(live_logit(frames, 2)) for _, frames, _ in seen]
    frames, shares = torch.stack(each).mean(dim=0), torch.stack([share for _, _, share in seen]).mean(dim=0)
    if settings.aggregate == "model" and num_views(config) == 1:
        return seen[0][0], frames, shares
    if settings.aggregate == "model":
        scores = [p_live(logits) for logits, _, _ in seen]
    else:
        scores = [aggregate(one, settings) for one in each]
    total = torch.stack(scores).sum(dim=0)
    logits = torch.logit((total / num_views(config)).double(), eps=1e-12).float()
    two = model.head.out_features == 2
    return torch.stack([torch.zeros_like(logits), logits], dim=1) if two else logits, frames, shares


def score_clips(model: LivenessModel, clips: Tensor, config: Config) -> Tensor:
    """p_live of `clip_logits`, float32 [B]."""
    return p_live(clip_logits(model, clips, config))
