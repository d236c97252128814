"""Which part of a frame the model sees, as inputs of the graph: the whole of it, its centre, a random crop, the face.

`random_region` is training's, `fixed_region` evaluation's. Both give

    box     float32 [n, 4], of all frames of a clip: top, left, bottom, right in [0, 1] of the coded frame, on borders
            of pixels
    window  only with data.crop=face or data.fit=pad: int32 [n, F, 4], of each frame: top, left, height, width in
            pixels of what `box` cuts out; may reach beyond it, which is black
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.data import crop, face_crop, windows
from livetrain.data.clip_facts import Facts

Params = dict[str, NDArray[Any]]


def random_region(u: NDArray[np.float64], frames: NDArray[np.int64], facts: Facts, config: Config) -> Params:
    """The region of n training clips from uniform numbers u [n, at least 4] and their frames [n, F].

    Without augmentation it is that of evaluation.
    """
    if not config.augment.enabled:
        return fixed_region(frames, facts, config)
    aug, scales = config.augment, np.array(config.data.face_multi_scale)
    scale = aug.face_scale_min + u[:, 0] * (aug.face_scale_max - aug.face_scale_min)
    if len(scales):
        scale = scales[np.minimum((u[:, 0] * len(scales)).astype(np.int64), len(scales) - 1)]
    shift = (2 * u[:, 2:4] - 1) * aug.face_shift
    return _region(_random_box(u, facts, config), scale, shift, frames, facts, config)


def fixed_region(frames: NDArray[np.int64], facts: Facts, config: Config) -> Params:
    """The region of n clips without augmentation; frames: int64 [n, F]."""
    num = len(facts.rows)
    box = _square(facts, config)
    return _region(box, np.full(num, config.data.face_scale), np.zeros((num, 2)), frames, facts, config)


def shrunk(params: Params, side: NDArray[np.float64], facts: Facts) -> Params:
    """A region's middle: `side` (float [n]) of each of its sides; those of a clip whose `side` is 1 stay."""
    coded = np.stack([facts.coded_height, facts.coded_width] * 2, axis=1)
    if "window" in params:
        window = params["window"].copy()
        out = 2 * np.rint(window[..., 2:] * (1 - side[:, None, None]) / 2).astype(np.int32)
        window[..., :2] += out // 2
        window[..., 2:] -= out
        return {"window": window}
    shown = np.stack([facts.height, facts.width] * 2, axis=1)
    box = params["box"].astype(np.float64) * coded / shown  # of the picture, not of the coded frame
    middle, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]) / 2 * side[:, None]
    box = crop.even_box(np.concatenate([middle - half, middle + half], axis=1), facts.height, facts.width) / coded
    return {"box": np.where(side[:, None] < 1, box.astype(np.float32), params["box"])}


def coded_box(upright: NDArray[np.floating], rotation: NDArray[np.int64]) -> NDArray[np.float64]:
    """Boxes (top, left, bottom, right in [0, 1]) of the upright picture, in the coded frame.

    `rotation`: int64 [n], clockwise degrees that make the coded frame upright. Shapes [n, 4] → float64 [n, 4].
    """
    top, left, bottom, right = upright.T
    turned = {
        0: (top, left, bottom, right),
        90: (1 - right, top, 1 - left, bottom),
        180: (1 - bottom, 1 - right, 1 - top, 1 - left),
        270: (left, 1 - bottom, right, 1 - top),
    }
    out = np.empty((len(upright), 4))
    for degrees, box in turned.items():
        here = rotation == degrees
        out[here] = np.stack(box, axis=1)[here]
    return out


def _region(
    upright: NDArray[np.float64],
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    frames: NDArray[np.int64],
    facts: Facts,
    config: Config,
) -> Params:
    """`upright` boxes [n, 4], or the squares around faces, where these are used and known."""
    coded = np.stack([facts.coded_height, facts.coded_width] * 2, axis=1)
    turned = coded_box(upright, facts.rotation)
    boxes = crop.even_box(turned.astype(np.float32), facts.height, facts.width)
    if config.data.crop == "whole" and config.data.fit != "pad":
        return {"box": (boxes / coded).astype(np.float32)}
    seen = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)[:, None]
    if config.data.fit == "pad":
        seen = windows.pixel_windows(turned[:, None], facts.height, facts.width)
    seen = np.repeat(seen, frames.shape[1], axis=1)
    if config.data.crop == "face":
        _look_at_faces(seen, scale, shift, frames, facts, config)
    pixels, seen = windows.around(seen, facts.height, facts.width)
    return {"box": (pixels / coded).astype(np.float32), "window": seen.astype(np.int32)}


def _look_at_faces(
    seen: NDArray[np.int64],
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    frames: NDArray[np.int64],
    facts: Facts,
    config: Config,
) -> None:
    """Put the squares around the faces that are known into windows `seen` [n, F, 4]."""
    tracks = [facts.face(row) for row in facts.rows.tolist()]
    known = np.array([clip for clip, track in enumerate(tracks) if track is not None], np.int64)
    if len(known):
        height, width = upright_size(facts, config)
        around_faces = face_crop.squares(
            [track for track in tracks if track is not None],
            frames[known], height[known], width[known], scale[known], shift[known],
        )  # fmt: skip
        turns = np.repeat(facts.rotation[known], frames.shape[1])
        squares = coded_box(around_faces.reshape(-1, 4), turns).reshape(around_faces.shape)
        seen[known] = windows.pixel_windows(squares, facts.height[known], facts.width[known])


def upright_size(facts: Facts, config: Config) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Height and width that a player shows, in units of a pixel's height before rotation."""
    width = facts.width * (facts.sample_aspect_ratio if config.data.apply_sar else 1.0)
    lying = facts.rotation % 180 == 90
    return np.where(lying, width, facts.height), np.where(lying, facts.height, width)


def _random_box(u: NDArray[np.float64], facts: Facts, config: Config) -> NDArray[np.float64]:
    """A random box of the upright picture, [n, 4].

    Area and aspect ratio are relative to what evaluation shows the model (the stretched frame, its centre square, or
    the square around it), so that training varies around it.
    """
    aug = config.augment
    area = aug.crop_scale_min + u[:, 0] * (aug.crop_scale_max - aug.crop_scale_min)
    ratio = np.exp(np.log(aug.crop_ratio_min) + u[:, 1] * np.log(aug.crop_ratio_max / aug.crop_ratio_min))
    height, width = np.sqrt(area / ratio), np.sqrt(area * ratio)
    square = _square(facts, config)
    sides = square[:, 2:] - square[:, :2]
    room = np.maximum(sides, 1)  # where the crop may be: anywhere in the picture, and in bars around it
    sides = np.minimum(np.stack([height, width], axis=1) * sides, room)
    first = (1 - room) / 2 + u[:, 2:4] * (room - sides)
    return np.concatenate([first, first + sides], axis=1)


def _square(facts: Facts, config: Config) -> NDArray[np.float64]:
    """What evaluation shows the model of upright pictures, [n, 4]: a square, or all of it, which becomes one."""
    height, width = upright_size(facts, config)
    if config.data.fit == "stretch":
        return np.tile([0.0, 0.0, 1.0, 1.0], (len(height), 1))
    side = np.minimum(height, width) if config.data.fit == "center" else np.maximum(height, width)
    margin_y, margin_x = (1 - side / height) / 2, (1 - side / width) / 2
    return np.stack([margin_y, margin_x, 1 - margin_y, 1 - margin_x], axis=1)
