"""The augmentations: what each one draws, and what it does to the frames.

Each entry of `AUGMENTATIONS` is one complete augmentation: `draw` turns planned uniform random numbers into parameters
(NumPy, one row per clip), and `change` adds the DALI operators that use them. To add one, insert an entry at its place
in the order of application, with the next free `slot` (it selects the random numbers, so that other augmentations keep
theirs), its fields in `AugmentConfig`, and a test.

All frames of a clip share the same parameters: parameters that change between frames would themselves be a spoof cue.
`tremble` moves from frame to frame, as a hand does, live clips and attacks alike; so do the bands of a screen, a cue of
attacks (livetrain.data.recapture).
`change` gets square pictures of `size` pixels, FHWC or HWC, uint8, upright but not yet flipped, of the clips alone for
which the parameter `<name>_on` is true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, math, types
from nvidia.dali.pipeline import do_not_convert

from livetrain.config import AugmentConfig

Uniforms = NDArray[np.float64]
Parameters = dict[str, NDArray[Any]]
Node = Any  # a DALI DataNode

NUM_UNIFORMS = 8  # random numbers reserved for each augmentation
PATH = 64  # frames after which what moves repeats itself
PER_FRAME = ("tremble_matrix", "screen_cos", "screen_sin")  # parameters [n, PATH, …] that each frame has its own of


@dataclass(frozen=True)
class Augmentation:
    """`draw(u [n, 8] in [0, 1), config, size)` → parameters [n, …], `<name>_on` among them.

    `change(frames, parameters, size)` → frames, of clips for which it is on. slot: which eight of a clip's random
    numbers it uses. name: the field of `AugmentConfig` with its probability.
    """

    slot: int
    name: str
    active: Callable[[AugmentConfig], bool]
    draw: Callable[[Uniforms, AugmentConfig, int], Parameters]
    change: Callable[[Node, dict[str, Node], int], Node]

    def __post_init__(self) -> None:
        do_not_convert(self.change)

    def apply(self, frames: Node, p: dict[str, Node], size: int) -> Node:
        """Part of the graph: `change` of the clips for which it is on."""
        return where(p[f"{self.name}_on"], self.change, (frames, p, size))


class Change(Protocol):
    """What the graph does to pictures: an augmentation, or an operator of livetrain.data.recapture."""

    def apply(self, frames: Node, p: dict[str, Node], size: int) -> Node: ...


def where(on: Node, change: Callable[..., Node], arguments: tuple[Any, ...]) -> Node:
    """Part of the graph: `change(*arguments)` of samples for which `on` is true, of others the first argument.

    DALI rewrites what has an `if` on one of its nodes, and all that is called from there, at 0.1 s a function in every
    process. Here is the only one; `change` (see do_not_convert) has none.
    """
    frames = arguments[0]
    if on:
        frames = change(*arguments)
    return frames


def active_augmentations(config: AugmentConfig) -> list[Augmentation]:
    """The augmentations that can change a picture under `config`, in order of application."""
    return [item for item in AUGMENTATIONS if config.enabled and item.active(config)]


def uniform_columns(augmentation: Augmentation) -> slice:
    """Which columns of a clip's uniform numbers belong to `augmentation`."""
    start = augmentation.slot * NUM_UNIFORMS
    return slice(start, start + NUM_UNIFORMS)


def between(u: Uniforms, low: float, high: float) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1) as such from `low` to `high`."""
    return (low + u * (high - low)).astype(np.float32)


def beside(frames: Node, node: Node) -> Node:
    """A parameter or constant where the frames are, for arithmetic with them."""
    return node.gpu() if frames.device == "gpu" else node


# --- upside down ------------------------------------------------------------------------------------------------------


def draw_flip_vertical(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    return {"flip_vertical_on": u[:, 0] < config.flip_vertical}


def apply_flip_vertical(frames: Node, p: dict[str, Node], size: int) -> Node:
    return fn.flip(frames, vertical=1, horizontal=0)


# --- affine: a camera held askew, not quite level, a little nearer or farther -----------------------------------------


def draw_affine(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`affine_matrix`: float32 [n, 2, 3], where in the picture (pixels, column and row) each pixel comes from."""
    angle, shear = (
        np.deg2rad(between(u[:, column], -limit, limit).astype(np.float64))
        for column, limit in ((1, config.affine_degrees), (2, config.affine_shear_degrees))
    )
    scale = np.exp(between(u[:, 3], -np.log1p(config.affine_scale), np.log1p(config.affine_scale)))
    shift = between(u[:, 4:6], -config.affine_translate, config.affine_translate) * size
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    slant = np.stack([np.ones(len(u)), np.tan(shear), np.zeros(len(u)), np.ones(len(u))], axis=1).reshape(-1, 2, 2)
    linear = turn @ slant / scale[:, None, None]
    return {"affine_on": u[:, 0] < config.affine, "affine_matrix": about_middle(linear, shift, size)}


