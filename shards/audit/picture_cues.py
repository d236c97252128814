"""What can be measured in a clip's pictures without knowing what they show: light, detail, motion, surroundings.

Every cue is measured so that another does not move it: contrast and detail relative to the light, light within the
borders, detail at one size. shards.audit.probes asks how well each alone separates the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shards.format.stored_clip import Picture

Floats = NDArray[np.float32]

DETAIL_SIDE = 128  # pixels of the short side at which detail is measured
PLAIN = 3.0  # levels: a row of pixels that varies less is part of a border
MAX_BORDER = 0.3  # of a side
BLOCK = 8  # pixels, of JPEG and of the transforms of video codecs
FACE_MARGIN = 0.3  # of a face's sides, around it, that is not background
CELLS = 3  # the surroundings are described on a grid of so many times so many


def measure(
    pictures: Sequence[Picture], box: NDArray[np.floating] | None, thumbnails: Floats
) -> dict[str, tuple[float, ...]]:
    """Cues by name, each a tuple of numbers (NaN: not measurable).

    pictures: some of a clip. box: [4], top, left, bottom, right in [0, 1], of the face; None: there is none, and the
    middle of the picture is taken for it. thumbnails: [t, side, side], grey levels of more of its frames.
    """
    greys = [grey(picture) for picture in pictures]
    edges = np.median([borders(picture) for picture in greys], axis=0)
    inner = [_inside(picture, edges) for picture in greys]
    light = float(np.median([picture.mean() for picture in inner]))
    contrast = float(np.median([picture.std() for picture in inner]))
    return {
        "brightness": (light,),
        "contrast": (contrast / max(light, 1.0),),
        "motion": (motion(np.stack([_inside(picture, edges) for picture in thumbnails])),),
        "borders": tuple(float(edge) for edge in edges),
        "background": tuple(
            float(value) for value in np.median([surroundings(picture, box, edges) for picture in pictures], axis=0)
        ),
        "sharpness": (float(np.median([sharpness(picture) for picture in inner])),),
        "blocks": (float(np.median([blocks(_inside(picture, edges, BLOCK)) for picture in greys])),),
    }


def grey(picture: Picture) -> Floats:
    """Rec. 601 luma of an RGB picture: float32 [height, width]."""
    return picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def borders(picture: Floats) -> NDArray[np.float64]:
    """Share of the height or width that is one plain colour at the top, left, bottom and right: float64 [4]."""
    found = []
    for sides in (picture, picture.T, picture[::-1], picture.T[::-1]):
        most = int(MAX_BORDER * len(sides))
        plain = (sides[:most].std(axis=1) < PLAIN) & (np.abs(sides[:most].mean(axis=1) - sides[0].mean()) < PLAIN)
        found.append((int(np.argmin(plain)) if not plain.all() else most) / len(sides))
    return np.array(found)


def _inside(picture: Floats, edges: NDArray[np.floating], grid: int = 1) -> Floats:
    """The picture within its borders, from a multiple of `grid` on, a pixel further in where there is a border."""
    height, width = picture.shape
    top, left, bottom, right = (
        -(-int(np.ceil(share * side) + (share > 0)) // grid) * grid
        for share, side in zip(edges, (height, width) * 2, strict=True)
    )
    return picture[top : height - bottom, left : width - right]


def motion(thumbnails: Floats) -> float:
    """Change from one thumbnail to the next, relative to the contrast; NaN for a single one."""
    if len(thumbnails) < 2:
        return float("nan")
    contrast = max(float(thumbnails.std(axis=(1, 2)).mean()), 1.0)
    light = thumbnails - thumbnails.mean(axis=(1, 2), keepdims=True)
    return float(np.log10(np.abs(np.diff(light, axis=0)).mean() / contrast + 1e-4))


def sharpness(picture: Floats) -> float:
    """log10 of the Laplacian's variance over the picture's, with the short side at DETAIL_SIDE pixels."""
    from PIL import Image

    scale = DETAIL_SIDE / min(picture.shape)
    size = (max(3, round(picture.shape[1] * scale)), max(3, round(picture.shape[0] * scale)))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(picture).resize(size, how))
    curve = 4 * small[1:-1, 1:-1] - small[:-2, 1:-1] - small[2:, 1:-1] - small[1:-1, :-2] - small[1:-1, 2:]
    return float(np.log10((curve.var() + 1e-3) / (small.var() + 1.0)))


def blocks(picture: Floats) -> float:
    """Steps across the borders of 8 x 8 blocks over those elsewhere: 1 without blocks, larger at low JPEG quality.

    (The ratio of Z. Wang, A. Bovik and B. Evans, "Blind measurement of blocking artifacts in images", 2000, in space.)
    """
    ratios = []
    for steps in (np.abs(np.diff(picture, axis=1)), np.abs(np.diff(picture, axis=0)).T):
        across = steps.mean(axis=0)
        if len(across) < 2 * BLOCK:
            return float("nan")
        at = np.arange(len(across)) % BLOCK == BLOCK - 1
        ratios.append((across[at].mean() + 0.01) / (across[~at].mean() + 0.01))
    return float(np.mean(ratios))


def surroundings(picture: Picture, box: NDArray[np.floating] | None, edges: NDArray[np.floating]) -> Floats:
    """What is around the face: float32 [2 + 2 * (CELLS² - 1)].

    Colour (red and blue against green, relative to the light), then of the cells around the middle one the light and
    the detail, each relative to all of them. Pixels of the face are left out; a cell without others is as the rest.
    """
    height, width = picture.shape[:2]
    step = max(1, min(height, width) // DETAIL_SIDE)
    small = picture[::step, ::step].astype(np.float32)
    luma = grey(picture[::step, ::step])
    detail = np.abs(np.diff(luma, axis=0, append=luma[-1:])) + np.abs(np.diff(luma, axis=1, append=luma[:, -1:]))
    rows, columns = luma.shape
    outside = np.ones(luma.shape, bool)
    top, left, bottom, right = (0.25, 0.25, 0.75, 0.75) if box is None else _grown(box)
    outside[int(top * rows) : int(np.ceil(bottom * rows)), int(left * columns) : int(np.ceil(right * columns))] = False
    framed = np.zeros_like(outside)
    y0, x0, y1, x1 = (int(np.ceil(share * side)) for share, side in zip(edges, (rows, columns) * 2, strict=True))
    framed[y0 : rows - y1, x0 : columns - x1] = True
    outside &= framed
    if not outside.any():
        return np.full(2 + 2 * (CELLS**2 - 1), np.nan, np.float32)
    red, green, blue = (float(small[..., channel][outside].mean()) for channel in range(3))
    light = max(float(luma[outside].mean()), 1.0)
    cells = [
        (y * rows // CELLS, (y + 1) * rows // CELLS, x * columns // CELLS, (x + 1) * columns // CELLS)
        for y in range(CELLS)
        for x in range(CELLS)
        if (y, x) != (CELLS // 2, CELLS // 2)
    ]
    values = []
    for of in (luma, np.log10(detail + 1)):
        whole = float(of[outside].mean())
        for y0, y1, x0, x1 in cells:
            some = outside[y0:y1, x0:x1]
            values.append((float(of[y0:y1, x0:x1][some].mean()) / max(whole, 0.01) - 1) if some.any() else 0.0)
    return np.array([(red - green) / light, (blue - green) / light, *values], np.float32)


def _grown(box: NDArray[np.floating]) -> tuple[float, float, float, float]:
    top, left, bottom, right = (float(side) for side in box)
    down, across = FACE_MARGIN * (bottom - top), FACE_MARGIN * (right - left)
    return max(0.0, top - down), max(0.0, left - across), min(1.0, bottom + down), min(1.0, right + across)


NUMBERS: Mapping[str, int] = {
    "brightness": 1, "contrast": 1, "motion": 1, "borders": 4, "background": 2 + 2 * (CELLS**2 - 1), "sharpness": 1,
    "blocks": 1,
}  # fmt: skip
