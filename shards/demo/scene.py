"""Pictures for the demo corpus: procedural faces, rooms, and the flat things (paper, screens) that attacks are made of.

Pure functions of their arguments. An image is float32 [H, W, 3], RGB, 0..1, upright. Faces live in face units: the head
is 2 high and centred on (0, 0), x to the right and y down. Nothing here knows of files, labels or time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Random = np.random.Generator

SKIN_TONES = ((0.94, 0.78, 0.67), (0.86, 0.66, 0.52), (0.76, 0.55, 0.40), (0.58, 0.40, 0.29), (0.42, 0.28, 0.21))
HAIR_COLOURS = ((0.08, 0.06, 0.05), (0.22, 0.14, 0.09), (0.42, 0.29, 0.16), (0.62, 0.50, 0.30), (0.55, 0.54, 0.53))
EYE_COLOURS = ((0.25, 0.15, 0.08), (0.20, 0.35, 0.50), (0.25, 0.38, 0.22))


@dataclass(frozen=True)
class Face:
    """What stays the same in all clips of a person. Lengths are in face units, colours RGB in 0..1."""

    skin: Image
    hair: Image
    iris: Image
    lip: Image
    half_width: float
    jaw: float
    eye_gap: float
    eye_size: float
    brow: float
    nose: float
    mouth_width: float
    hairline: float
    hair_volume: float
    beard: float
    glasses: bool
    mottle: Image
    """Skin texture, [64, 64], mean 0."""


@dataclass(frozen=True)
class Pose:
    """A face at one instant. `x`, `y`, `scale` are in pixels (scale: pixels a face unit), angles in radians."""

    x: float
    y: float
    scale: float
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    blink: float = 0.0
    """0: eyes open, 1: closed."""
    mouth: float = 0.0
    """0: closed, 1: wide open."""
    light: float = 0.0
    """Where the light comes from: -1 left, 1 right."""


def smooth_noise(random: Random, height: int, width: int, cells: int) -> Image:
    """Value noise: a random lattice of about `cells` cells across, interpolated bilinearly. [height, width], 0..1."""
    rows = max(2, round(cells * height / max(height, width)) + 1)
    columns = max(2, round(cells * width / max(height, width)) + 1)
    lattice = random.random((rows, columns, 1), dtype=np.float32)
    y, x = np.meshgrid(
        np.linspace(0, rows - 1, height, dtype=np.float32),
        np.linspace(0, columns - 1, width, dtype=np.float32),
        indexing="ij",
    )
    return sample(lattice, x, y)[..., 0]


def sample(texture: Image, x: Image, y: Image) -> Image:
    """Bilinear look-up of `texture` [h, w, c] at pixel centres (x, y) [...]; edges repeat. Returns [..., c]."""
    height, width, channels = texture.shape
    x = np.clip(x, 0, width - 1)
    y = np.clip(y, 0, height - 1)
    left = np.minimum(x.astype(np.int32), width - 2)
    top = np.minimum(y.astype(np.int32), height - 2)
    across = _expand(x - left, channels)
    down = _expand(y - top, channels)
    flat = texture.reshape(-1, channels)
    corner = top * width + left
    upper = flat.take(corner, axis=0)
    upper += across * (flat.take(corner + 1, axis=0) - upper)
    lower = flat.take(corner + width, axis=0)
    lower += across * (flat.take(corner + width + 1, axis=0) - lower)
    upper += down * (lower - upper)
    return upper


def make_face(random: Random) -> Face:
    """Draw a person."""
    skin = _rgb(*SKIN_TONES[random.integers(len(SKIN_TONES))]) * np.float32(random.uniform(0.92, 1.05))
    hair = _rgb(*HAIR_COLOURS[random.integers(len(HAIR_COLOURS))])
    iris = _rgb(*EYE_COLOURS[random.integers(len(EYE_COLOURS))])
    mottle = smooth_noise(random, 64, 64, 24) + smooth_noise(random, 64, 64, 9) - np.float32(1)
    return Face(
        skin=skin,
        hair=hair,
        iris=iris,
        lip=skin * _rgb(0.88, 0.55, 0.55),
        half_width=random.uniform(0.68, 0.84),
        jaw=random.uniform(0.05, 0.30),
        eye_gap=random.uniform(0.30, 0.38),
        eye_size=random.uniform(0.11, 0.15),
        brow=random.uniform(0.02, 0.05),
        nose=random.uniform(0.08, 0.13),
        mouth_width=random.uniform(0.22, 0.32),
        hairline=random.uniform(-0.75, -0.50),
        hair_volume=random.uniform(0.02, 0.22),
        beard=float(random.choice([0.0, 0.0, random.uniform(0.3, 0.8)])),
        glasses=bool(random.random() < 0.3),
        mottle=mottle,
    )


def make_room(random: Random, height: int, width: int) -> Image:
    """Draw a background [height, width, 3]: a lit wall, furniture-like striped rectangles, one bright window."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    wall = random.uniform(0.30, 0.85, 3).astype(np.float32) * np.float32(0.6) + np.float32(0.2)
    slope = random.uniform(-0.25, 0.25, 2)
    shade = 1 + np.float32(slope[0]) * (x / width - 0.5) + np.float32(slope[1]) * (y / height - 0.5)
    room = wall * shade[..., None] * (0.9 + 0.2 * smooth_noise(random, height, width, 40))[..., None]
    for _ in range(int(random.integers(5, 9))):
        left, top = random.uniform(-0.1, 0.9, 2) * (width, height)
        across, down = random.uniform(0.08, 0.35, 2) * (width, height)
        inside = (x > left) & (x < left + across) & (y > top) & (y < top + down)
        colour = random.uniform(0.05, 0.9, 3).astype(np.float32)
        stripes = 1 + np.float32(0.25) * np.sign(np.sin(x * np.float32(random.uniform(0.1, 0.8))))
        room[inside] = (colour * stripes[..., None])[inside]
    left, top = random.uniform(0.0, 0.8, 2) * (width, height)
    window = np.exp(-(((x - left) / (0.12 * width)) ** 2) - ((y - top) / (0.2 * height)) ** 2) * random.uniform(
        0.0, 0.35
    )
    room = np.clip(room + window[..., None], 0, 1, dtype=np.float32)
    # In memory plane by plane: what is painted on it later runs several times faster.
    return np.ascontiguousarray(room.transpose(2, 0, 1)).transpose(1, 2, 0)