def about_middle(linear: NDArray[np.floating], shift: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """Linear maps [n, 2, 2] about the middle of a picture of `size` pixels, moved by [n, 2]: float32 [n, 2, 3]."""
    middle = np.full(2, size / 2)
    offset = middle - (linear @ (middle + shift)[:, :, None])[:, :, 0]
    return np.concatenate([linear, offset[:, :, None]], axis=2).astype(np.float32)


def apply_affine(frames: Node, p: dict[str, Node], size: int) -> Node:
    return fn.warp_affine(frames, matrix=p["affine_matrix"], interp_type=types.INTERP_LINEAR)


# --- tremble: the hand that holds the camera --------------------------------------------------------------------------


def draw_tremble(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`tremble_matrix`: float32 [n, PATH, 2, 3], where each frame's pixels come from (pixels, column and row).

    Both directions swing by themselves: up to `tremble_max` of a picture 224 pixels wide, in 3 to 16 frames.
    """
    reach = between(u[:, 1:3], 1.0, config.tremble_max)[:, None] * size / 224
    cycles, phase = 1 / between(u[:, 3:5], 3.0, 16.0)[:, None], u[:, 5:7][:, None]
    shift = reach * np.sin(2 * np.pi * (cycles * np.arange(PATH)[None, :, None] + phase))
    matrix = np.zeros((len(u), PATH, 2, 3), np.float32)
    matrix[..., 0, 0] = matrix[..., 1, 1] = 1
    matrix[..., 2] = shift
    return {"tremble_on": u[:, 0] < config.tremble, "tremble_matrix": matrix}


def apply_tremble(frames: Node, p: dict[str, Node], size: int) -> Node:
    return fn.warp_affine(frames, matrix=p["tremble_matrix"], interp_type=types.INTERP_LINEAR)


# --- downscale and upscale: a video that was small, or far away, before it reached us ---------------------------------


def draw_downscale(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`downscale_size`: float32 [n, 2], pixels a side."""
    factor = between(u[:, 1], config.downscale_min, 1.0)
    side = np.maximum(1, np.round(factor * size)).astype(np.float32)
    return {"downscale_on": u[:, 0] < config.downscale, "downscale_size": np.stack([side, side], axis=1)}


def apply_downscale(frames: Node, p: dict[str, Node], size: int) -> Node:
    small = fn.resize(frames, size=p["downscale_size"], interp_type=types.INTERP_LINEAR, antialias=True)
    return fn.resize(small, size=[size, size], interp_type=types.INTERP_LINEAR)


# --- brightness, contrast, saturation, hue ----------------------------------------------------------------------------


def draw_color(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """Factors around 1 and a hue shift in degrees, float32 [n]."""
    return {
        "color_on": u[:, 0] < config.color,
        "brightness": between(u[:, 1], 1 - config.brightness, 1 + config.brightness),
        "contrast": between(u[:, 2], 1 - config.contrast, 1 + config.contrast),
        "saturation": between(u[:, 3], 1 - config.saturation, 1 + config.saturation),
        "hue": between(u[:, 4], -config.hue_degrees, config.hue_degrees),
    }


def apply_color(frames: Node, p: dict[str, Node], size: int) -> Node:
    return fn.color_twist(
        frames, brightness=p["brightness"], contrast=p["contrast"], saturation=p["saturation"], hue=p["hue"]
    )


# --- gamma: another transfer curve of camera or screen ----------------------------------------------------------------


def draw_gamma(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`gamma_power`: float32 [n], of values in [0, 1]; as often below 1 as above."""
    limit = np.log(config.gamma_max)
    return {"gamma_on": u[:, 0] < config.gamma, "gamma_power": np.exp(between(u[:, 1], -limit, limit))}


def apply_gamma(frames: Node, p: dict[str, Node], size: int) -> Node:
    power = beside(frames, p["gamma_power"])
    return fn.cast(255.0 * math.pow(frames * np.float32(1 / 255), power), dtype=types.UINT8)


# --- colour temperature: the light of a bulb or of a cloudy day -------------------------------------------------------


def draw_temperature(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`temperature_gains`: float32 [n, 3], of R, G, B; red up and blue down, or the other way round."""
    warmth = between(u[:, 1], -config.temperature_max, config.temperature_max)
    gains = np.stack([1 + warmth, np.ones_like(warmth), 1 - warmth], axis=1)
    return {"temperature_on": u[:, 0] < config.temperature, "temperature_gains": gains}


def apply_temperature(frames: Node, p: dict[str, Node], size: int) -> Node:
    return fn.cast(frames * beside(frames, p["temperature_gains"]), dtype=types.UINT8)


# --- grayscale: infrared and night modes, black-and-white prints ------------------------------------------------------


def draw_grayscale(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    return {"grayscale_on": u[:, 0] < config.grayscale}


def apply_grayscale(frames: Node, p: dict[str, Node], size: int) -> Node:
    return fn.saturation(frames, saturation=0.0)


# --- Gaussian blur: out of focus --------------------------------------------------------------------------------------


def draw_blur(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`blur_sigma`: float32 [n], pixels of a 224-pixel picture scaled to `size`."""
    return {
        "blur_on": u[:, 0] < config.blur,
        "blur_sigma": between(u[:, 1], 0.1, max(0.1, config.blur_sigma_max)) * np.float32(size / 224),
    }


def apply_blur(frames: Node, p: dict[str, Node], size: int) -> Node:
    return fn.gaussian_blur(frames, sigma=p["blur_sigma"])


# --- motion blur: the camera or the head moved while the shutter was open ---------------------------------------------


def draw_motion_blur(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`motion_blur_kernel`: float32 [n, k, k], a line of ones, of mean 1 / k²; k from the longest blur, odd."""
    longest = config.motion_blur_length_max * size / 224
    side = 2 * int(np.ceil(longest / 2)) + 1
    on = u[:, 0] < config.motion_blur
    length = np.where(on, between(u[:, 1], 1.0, max(1.0, longest)), 0.0)
    angle = np.pi * u[:, 2]
    along = np.linspace(-0.5, 0.5, 4 * side + 1)
    column, row = (side // 2 + along * (length * part)[:, None] for part in (np.cos(angle), np.sin(angle)))
    kernel = np.zeros((len(u), side, side), np.float32)
    clip = np.broadcast_to(np.arange(len(u))[:, None], column.shape)
    # Each point of the line is shared out to the four pixels around it.
    for below, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        rows, columns = np.floor(row).astype(int) + below, np.floor(column).astype(int) + right
        weight = (1 - np.abs(row - rows)) * (1 - np.abs(column - columns))
        np.add.at(kernel, (clip, rows.clip(0, side - 1), columns.clip(0, side - 1)), weight)
    return {"motion_blur_on": on, "motion_blur_kernel": kernel / kernel.sum(axis=(1, 2), keepdims=True)}


def apply_motion_blur(frames: Node, p: dict[str, Node], size: int) -> Node:
    return fn.filter(frames, beside(frames, p["motion_blur_kernel"]))


# --- noise: the grain of a sensor in poor light, the same in all frames of a clip (a camera's fixed pattern) ----------

GRAIN_ROOM = 64  # so many places, in both directions, where a clip's grain can be cut from the sheet


def draw_noise(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`noise_sigma`: float32 [n], levels of 255. `noise_anchor`: int32 [n, 2], where in the sheet of grain it lies."""
    return {
        "noise_on": u[:, 0] < config.noise,
        "noise_sigma": between(u[:, 1], 0.0, config.noise_sigma_max),
        "noise_anchor": np.floor(u[:, 2:4] * GRAIN_ROOM).astype(np.int32),
    }


def grain(size: int) -> NDArray[np.float32]:
    """The sheet that every clip's grain is cut from: standard normal, float32 [size + 64, size + 64, 3]."""
    side = size + GRAIN_ROOM
    return np.random.Generator(np.random.Philox(7)).standard_normal((side, side, 3), dtype=np.float32)


def apply_noise(frames: Node, p: dict[str, Node], size: int) -> Node:
    sheet = types.Constant(grain(size), device="cpu")
    own = fn.slice(sheet, start=p["noise_anchor"], shape=[size, size], axes=[0, 1])
    added = beside(frames, own) * beside(frames, p["noise_sigma"])
    return fn.cast(frames + added, dtype=types.UINT8)


# --- JPEG compression: messengers, cheap cameras ----------------------------------------------------------------------


def draw_jpeg(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`jpeg_quality`: int32 [n], `jpeg_quality_min` to 95."""
    low = config.jpeg_quality_min
    quality = np.floor(low + u[:, 1] * (max(95, low) - low + 1)).astype(np.int32)
    return {"jpeg_on": u[:, 0] < config.jpeg, "jpeg_quality": quality}


def apply_jpeg(frames: Node, p: dict[str, Node], size: int) -> Node:
    return fn.jpeg_compression_distortion(frames, quality=p["jpeg_quality"])


# --- erase: a rectangle of grey over part of the picture (Zhong et al., "Random Erasing", AAAI 2020) ------------------


def draw_erase(u: Uniforms, config: AugmentConfig, size: int) -> Parameters:
    """`erase_anchor`, `erase_shape`: float32 [n, 2], (row, column) and (height, width) in pixels."""
    area = between(u[:, 1], 0.02, max(0.02, config.erase_scale_max))
    ratio = np.exp(between(u[:, 2], np.log(0.3), np.log(1 / 0.3)))
    shape = np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], axis=1).clip(0, 1) * size
    anchor = u[:, 3:5] * (size - shape)
    return {
        "erase_on": u[:, 0] < config.erase,
        "erase_anchor": np.floor(anchor).astype(np.float32),
        "erase_shape": np.floor(shape).astype(np.float32),
    }


def apply_erase(frames: Node, p: dict[str, Node], size: int) -> Node:
    return fn.erase(frames, anchor=p["erase_anchor"], shape=p["erase_shape"], axis_names="HW", fill_value=128.0)


# In order of application: from the scene to the file. A slot is never given to another.
AUGMENTATIONS: tuple[Augmentation, ...] = (
    Augmentation(6, "flip_vertical", lambda c: c.flip_vertical > 0, draw_flip_vertical, apply_flip_vertical),
    Augmentation(7, "affine", lambda c: c.affine > 0, draw_affine, apply_affine),
    Augmentation(12, "tremble", lambda c: c.tremble > 0, draw_tremble, apply_tremble),
    Augmentation(0, "downscale", lambda c: c.downscale > 0 and c.downscale_min < 1, draw_downscale, apply_downscale),
    Augmentation(8, "temperature", lambda c: c.temperature > 0, draw_temperature, apply_temperature),
    Augmentation(1, "color", lambda c: c.color > 0, draw_color, apply_color),
    Augmentation(9, "gamma", lambda c: c.gamma > 0 and c.gamma_max > 1, draw_gamma, apply_gamma),
    Augmentation(2, "grayscale", lambda c: c.grayscale > 0, draw_grayscale, apply_grayscale),
    Augmentation(3, "blur", lambda c: c.blur > 0, draw_blur, apply_blur),
    Augmentation(10, "motion_blur", lambda c: c.motion_blur > 0, draw_motion_blur, apply_motion_blur),
    Augmentation(11, "noise", lambda c: c.noise > 0 and c.noise_sigma_max > 0, draw_noise, apply_noise),
    Augmentation(4, "jpeg", lambda c: c.jpeg > 0, draw_jpeg, apply_jpeg),
    Augmentation(5, "erase", lambda c: c.erase > 0, draw_erase, apply_erase),
)
