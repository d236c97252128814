"""Fixed changes to an evaluation split, to see what a verdict is worth where videos are not as they were.

A perturbation is planned as an augmentation is, but nothing of it is drawn: every clip, and every frame of it, is
changed by the same amount, so two passes see the same pixels. `crop` and `shorten` change the plan (the box, the
frames); the others are augmentations of the graph at a fixed strength. They act on the square picture that the model
sees, so a `jpeg` is that of a picture of data.image_size pixels, not of the original.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.data import augment, plan, region
from livetrain.data.clip_plan import PADDING, ClipPlan, evaluation_frames
from livetrain.data.dataset import Dataset
from livetrain.data.permutation import permute


@dataclass(frozen=True)
class Perturbation:
    """`side`: the part of each side of the picture that is kept, around its centre.

    `part`: the part of the video's frames that is kept, from the start. `augmentation`: the name of one of the graph's
    augmentations, and `values` what it gets; those in `pixels` are of a picture 224 pixels wide, those in `relative` of
    the picture's side.
    """

    name: str
    text: str
    side: float = 1.0
    part: float = 1.0
    augmentation: str = ""
    values: Mapping[str, float | int] = field(default_factory=dict)
    pixels: Mapping[str, float] = field(default_factory=dict)
    relative: Mapping[str, float] = field(default_factory=dict)

    def strengths(self, size: int) -> dict[str, NDArray[Any]]:
        """The inputs of its augmentation for one clip of `size` pixels."""
        found = {
            name: np.array(value, np.int32 if isinstance(value, int) else np.float32)
            for name, value in self.values.items()
        }
        found |= {name: np.array(value * size / 224, np.float32) for name, value in self.pixels.items()}
        found |= {name: np.full(2, max(1, round(value * size)), np.float32) for name, value in self.relative.items()}
        return found


@dataclass(frozen=True)
class Shifts:
    """Which perturbation each clip of an evaluation is under.

    kinds: those there are. of_row: int64 [number of clips of the data set], which of them; None: all the first.
    """

    name: str
    kinds: tuple[Perturbation, ...]
    of_row: NDArray[np.int64] | None = None

    @staticmethod
    def same(perturbation: Perturbation) -> Shifts:
        """Every clip under one."""
        return Shifts(perturbation.name, (perturbation,))

    @staticmethod
    def spread(dataset: Dataset, split: str) -> Shifts:
        """Every clip of the split under one of PERTURBATIONS, each as often as the others in either class.

        Which one depends on nothing but the data set and the split.
        """
        of_row = np.zeros(len(dataset), np.int64)
        rows = dataset.rows(split)
        live = dataset.column("label")[rows] >= 0.5
        for members in (rows[live], rows[~live]):
            order = permute(np.arange(len(members)), len(members), 0, 0) if len(members) else members
            of_row[members] = order % len(PERTURBATIONS)
        return Shifts("shifted", PERTURBATIONS, of_row)

    def augmentations(self) -> list[augment.Augmentation]:
        """What the graph is built with."""
        names = {kind.augmentation for kind in self.kinds}
        return [item for item in augment.AUGMENTATIONS if item.name in names]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of `kinds` the clips in these rows are under, int64 [n]."""
        return np.zeros(len(rows), np.int64) if self.of_row is None else self.of_row[rows]

    def parameters(self, which: NDArray[np.int64], size: int) -> dict[str, NDArray[Any]]:
        """The inputs of the graph beyond the plan's own, each [n, …], for pictures of `size` pixels."""
        found: dict[str, NDArray[Any]] = {}
        for augmentation in {kind.augmentation for kind in self.kinds} - {""}:
            has = [kind.augmentation == augmentation for kind in self.kinds]
            found[f"{augmentation}_on"] = np.array(has)[which]
            usual = self.kinds[has.index(True)].strengths(size)  # of clips for which it is off: any will do
            own = [kind.strengths(size) if of else usual for kind, of in zip(self.kinds, has, strict=True)]
            found |= {name: np.stack([strengths[name] for strengths in own])[which] for name in usual}
        return found


def _color(brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0) -> dict[str, Any]:
    values = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    return {"augmentation": "color", "values": values}


PERTURBATIONS: tuple[Perturbation, ...] = (
    Perturbation("crop80", "cropped: the middle 80 % of each side", side=0.8),
    Perturbation("crop60", "cropped: the middle 60 % of each side", side=0.6),
    Perturbation(
        "downscale2", "downscaled: half the pixels a side", augmentation="downscale", relative={"downscale_size": 1 / 2}
    ),
    Perturbation(
        "downscale4",
        "downscaled: a quarter of the pixels a side",
        augmentation="downscale",
        relative={"downscale_size": 1 / 4},
    ),
    Perturbation("jpeg50", "recompressed: JPEG quality 50", augmentation="jpeg", values={"jpeg_quality": 50}),
    Perturbation("jpeg15", "recompressed: JPEG quality 15", augmentation="jpeg", values={"jpeg_quality": 15}),
    Perturbation("dark", "recoloured: 40 % darker", **_color(brightness=0.6)),
    Perturbation("bright", "recoloured: 40 % brighter", **_color(brightness=1.4)),
    Perturbation("hue", "recoloured: hue turned by 20 degrees, less saturation", **_color(saturation=0.7, hue=20.0)),
    Perturbation("gray", "recoloured: no colour", augmentation="grayscale"),
    Perturbation("blur2", "blurred: sigma of 2 pixels in 224", augmentation="blur", pixels={"blur_sigma": 2.0}),
    Perturbation("blur4", "blurred: sigma of 4 pixels in 224", augmentation="blur", pixels={"blur_sigma": 4.0}),
    Perturbation("shorten2", "shortened: the first half", part=1 / 2),
    Perturbation("shorten4", "shortened: the first quarter", part=1 / 4),
)


def perturb(item: ClipPlan, samples: plan.Samples, config: Config, shifts: Shifts) -> ClipPlan:
    """The plan of an evaluation batch of `samples`, perturbed."""
    rows = np.where(item.rows == PADDING, 0, item.rows)
    facts = dataclasses.replace(samples, rows=rows, mixture=None).facts(np.arange(len(rows)))
    which = shifts.of(rows)
    params = item.params | shifts.parameters(which, config.data.image_size)
    frames = item.frames
    side, part = (np.array([getattr(kind, name) for kind in shifts.kinds])[which] for name in ("side", "part"))
    if (part < 1).any():
        kept = np.maximum(1, np.ceil(facts.num_frames * part)).astype(np.int64)
        frames = evaluation_frames(dataclasses.replace(facts, num_frames=kept), config)
        params |= region.fixed_region(frames, facts, config)  # a face is elsewhere in other frames
    if (side < 1).any():
        params |= region.shrunk(params, side, facts)
    return dataclasses.replace(item, params=params, frames=frames)