def draw_face(image: Image, face: Face, pose: Pose) -> None:
    """Paint `face` with neck and shoulders onto `image` in place.

    Yaw and pitch move each feature by its depth (nose more than eyes, eyes more than the outline): the parallax within
    a head that a flat copy of it cannot have.
    """
    height, width = image.shape[:2]
    top = max(0, int(pose.y - 1.6 * pose.scale))
    left, right = max(0, int(pose.x - 2.1 * pose.scale)), min(width, int(pose.x + 2.1 * pose.scale) + 1)
    if top >= height or left >= right:
        return
    y, x = np.mgrid[top:height, left:right].astype(np.float32)
    x = (x - np.float32(pose.x)) / np.float32(pose.scale)
    y = (y - np.float32(pose.y)) / np.float32(pose.scale)
    region = image[top:, left:right]
    softness = 2.0 / pose.scale
    cloth = face.iris * np.float32(0.8) + np.float32(0.1)
    _paint(region, _ellipse(x, y, 0, 2.3, 1.7, 1.05, softness), cloth)
    _paint(region, _ellipse(x, y, 0, 1.1, 0.36, 0.6, softness), face.skin * np.float32(0.72))

    # The head turns about its own centre; neck and shoulders stay.
    cosine, sine = np.float32(np.cos(pose.roll)), np.float32(np.sin(pose.roll))
    x, y = x * cosine + y * sine, y * cosine - x * sine
    rows = slice(0, max(0, min(height, int(pose.y + 1.3 * pose.scale)) - top))
    columns = _within(left, right, pose.x, 1.3 * pose.scale)
    x, y, region = x[rows, columns], y[rows, columns], region[rows, columns]
    if region.size:
        _draw_head(region, face, pose, x, y, softness)


