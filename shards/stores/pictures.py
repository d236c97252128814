"""What the stores that change pictures share: which frames, at what size, turned how."""

from __future__ import annotations

from shards.format.probe import Probe

BLOCK = 16  # of pixels, in transcoded video: H.264's macroblock


def scaled_size(width: int, height: int, short_side: int, long_side: int = 0, multiple: int = 1) -> tuple[int, int]:
    """Width and height within limits of the short and the long side, in pixels.

    0: no limit. Never enlarged but to the nearest `multiple`.
    """
    limits = [(short_side, min(width, height)), (long_side, max(width, height))]
    scale = min([1.0, *(limit / side for limit, side in limits if limit)])
    return tuple(max(multiple, round(side * scale / multiple) * multiple) for side in (width, height))  # type: ignore[return-value]


def aspect_at(facts: Probe, width: int, height: int) -> float:
    """A pixel's width over its height in an upright picture of `width` x `height`.

    So that a player shows the same shape as of the video.
    """
    shape = facts.width * facts.sample_aspect_ratio / facts.height
    return (1 / shape if facts.rotation in (90, 270) else shape) * height / width


def upright_size(facts: Probe) -> tuple[int, int]:
    """Width and height of a video once its rotation is applied."""
    return (facts.height, facts.width) if facts.rotation in (90, 270) else (facts.width, facts.height)
