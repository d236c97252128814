"""livetrain: train video liveness (presentation attack detection) models and say what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from livetrain.core.version import VERSION

if TYPE_CHECKING:
    from livetrain.inference.predictor import Predictor

__version__ = VERSION


def load_model(path: str | Path, *overrides: str, device: Any = None) -> Predictor:
    """A model to score videos with: `load_model("DIR").predict("video.mp4")`; see inference.predictor.load_model."""
    from livetrain.inference import predictor  # torch and DALI: a second or more

    return predictor.load_model(path, *overrides, device=device)
