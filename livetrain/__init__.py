"""livetrain: train video liveness (presentation attack detection) models and say what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from livetrain.predictor import Predictor

__version__ = "0.1.0"


def load_model(path: str | Path, *overrides: str, device: Any = None) -> Predictor:
    """A model to score videos with: `load_model("DIR").predict("video.mp4")`. See livetrain.predictor.load_model."""
    from livetrain import predictor  # torch and DALI: a second or more

    return predictor.load_model(path, *overrides, device=device)