def _draw_head(region: Image, face: Face, pose: Pose, x: Image, y: Image, softness: float) -> None:
    yaw, pitch = float(np.sin(pose.yaw)), float(np.sin(pose.pitch))
    volume = face.hair_volume
    _paint(region, _ellipse(x, y, -0.04 * yaw, -0.12, face.half_width + volume, 0.95 + volume, softness), face.hair)
    narrowing = 1 - face.jaw * np.clip(y, 0, 1)
    head = _ellipse(x / narrowing, y, 0, 0, face.half_width, 1.0, softness)
    across = np.clip(x / face.half_width, -1, 1)
    facing = np.sqrt(np.maximum(0, 1 - across**2 - 0.5 * np.clip(y, -1, 1) ** 2))
    shade = 0.62 + 0.40 * facing + 0.16 * across * np.float32(pose.light - yaw)
    texture = sample(face.mottle[..., None], (x - 0.3 * yaw + 1) * 31.5, (y - 0.3 * pitch + 1) * 31.5)
    _paint(region, head, face.skin * shade[..., None] * (1 + 0.14 * texture))

    # (u, v): the face's surface at the depth of eyes and mouth.
    u, v = x - np.float32(0.34 * yaw), y - np.float32(0.30 * pitch)
    if face.beard:
        jaw = _ellipse(u, v, 0, 0.62, 0.55, 0.45, 0.25) * head * (1 - _ellipse(u, v, 0, 0.42, 0.36, 0.2, 0.1))
        _paint(region, jaw * np.float32(face.beard), face.hair)
    _paint(region, head * np.clip((face.hairline - v + 0.12 * u**2) / 0.06, 0, 1), face.hair)
    open_height = face.eye_size * 0.62 * (1 - 0.92 * pose.blink)
    for side in (-1, 1):
        eye_x, eye_y = side * face.eye_gap, -0.12
        box = _window(u, v, eye_x, eye_y, 0.34)
        p, q, part = u[box], v[box], region[box]
        if not part.size:
            continue
        _paint(
            part,
            _ellipse(p, q, eye_x, eye_y, face.eye_size * 1.35, face.eye_size, 0.12) * 0.35,
            face.skin * np.float32(0.55),
        )
        white = _ellipse(p, q, eye_x, eye_y, face.eye_size, open_height, softness)
        _paint(part, white, _rgb(0.92, 0.91, 0.89))
        gaze = eye_x + 0.06 * yaw
        _paint(part, white * _ellipse(p, q, gaze, eye_y, 0.058, 0.058, softness), face.iris)
        _paint(part, white * _ellipse(p, q, gaze, eye_y, 0.028, 0.028, softness), _rgb(0.02, 0.02, 0.02))
        _paint(part, white * _ellipse(p, q, gaze + 0.02, eye_y - 0.02, 0.014, 0.014, softness), _rgb(1, 1, 1))
        _paint(part, _ellipse(p, q, eye_x, eye_y - 0.2, face.eye_size * 1.25, face.brow, softness * 1.5), face.hair)
        if face.glasses:
            ring = _ellipse(p, q, eye_x, eye_y, 0.24, 0.19, softness) - _ellipse(
                p, q, eye_x, eye_y, 0.205, 0.155, softness
            )
            _paint(part, ring, _rgb(0.06, 0.06, 0.07))
    nose = x - np.float32(0.52 * yaw), y - np.float32(0.46 * pitch)
    box = _window(*nose, 0, 0.12, 0.35)
    p, q, part = nose[0][box], nose[1][box], region[box]
    if part.size:
        _paint(
            part,
            _ellipse(p, q, 0.03 * pose.light + 0.02, 0.08, face.nose * 0.55, 0.26, 0.1) * 0.45,
            np.clip(face.skin * np.float32(1.12), 0, 1),
        )
        _paint(
            part, _ellipse(p, q, -0.06 * pose.light, 0.26, face.nose, 0.05, 0.06) * 0.7, face.skin * np.float32(0.55)
        )
    box = _window(u, v, 0, 0.5, 0.45)
    p, q, part = u[box], v[box], region[box]
    if part.size:
        opening = 0.012 + 0.13 * pose.mouth
        _paint(part, _ellipse(p, q, 0, 0.5, face.mouth_width, 0.06 + opening, softness * 1.5), face.lip)
        _paint(part, _ellipse(p, q, 0, 0.5, face.mouth_width * 0.85, opening, softness), _rgb(0.18, 0.06, 0.06))


