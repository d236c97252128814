"""What augmentation takes, its presets, and the checks across its keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from livetrain.config.fields import choice, number, probability

RECAPTURES = ("inks", "halftone", "screen", "warp", "edge", "reflection", "moire")


@dataclass
class AugmentConfig:
    """What training does to a clip; every frame of it alike. Probabilities are per clip."""

    preset: str = choice("standard", "none", "light", "strong")
    """What the keys below are where they are not given: standard is what is listed here; none is enabled=false."""
    enabled: bool = True
    """False: whole frames, unchanged."""
    crop_scale_min: float = number(0.6, 0.01, 1.0)
    """Smallest area of the random crop, of what evaluation shows."""
    crop_scale_max: float = number(1.0, 0.01, 1.0)
    """Largest area of the random crop."""
    crop_ratio_min: float = number(0.8, 0.1, 10.0)
    """Narrowest crop, width over height."""
    crop_ratio_max: float = number(1.25, 0.1, 10.0)
    """Widest crop, width over height."""
    face_scale_min: float = number(1.0, 0.5, 10.0)
    """Smallest side of the face crop over the side of the face, with data.crop=face."""
    face_scale_max: float = number(1.5, 0.5, 10.0)
    """Largest side of the face crop."""
    face_shift: float = number(0.05, 0.0, 0.5)
    """Largest shift of the face crop, of its side, in both directions."""
    flip: float = probability(0.5)
    """Probability of mirroring left and right."""
    flip_vertical: float = probability(0.0)
    """Probability of turning top and bottom round."""
    affine: float = probability(0.0)
    """Probability of a small turn, shift, shear and change of size."""
    affine_degrees: float = number(10.0, 0.0, 180.0)
    """Largest turn."""
    affine_translate: float = number(0.05, 0.0, 1.0)
    """Largest shift, of the picture's side."""
    affine_scale: float = number(0.1, 0.0, 10.0)
    """Largest change of size: by up to 1 + this, or down to its inverse."""
    affine_shear_degrees: float = number(5.0, 0.0, 80.0)
    """Largest shear."""
    color: float = probability(0.5)
    """Probability of changing brightness, contrast, saturation and hue."""
    brightness: float = probability(0.2)
    """Largest relative change of brightness."""
    contrast: float = probability(0.2)
    """Largest relative change of contrast."""
    saturation: float = probability(0.2)
    """Largest relative change of saturation."""
    hue_degrees: float = number(10.0, 0.0, 180.0)
    """Largest turn of the hue."""
    temperature: float = probability(0.0)
    """Probability of a warmer or colder light."""
    temperature_max: float = number(0.15, 0.0, 0.9)
    """Largest gain of red, taken from blue, or the other way round."""
    gamma: float = probability(0.0)
    """Probability of another transfer curve."""
    gamma_max: float = number(1.5, 1.0, 10.0)
    """Largest exponent; the smallest is its inverse."""
    grayscale: float = probability(0.05)
    """Probability of taking the colour away."""
    blur: float = probability(0.1)
    """Probability of a Gaussian blur."""
    blur_sigma_max: float = number(2.0, 0.1, 20.0)
    """Largest sigma, in pixels of a picture 224 pixels wide."""
    motion_blur: float = probability(0.0)
    """Probability of a blur along a line."""
    motion_blur_length_max: float = number(9.0, 1.0, 100.0)
    """Longest line, in pixels of a picture 224 pixels wide."""
    tremble: float = probability(0.0)
    """Probability of a hand that trembles: frames swing to and fro."""
    tremble_max: float = number(16.0, 1.0, 100.0)
    """How far at most, in pixels of a picture 224 pixels wide."""
    noise: float = probability(0.0)
    """Probability of a sensor's grain, the same in all frames of a clip."""
    noise_sigma_max: float = number(10.0, 0.0, 255.0)
    """Largest standard deviation, in levels of 255."""
    jpeg: float = probability(0.3)
    """Probability of JPEG compression."""
    jpeg_quality_min: int = number(40, 1, 95)
    """Lowest JPEG quality."""
    downscale: float = probability(0.2)
    """Probability of shrinking and enlarging again."""
    downscale_min: float = number(0.4, 0.02, 1.0)
    """Smallest relative size in between."""
    erase: float = probability(0.1)
    """Probability of greying out a rectangle."""
    erase_scale_max: float = number(0.2, 0.02, 1.0)
    """Largest area of the rectangle."""
    recapture: float = probability(0.0)
    """Probability of making an attack of a live clip, labelled so: a print or a screen before a second camera."""
    recapture_operators: list[str] = field(default_factory=lambda: list(RECAPTURES))
    """What such a clip goes through, one drawn for each, which names its attack type (synthetic:moire)."""
    recapture_edge: float = probability(0.6)
    """Probability that it is also a sheet or screen with its border, before a live scene."""
    recapture_rephotograph: float = probability(0.6)
    """Probability that it also has the second camera's curve and softness."""
    mixup: float = probability(0.0)
    """Probability of blending two neighbouring clips of a batch, and their labels."""
    mixup_alpha: float = number(0.2, 0.01, 100.0)
    """Both parameters of the beta distribution of a clip's share in the blend."""
    cutmix: float = probability(0.0)
    """Probability of setting a rectangle of one clip into its neighbour, and blending their labels by area."""
    cutmix_alpha: float = number(1.0, 0.01, 100.0)
    """Both parameters of the beta distribution of the share that stays."""


# What a preset changes of the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "standard": {},
    "none": {"enabled": False},
    "light": {
        "crop_scale_min": 0.8, "color": 0.3, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue_degrees": 4.0,
        "grayscale": 0.0, "blur": 0.0, "jpeg": 0.15, "jpeg_quality_min": 60, "downscale": 0.0, "erase": 0.0,
    },
    "strong": {
        "crop_scale_min": 0.35, "color": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4,
        "hue_degrees": 18.0, "grayscale": 0.1, "affine": 0.3, "temperature": 0.3, "gamma": 0.3, "blur": 0.2,
        "motion_blur": 0.2, "noise": 0.3, "jpeg": 0.5, "jpeg_quality_min": 20, "downscale": 0.4, "downscale_min": 0.2,
        "erase": 0.25,
    },
}  # fmt: skip
