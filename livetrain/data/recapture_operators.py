"""What makes an attack of a live picture, in the graph: see livetrain.data.recapture, which plans it.

Each entry of OPERATORS is complete: `draw` turns uniform random numbers into parameters (NumPy, a row a clip), and
`change` adds DALI operators. To add one, insert it, its name into `RECAPTURES` of livetrain.config.augment, and a test.
`change` gets square pictures of `size` pixels, FHWC or HWC, uint8, of the clips alone for which `<name>_on` is true.

The list of operators and the strengths of `warp`, `reflection` and `halftone` are those of FAS-Aug (R. Cai et al.,
"Towards Data-Centric Face Anti-Spoofing", 2024, arXiv 2409.03501); other strengths were chosen by eye. `warp` turns and
enlarges the picture; FAS-Aug's grows with the radius.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, math, types
from nvidia.dali.pipeline import do_not_convert

from livetrain.data.augment import PATH, Node, Parameters, Uniforms, about_middle, beside, between, where

NUM_UNIFORMS = 16  # reserved for each operator
SCALE = 224  # lengths are in pixels of a picture of so many


@dataclass(frozen=True)
class Operator:
    """`draw(u [n, 16] in [0, 1), size)` → parameters [n, …]; `change(frames, scene, parameters, size)` → frames.

    scene: the live clip, as it was before any operator.
    """

    name: str
    draw: Callable[[Uniforms, int], Parameters]
    change: Callable[[Node, Node, dict[str, Node], int], Node]

    def __post_init__(self) -> None:
        do_not_convert(self.change)

    def apply(self, frames: Node, scene: Node, p: dict[str, Node], size: int) -> Node:
        """Part of the graph: `change` of the clips for which it is on."""
        return where(p[f"{self.name}_on"], self.change, (frames, scene, p, size))


def _coordinates(frames: Node, size: int) -> tuple[Node, Node]:
    """Column and row of each pixel's middle, float32 [size, size, 1], from 0 to `size`."""
    row, column = np.mgrid[:size, :size].astype(np.float32) + np.float32(0.5)
    return tuple(beside(frames, types.Constant(one[..., None], device="cpu")) for one in (column, row))


def _bytes(values: Node) -> Node:
    return fn.cast(values, dtype=types.UINT8)  # rounds and saturates


def _waves(frames: Node, vector: Node, phase: Node, size: int) -> Node:
    """cos(2 pi (vector . pixel + phase)): vector [2], waves a pixel across and down; phase [3], of the channels."""
    column, row = _coordinates(frames, size)
    across, down = (beside(frames, vector[axis]) for axis in (0, 1))
    return math.cos(np.float32(2 * np.pi) * (column * across + row * down + beside(frames, phase)))


def _vectors(frequency: NDArray[np.floating], angle: NDArray[np.floating]) -> NDArray[np.float32]:
    return (np.stack([np.cos(angle), np.sin(angle)], axis=1) * frequency[:, None]).astype(np.float32)


# --- moire: two fine gratings, a little askew, whose beat is coarse; fringes of colour --------------------------------


def draw_moire(u: Uniforms, size: int) -> Parameters:
    """Two wave vectors (waves a pixel), the phases of the channels, the depth."""
    angle, frequency = np.pi * u[:, 0], between(u[:, 1], 0.08, 0.45)
    second = frequency * between(u[:, 2], 0.85, 1.15)
    phase = np.stack([u[:, 4], u[:, 4] + 0.2 * u[:, 5], u[:, 4] + 0.4 * u[:, 5]], axis=1)
    return {
        "moire_first": _vectors(frequency, angle.astype(np.float32)),
        "moire_second": _vectors(second, (angle + between(u[:, 3], -0.15, 0.15)).astype(np.float32)),
        "moire_phase": phase.astype(np.float32),
        "moire_depth": between(u[:, 6], 0.06, 0.25),
    }


def apply_moire(frames: Node, scene: Node, p: dict[str, Node], size: int) -> Node:
    first = _waves(frames, p["moire_first"], p["moire_phase"], size)
    second = _waves(frames, p["moire_second"], p["moire_phase"], size)
    depth = beside(frames, p["moire_depth"])
    return _bytes(frames * (1.0 + depth * (first * second + 0.5 * (first + second)) * 0.5))


# --- screen: the grid of its pixels, in stripes of red, green and blue, and bands of its refresh, which wander --------


