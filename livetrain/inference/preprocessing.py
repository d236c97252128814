"""How a model's input is made from a video, in words and numbers: for packages, model cards and exported files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from livetrain.config import Config
from livetrain.data import face_tracks

WHOLE = {
    "stretch": "none: the whole frame, stretched to a square",
    "center": "the square in the middle of the frame, as wide as its shorter side",
    "pad": "none: the whole frame in the middle of a square as wide as its longer side, black beyond it",
}


def describe(
    config: Config, mean: Sequence[float], std: Sequence[float], faces: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The preprocessing of a model, JSON-able. mean, std: of RGB in [0, 1]. faces: how they are found, if they are."""
    size = config.data.image_size
    return {
        "mean": list(mean),
        "std": list(std),
        "scale": "RGB / 255, then (x - mean) / std, channel by channel",
        "layout": "float [clips, frames, 3, height, width]",
        "size": [size, size],
        "crop": _crop(config, faces),
        "face_scales": (config.data.face_multi_scale or [config.data.face_scale]) if config.data.crop == "face" else [],
        "fit": config.data.fit,
        "resize": "bilinear with antialiasing, of the upright frame",
        "num_frames": config.eval.num_frames,
        "frames": _frames(config),
    }


def _frames(config: Config) -> str:
    if not config.eval.num_frames:
        return "all of them"
    if config.data.sampling == "segments":
        return "one from the middle of each of num_frames equal parts"
    if config.data.sampling == "stride":
        return f"every {config.data.frame_stride}th frame, in the middle of the video"
    return f"{config.data.frame_interval_seconds:g} s apart, in the middle of the video"


def _crop(config: Config, faces: Mapping[str, Any] | None) -> str:
    if config.data.crop == "whole":
        return WHOLE[config.data.fit]
    scale = f"{config.data.face_scale:g}"
    if config.data.face_multi_scale:
        scale = f"each of {', '.join(f'{scale:g}' for scale in config.data.face_multi_scale)} (scores are averaged)"
    without = "its whole frame is used" if config.data.face_missing == "whole" else "it is not scored"
    how = f" Faces are found by {face_tracks.describe(faces)}." if faces else ""
    return (
        "a square around the face in each frame: its centre follows the face, its side is the median over the frames "
        f"of the face's side (the root of its box's area), times {scale}; black beyond the picture. For a video "
        f"without a face {without}.{how}"
    )