def print_photo(random: Random, photo: Image) -> Image:
    """`photo` [h, w, 3] as a print on paper: ink's contrast and gamut, halftone dots, paper grain, a white margin."""
    height, width = photo.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ink = np.float32(0.22) + np.float32(0.60) * photo
    ink = ink * np.float32(0.8) + ink.mean(axis=-1, keepdims=True) * np.float32(0.2)
    pitch = np.float32(random.uniform(3.0, 4.5))
    for channel, angle in enumerate(np.deg2rad((15.0, 75.0, 45.0))):
        across = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
        down = np.float32(np.cos(angle)) * y - np.float32(np.sin(angle)) * x
        dots = np.cos(across * (2 * np.pi / pitch)) * np.cos(down * (2 * np.pi / pitch))
        ink[..., channel] += np.float32(random.uniform(0.10, 0.16)) * dots.astype(np.float32)
    margin = int(random.integers(4, 22))
    paper = np.full((height + 2 * margin, width + 2 * margin, 3), 0.88, np.float32)
    paper[margin:-margin, margin:-margin] = ink
    grain = random.standard_normal(paper.shape[:2], dtype=np.float32) * np.float32(0.02)
    crease = smooth_noise(random, paper.shape[0], paper.shape[1], 4) * np.float32(0.12) - np.float32(0.06)
    return np.clip(paper + (grain + crease)[..., None], 0, 1)


def show_on_screen(picture: Image, bezel: int) -> Image:
    """`picture` [h, w, 3] on a display within a black frame of `bezel` pixels: bluish white, raised blacks."""
    height, width = picture.shape[:2]
    screen = np.full((height + 2 * bezel, width + 2 * bezel, 3), 0.03, np.float32)
    screen[bezel : height + bezel, bezel : width + bezel] = np.float32(0.07) + picture * _rgb(0.86, 0.93, 1.04)
    return screen


def plane_coordinates(
    height: int, width: int, x: float, y: float, scale: float, roll: float, yaw: float, pitch: float
) -> tuple[Image, Image]:
    """Where each pixel of a frame meets a plane in space: plane coordinates (u, v), each [height, width].

    A pinhole camera with a focal length of 1.2 frame diagonals looks at a plane whose centre appears at pixel (x, y),
    whose unit length appears `scale` pixels long, turned by `yaw`, `pitch`, `roll` (radians). Homography: Hartley and
    Zisserman, Multiple View Geometry, eq. 8.1 with Z = 0.
    """
    focal = 1.2 * float(np.hypot(height, width))
    cr, sr, cy, sy, cp, sp = (f(a) for a in (roll, yaw, pitch) for f in (np.cos, np.sin))
    turn = (
        np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    )
    distance = focal / scale
    place = np.array([(x - width / 2) / scale, (y - height / 2) / scale, distance])
    camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    inverse = np.linalg.inv(camera @ np.column_stack([turn[:, 0], turn[:, 1], place])).astype(np.float32)
    row, column = np.mgrid[0:height, 0:width].astype(np.float32)
    depth = inverse[2, 0] * column + inverse[2, 1] * row + inverse[2, 2]
    u = (inverse[0, 0] * column + inverse[0, 1] * row + inverse[0, 2]) / depth
    v = (inverse[1, 0] * column + inverse[1, 1] * row + inverse[1, 2]) / depth
    return u, v