def draw_screen(u: Uniforms, size: int) -> Parameters:
    """Wave vectors of columns, rows and bands, phases, depths [n, 3] of columns, rows, bands.

    `screen_cos`, `screen_sin`: float32 [n, PATH, 1, 1, 1], of how far the bands have wandered at each frame. They stand
    still where the camera keeps step with the screen (3 of 10), else any share of a wave passes from frame to frame.
    """
    waves = np.where(u[:, 8] < 0.3, 0.0, u[:, 9])[:, None] * np.arange(PATH)
    wander = 2 * np.pi * waves[..., None, None, None]
    frequency = np.float32(SCALE / size) / between(u[:, 0], 2.2, 7.0)
    tilt = between(u[:, 1], -0.06, 0.06)
    thirds = u[:, 2:3] + np.arange(3) / 3
    return {
        "screen_columns": _vectors(frequency, tilt),
        "screen_rows": _vectors(frequency, tilt + np.float32(np.pi / 2)),
        "screen_bands": _vectors(between(u[:, 3], 0.5, 4.0) / size, tilt + np.float32(np.pi / 2)),
        "screen_phase": thirds.astype(np.float32),
        "screen_place": np.repeat(u[:, 4:5], 3, axis=1).astype(np.float32),
        "screen_depth": np.stack(
            [between(u[:, 5], 0.05, 0.3), between(u[:, 6], 0.02, 0.2), between(u[:, 7], 0.0, 0.2)], axis=1
        ),
        "screen_cos": np.cos(wander).astype(np.float32),
        "screen_sin": np.sin(wander).astype(np.float32),
    }


def apply_screen(frames: Node, scene: Node, p: dict[str, Node], size: int) -> Node:
    depth = [beside(frames, p["screen_depth"][number]) for number in range(3)]
    columns = _waves(frames, p["screen_columns"], p["screen_phase"], size)
    rows = _waves(frames, p["screen_rows"], p["screen_place"], size)
    # cos(a + b) = cos a cos b - sin a sin b: waves are computed once a clip, not once a frame.
    still = _waves(frames, p["screen_bands"], p["screen_place"], size)
    quarter = _waves(frames, p["screen_bands"], p["screen_place"] - np.float32(0.25), size)
    bands = still * beside(frames, p["screen_cos"]) - quarter * beside(frames, p["screen_sin"])
    return _bytes(frames * ((1.0 + depth[0] * columns) * (1.0 + depth[1] * rows) * (1.0 + depth[2] * bands)))


# --- halftone: dots that grow with the ink, each channel's screen turned its own way, or grain without an order -------

HALFTONE_ANGLES = np.deg2rad([15.0, 75.0, 0.0])  # of cyan, magenta and yellow, as presses have them


def draw_halftone(u: Uniforms, size: int) -> Parameters:
    """Wave vectors [n, 3, 4] of the channels (two each), the share of the dots, and of those how many are grain."""
    frequency = np.float32(SCALE / size) / between(u[:, 0], 3.0, 8.0)
    angle = (u[:, 1:2] * np.pi / 2 + HALFTONE_ANGLES).astype(np.float32)
    pairs = [
        np.concatenate(
            [_vectors(frequency, angle[:, c]), _vectors(frequency, angle[:, c] + np.float32(np.pi / 2))], axis=1
        )
        for c in range(3)
    ]
    return {
        "halftone_vectors": np.stack(pairs, axis=1),
        "halftone_share": between(u[:, 2], 0.1, 0.4),
        "halftone_grain": (u[:, 3] < 0.3).astype(np.float32),
    }


def grain(size: int) -> NDArray[np.float32]:
    """Thresholds without an order, without low frequencies (blue noise): float32 [size, size, 1] in [0, 1]."""
    noise = np.random.Generator(np.random.Philox(11)).standard_normal((size, size))
    waves = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    high = np.real(np.fft.ifft2(np.fft.fft2(noise) * np.minimum(1, waves / 0.35)))
    ranks = high.ravel().argsort().argsort().reshape(size, size)
    return (ranks[..., None] / ranks.max()).astype(np.float32)


def apply_halftone(frames: Node, scene: Node, p: dict[str, Node], size: int) -> Node:
    sheet = types.Constant(grain(size), device="cpu")
    column, row = _coordinates(frames, size)
    vectors = [beside(frames, p["halftone_vectors"][:, number]) for number in range(4)]  # [3] each
    turn = np.float32(2 * np.pi)
    one = math.cos(turn * (column * vectors[0] + row * vectors[1]))
    other = math.cos(turn * (column * vectors[2] + row * vectors[3]))
    is_grain = beside(frames, p["halftone_grain"])
    threshold = (1.0 - is_grain) * (2.0 + one + other) * 0.25 + is_grain * beside(frames, sheet)
    dots = math.clamp((frames * np.float32(1 / 255) - threshold) * 6.0 + 0.5, 0.0, 1.0) * 255.0
    share = beside(frames, p["halftone_share"])
    return _bytes(frames * (1.0 - share) + dots * share)


# --- print colours: inks reach fewer colours than screens, paper is not white, black is not black ---------------------


