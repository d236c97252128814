"""The augmentations: what each one draws, and what it does to the frames.

One entry of `AUGMENTATIONS` is one augmentation, whole: `draw` turns planned uniform numbers into parameters (NumPy, a
row a clip), `apply` is the piece of the DALI graph that obeys them. To add one, append an entry (at the end: the
position in the list is the address of its random numbers, so earlier ones keep theirs), its fields in `AugmentConfig`,
and a test.

All frames of a clip share their parameters: a camera that changes its mind between frames would be a spoof cue of our
own making. `apply` sees a square picture of `size` pixels, FHWC or HWC, uint8, upright but not yet flipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, types

from livetrain.config import AugmentConfig

Uniforms = NDArray[np.float64]
Parameters = dict[str, NDArray[Any]]
Node = Any  # a DALI DataNode

NUM_UNIFORMS = 8  # random numbers reserved for each augmentation


@dataclass(frozen=True)
class Augmentation:
    """`draw(u [n, 8] in [0, 1), config, size)` → parameters [n, …]; `apply(frames, parameters, size)` → frames."""

    name: str
    active: Callable[[AugmentConfig], bool]
    draw: Callable[[Uniforms, AugmentConfig, int], Parameters]
    apply: Callable[[Node, dict[str, Node], int], Node]


def active_augmentations(config: AugmentConfig) -> list[Augmentation]:
    """The augmentations that can change a picture under `config`, in order of application."""
    return [item for item in AUGMENTATIONS if config.enabled and item.active(config)]


def uniform_columns(augmentation: Augmentation) -> slice:
    """Which columns of a clip's uniform numbers belong to `augmentation`."""
    start = AUGMENTATIONS.index(augmentation) * NUM_UNIFORMS
    return slice(start, start + NUM_UNIFORMS)


def _between(u: Uniforms, low: float, high: float) -> NDArray[np.float32]:
    return (low + u * (high - low)).astype(np.float32)


# --- downscale and upscale: a video that was small, or far away, before it reached us ---------------------------------


def draw_downscale(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`downscale_size`: float32 [n, 2], pixels a side."""
    factor = _between(u[:, 1], config.downscale_min, 1.0)
    side = np.maximum(1, np.round(factor * size)).astype(np.float32)
    return {"downscale_on": u[:, 0] < config.downscale, "downscale_size": np.stack([side, side], axis=1)}


def apply_downscale(frames: Node, p: dict[str, Node], size: int) -> Node:
    if p["downscale_on"]:
        small = fn.resize(frames, size=p["downscale_size"], interp_type=types.INTERP_LINEAR, antialias=True)
        frames = fn.resize(small, size=[size, size], interp_type=types.INTERP_LINEAR)
    return frames


# --- brightness, contrast, saturation, hue ----------------------------------------------------------------------------


def draw_color(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """Factors around 1 and a hue shift in degrees, float32 [n]."""
    return {
        "color_on": u[:, 0] < config.color,
        "brightness": _between(u[:, 1], 1 - config.brightness, 1 + config.brightness),
        "contrast": _between(u[:, 2], 1 - config.contrast, 1 + config.contrast),
        "saturation": _between(u[:, 3], 1 - config.saturation, 1 + config.saturation),
        "hue": _between(u[:, 4], -config.hue_degrees, config.hue_degrees),
    }


def apply_color(frames: Node, p: dict[str, Node], size: int) -> Node:
    if p["color_on"]:
        frames = fn.color_twist(
            frames, brightness=p["brightness"], contrast=p["contrast"], saturation=p["saturation"], hue=p["hue"]
        )
    return frames


# --- grayscale: infrared and night modes, black-and-white prints ------------------------------------------------------


def draw_grayscale(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    return {"grayscale_on": u[:, 0] < config.grayscale}


def apply_grayscale(frames: Node, p: dict[str, Node], size: int) -> Node:
    if p["grayscale_on"]:
        frames = fn.saturation(frames, saturation=0.0)
    return frames


# --- Gaussian blur: out of focus --------------------------------------------------------------------------------------


def draw_blur(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`blur_sigma`: float32 [n], pixels of a 224-pixel picture scaled to `size`."""
    return {
        "blur_on": u[:, 0] < config.blur,
        "blur_sigma": _between(u[:, 1], 0.1, max(0.1, config.blur_sigma_max)) * np.float32(size / 224),
    }


def apply_blur(frames: Node, p: dict[str, Node], size: int) -> Node:
    if p["blur_on"]:
        frames = fn.gaussian_blur(frames, sigma=p["blur_sigma"])
    return frames


# --- JPEG compression: messengers, cheap cameras ----------------------------------------------------------------------


def draw_jpeg(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`jpeg_quality`: int32 [n], `jpeg_quality_min` to 95."""
    low = config.jpeg_quality_min
    quality = np.floor(low + u[:, 1] * (max(95, low) - low + 1)).astype(np.int32)
    return {"jpeg_on": u[:, 0] < config.jpeg, "jpeg_quality": quality}


def apply_jpeg(frames: Node, p: dict[str, Node], size: int) -> Node:
    if p["jpeg_on"]:
        frames = fn.jpeg_compression_distortion(frames, quality=p["jpeg_quality"])
    return frames


# --- erase: a rectangle of grey over part of the picture (Zhong et al., "Random Erasing", AAAI 2020) ------------------


def draw_erase(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`erase_anchor`, `erase_shape`: float32 [n, 2], (row, column) and (height, width) in pixels."""
    area = _between(u[:, 1], 0.02, max(0.02, config.erase_scale_max))
    ratio = np.exp(_between(u[:, 2], np.log(0.3), np.log(1 / 0.3)))
    shape = np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], axis=1).clip(0, 1) * size
    anchor = u[:, 3:5] * (size - shape)
    return {
        "erase_on": u[:, 0] < config.erase,
        "erase_anchor": np.floor(anchor).astype(np.float32),
        "erase_shape": np.floor(shape).astype(np.float32),
    }


def apply_erase(frames: Node, p: dict[str, Node], size: int) -> Node:
    if p["erase_on"]:
        frames = fn.erase(frames, anchor=p["erase_anchor"], shape=p["erase_shape"], axis_names="HW", fill_value=128.0)
    return frames


# In order of application: from the scene to the file. Append only (see the module's docstring).
AUGMENTATIONS: tuple[Augmentation, ...] = (
    Augmentation("downscale", lambda c: c.downscale > 0 and c.downscale_min < 1, draw_downscale, apply_downscale),
    Augmentation("color", lambda c: c.color > 0, draw_color, apply_color),
    Augmentation("grayscale", lambda c: c.grayscale > 0, draw_grayscale, apply_grayscale),
    Augmentation("blur", lambda c: c.blur > 0, draw_blur, apply_blur),
    Augmentation("jpeg", lambda c: c.jpeg > 0, draw_jpeg, apply_jpeg),
    Augmentation("erase", lambda c: c.erase > 0, draw_erase, apply_erase),
)