def paste_plane(image: Image, texture: Image, u: Image, v: Image, gain: Image | None = None) -> None:
    """Paint `texture` [h, w, 3] onto `image` in place where (u, v) fall on it: its height spans v in -1..1.

    `gain`, [H, W] or [H, W, 1..3], multiplies the texture: patterns of the screen, or light on it.
    """
    height, width = texture.shape[:2]
    aspect = width / height
    unit = height / 2
    softness = float(np.abs(v[0, 0] - v[-1, 0])) / v.shape[0] * 1.5
    alpha = np.clip((aspect - np.abs(u)) / softness + 0.5, 0, 1) * np.clip((1 - np.abs(v)) / softness + 0.5, 0, 1)
    inside = alpha > 0
    colour = sample(texture, (u[inside] + aspect) * unit - 0.5, (v[inside] + 1) * unit - 0.5)
    if gain is not None:
        colour *= (gain if gain.ndim == 3 else gain[..., None])[inside]
    below = image[inside]
    image[inside] = below + _expand(alpha[inside], 3) * (colour - below)


def pixel_grid(u: Image, v: Image, lines: float, depth: float) -> Image:
    """Brightness [H, W, 3] of a display with `lines` pixel rows a unit of v and RGB stripes.

    The camera samples the display's grid near its own pitch, so the moire of a filmed screen comes by aliasing, as
    it does in front of a real one.
    """
    phase = np.float32(2 * np.pi * lines)
    rows = np.cos(phase * v)
    gain = np.empty((*u.shape, 3), np.float32)
    for channel in range(3):
        stripes = np.cos(phase * u + np.float32(2 * np.pi / 3 * channel))
        gain[..., channel] = 1 + np.float32(depth) * (0.6 * stripes + 0.4 * rows)
    return gain


def _rgb(red: float, green: float, blue: float) -> Image:
    return np.array([red, green, blue], np.float32)


def _ellipse(x: Image, y: Image, cx: float, cy: float, a: float, b: float, softness: float) -> Image:
    """Coverage 0..1 of an ellipse with half axes a, b; its edge is `softness` wide."""
    radius = np.sqrt(((x - np.float32(cx)) / np.float32(a)) ** 2 + ((y - np.float32(cy)) / np.float32(b)) ** 2)
    return np.clip((1 - radius) * np.float32(min(a, b) / softness) + np.float32(0.5), 0, 1)


def _expand(values: Image, channels: int) -> Image:
    """[...] to [..., channels] by repetition; much faster to multiply with than a broadcast over a last axis of 3."""
    return np.repeat(values, channels).reshape(*values.shape, channels)


def _paint(region: Image, alpha: Image, colour: Image) -> None:
    region += alpha[..., None] * (colour - region)


def _within(start: int, stop: int, centre: float, reach: float) -> slice:
    """The columns of start..stop within `reach` of `centre`, as a slice relative to `start`."""
    first = max(start, int(centre - reach))
    return slice(first - start, max(first, min(stop, int(centre + reach) + 1)) - start)


def _window(x: Image, y: Image, cx: float, cy: float, reach: float) -> tuple[slice, slice]:
    """The smallest rectangle that holds all points within `reach` of (cx, cy) in both coordinates."""
    near = (np.abs(x - np.float32(cx)) < reach) & (np.abs(y - np.float32(cy)) < reach)
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