def draw_inks(u: Uniforms, size: int) -> Parameters:
    """`inks_matrix` [n, 3, 3] and `inks_offset` [n, 3]: levels of the print from levels of the picture."""
    keep = between(u[:, 0], 0.45, 0.9)[:, None, None]
    luma = np.array([0.299, 0.587, 0.114])
    mixed = keep * np.eye(3) + (1 - keep) * np.tile(luma, (3, 1))
    low, high = between(u[:, 1], 8, 50), between(u[:, 2], 190, 250)
    tint = 1 + (u[:, 3:6] - 0.5) * 0.2
    span = ((high - low) / 255)[:, None] * tint
    return {
        "inks_matrix": (span[:, :, None] * mixed).astype(np.float32),
        "inks_offset": (low[:, None] * tint).astype(np.float32),
    }


def apply_inks(frames: Node, scene: Node, p: dict[str, Node], size: int) -> Node:
    colours = fn.cast(frames, dtype=types.FLOAT)
    return _bytes(fn.coord_transform(colours, M=p["inks_matrix"], T=p["inks_offset"]))


# --- reflection: what stands before a glossy sheet or screen, and a lamp ----------------------------------------------


def draw_reflection(u: Uniforms, size: int) -> Parameters:
    """The share of what is mirrored; the lamp's column, row, radius (pixels) and height (levels), [n, 4]."""
    lamp: list[NDArray[np.floating]] = [
        u[:, 1] * size,
        u[:, 2] * size,
        between(u[:, 3], 0.06, 0.35) * size,
        between(u[:, 4], 0, 110),
    ]
    return {
        "reflection_share": between(u[:, 0], 0.01, 0.2),
        "reflection_lamp": np.stack(lamp, axis=1).astype(np.float32),
    }


def apply_reflection(frames: Node, scene: Node, p: dict[str, Node], size: int) -> Node:
    blurred = fn.resize(frames, size=[8, 8], interp_type=types.INTERP_LINEAR, antialias=True)
    mirrored: Node = fn.flip(fn.resize(blurred, size=[size, size], interp_type=types.INTERP_LINEAR), horizontal=1)
    share = beside(frames, p["reflection_share"])
    column, row = _coordinates(frames, size)
    lamp = [beside(frames, p["reflection_lamp"][number]) for number in range(4)]
    across, down = (column - lamp[0]) / lamp[2], (row - lamp[1]) / lamp[2]
    light = lamp[3] * math.exp(-0.5 * (across * across + down * down))
    return _bytes(frames * (1.0 - share) + mirrored * share + light)


# --- warp: the picture over itself, turned and enlarged a little: 0.8 of the one, 0.2 of the other --------------------


def draw_warp(u: Uniforms, size: int) -> Parameters:
    """`warp_matrix`: float32 [n, 2, 3], where each pixel of the second picture comes from."""
    angle = np.where(u[:, 0] < 0.5, -1, 1) * between(u[:, 1], 0.003, 0.03)
    zoom = 1 + between(u[:, 2], 0.0005, 0.01)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    return {"warp_matrix": about_middle(turn / zoom[:, None, None], np.zeros((len(u), 2)), size)}


def apply_warp(frames: Node, scene: Node, p: dict[str, Node], size: int) -> Node:
    second: Node = fn.warp_affine(frames, matrix=p["warp_matrix"], interp_type=types.INTERP_LINEAR)
    return _bytes(frames * np.float32(0.8) + second * np.float32(0.2))


# --- edge: a sheet or a screen held before a live scene: its border, the scene around it, seen at an angle ------------


def draw_edge(u: Uniforms, size: int) -> Parameters:
    """`edge_matrix` [n, 3, 3], pixels of the picture from pixels seen (homogeneous).

    `edge_margin` [n, 2], width of the border across and down, pixels. `edge_colour` [n, 3], its levels. `edge_scene`
    [n, 2], gain and offset of the scene behind.
    """
    half = between(u[:, 0], 0.62, 0.98) * np.float32(size / 2)
    middle = size / 2 + (u[:, 1:3] - 0.5) * 0.2 * size
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    moved = (np.stack([u[:, 3:7], u[:, 7:11]], axis=2) - 0.5) * 0.18
    seen = middle[:, None] + (corners + moved) * half[:, None, None]
    source = (corners + 1) / 2 * size
    dark = u[:, 11] < 0.4  # a bezel; else paper
    grey = np.where(dark, between(u[:, 12], 8, 60), between(u[:, 12], 190, 250))
    colour = (grey[:, None] * (1 + (np.stack([u[:, 13], u[:, 12], u[:, 14]], axis=1) - 0.5) * 0.12)).clip(0, 255)
    margin = np.stack([between(u[:, 14], 0.0, 0.16), between(u[:, 13], 0.0, 0.16)], axis=1)
    return {
        "edge_matrix": homographies(seen, source).astype(np.float32),
        "edge_margin": (margin * size).astype(np.float32),
        "edge_colour": colour.astype(np.float32),
        "edge_scene": np.stack([between(u[:, 15], 0.6, 1.1), between(u[:, 11], -25, 25)], axis=1),
    }


