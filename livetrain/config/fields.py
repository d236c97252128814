"""Fields of the configuration's dataclasses, with what they allow."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any


def choice(default: str, *allowed: str) -> Any:
    """A field that takes one of a few words."""
    return field(default=default, metadata={"allowed": (default, *allowed)})


def number(default: float, low: float = -math.inf, high: float = math.inf) -> Any:
    """A numeric field with inclusive bounds."""
    return field(default=default, metadata={"low": low, "high": high})


def probability(default: float) -> Any:
    return number(default, 0.0, 1.0)