def homographies(points: NDArray[np.float64], images: NDArray[np.float64]) -> NDArray[np.float64]:
    """The projective maps [n, 3, 3] that take four points each, [n, 4, 2], to images [4, 2]; the last entry is 1."""
    num = len(points)
    x, y = points[..., 0], points[..., 1]
    across, down = np.broadcast_to(images, points.shape)[..., 0], np.broadcast_to(images, points.shape)[..., 1]
    one, nothing = np.ones((num, 4)), np.zeros((num, 4))
    upper = np.stack([x, y, one, nothing, nothing, nothing, -x * across, -y * across], axis=2)
    lower = np.stack([nothing, nothing, nothing, x, y, one, -x * down, -y * down], axis=2)
    found = np.linalg.solve(np.concatenate([upper, lower], axis=1), np.concatenate([across, down], axis=1)[..., None])
    return np.concatenate([found[..., 0], np.ones((num, 1))], axis=1).reshape(num, 3, 3)


def apply_edge(frames: Node, scene: Node, p: dict[str, Node], size: int) -> Node:
    seen: Node = fn.experimental.warp_perspective(
        frames, matrix=p["edge_matrix"], interp_type=types.INTERP_LINEAR, border_mode="replicate"
    )
    column, row = _coordinates(frames, size)
    matrix = [[beside(frames, p["edge_matrix"][line, place]) for place in range(3)] for line in range(3)]
    across, down, depth = (line[0] * column + line[1] * row + line[2] for line in matrix)
    outside = [_beyond(part / depth, size) for part in (across, down)]
    margin = [beside(frames, p["edge_margin"][axis]) for axis in (0, 1)]
    in_picture = _soft(-math.max(outside[0], outside[1]))
    on_sheet = _soft(-math.max(outside[0] - margin[0], outside[1] - margin[1]))
    gain, offset = (beside(frames, p["edge_scene"][number]) for number in (0, 1))
    mirrored: Node = fn.flip(scene, horizontal=1)
    behind = math.clamp(mirrored * gain + offset, 0.0, 255.0)
    sheet = in_picture * seen + (1.0 - in_picture) * beside(frames, p["edge_colour"])
    return _bytes(on_sheet * sheet + (1.0 - on_sheet) * behind)


def _beyond(place: Node, size: int) -> Node:
    """How many pixels a place along an axis lies beyond the picture; negative inside."""
    return math.abs(place - np.float32(size / 2)) - np.float32(size / 2)


def _soft(inside: Node) -> Node:
    """1 inside, 0 outside, over a pixel between."""
    return math.clamp(inside + 0.5, 0.0, 1.0)


# --- re-photograph: the second camera's curve, contrast and softness --------------------------------------------------


def draw_rephotograph(u: Uniforms, size: int) -> Parameters:
    """`rephotograph_curve` [n, 3]: exponent, gain, offset of values in [0, 1]. `rephotograph_size` [n, 2], pixels."""
    gain = between(u[:, 1], 0.7, 1.1)
    side = np.maximum(1, np.round(between(u[:, 3], 0.45, 1.0) * size)).astype(np.float32)
    curve = [np.exp(between(u[:, 0], -0.35, 0.35)), gain, between(u[:, 2], 0.0, 1.0) * (1 - gain) * 0.6]
    return {
        "rephotograph_curve": np.stack(curve, axis=1).astype(np.float32),
        "rephotograph_size": np.stack([side, side], axis=1),
    }


def apply_rephotograph(frames: Node, scene: Node, p: dict[str, Node], size: int) -> Node:
    small = fn.resize(frames, size=p["rephotograph_size"], interp_type=types.INTERP_LINEAR, antialias=True)
    soft: Node = fn.resize(small, size=[size, size], interp_type=types.INTERP_LINEAR)
    power, gain, offset = (beside(frames, p["rephotograph_curve"][number]) for number in range(3))
    return _bytes(255.0 * (math.pow(soft * np.float32(1 / 255), power) * gain + offset))


# In order of application: what is shown, what shows it, where it is held, what films it.
OPERATORS: tuple[Operator, ...] = (
    Operator("inks", draw_inks, apply_inks),
    Operator("halftone", draw_halftone, apply_halftone),
    Operator("screen", draw_screen, apply_screen),
    Operator("warp", draw_warp, apply_warp),
    Operator("edge", draw_edge, apply_edge),
    Operator("reflection", draw_reflection, apply_reflection),
    Operator("moire", draw_moire, apply_moire),
    Operator("rephotograph", draw_rephotograph, apply_rephotograph),
)
