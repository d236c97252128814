"""Which frames of a clip are seen: one of each part, a fixed time apart, or every n-th."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.data.clip_facts import Facts


def chosen_frames(facts: Facts, config: Config, count: int, u: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """`count` frames of n clips by data.sampling, int64 [n, count]; u: uniform numbers [n, count], None: the middle."""
    if config.data.sampling == "segments":
        return segment_frames(facts.num_frames, count, u)
    start = None if u is None else u[:, 0]
    if config.data.sampling == "stride":
        offsets = np.arange(count) * float(config.data.frame_stride)
        return spaced_frames(facts.num_frames, np.broadcast_to(offsets, (len(facts.rows), count)), start)
    seconds = config.data.frame_interval_seconds
    frames = interval_frames(facts.num_frames, facts.frames_per_second, seconds, count, start)
    for clip, row in enumerate(facts.rows.tolist()):
        times = facts.seconds(row)[: facts.num_frames[clip]]
        if len(times):
            frames[clip] = timed_frames(times, seconds, count, None if start is None else float(start[clip]))
    return frames


def segment_frames(num_frames: NDArray[np.int64], count: int, u: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """One frame of each of `count` equal segments: at u [n, count] within it, or in its middle.

    num_frames: int64 [n]. Returns int64 [n, count], ascending; frames repeat where a video has fewer than `count`.
    Source: temporal segment networks (Wang et al., ECCV 2016).
    """
    inside = 0.5 if u is None else u
    frames = np.floor((np.arange(count) + inside) * num_frames[:, None] / count).astype(np.int64)
    return np.minimum(frames, num_frames[:, None] - 1)


def interval_frames(
    num_frames: NDArray[np.int64],
    frames_per_second: NDArray[np.float64],
    seconds: float,
    count: int,
    u: NDArray[np.float64] | None,
) -> NDArray[np.int64]:
    """`count` frames `seconds` apart, starting at u [n] of the room there is, or centred.

    Returns int64 [n, count], ascending. A video too short for the span repeats its last frame.
    """
    return spaced_frames(num_frames, np.arange(count) * seconds * frames_per_second[:, None], u)


def timed_frames(times: NDArray[np.floating], seconds: float, count: int, u: float | None) -> NDArray[np.int64]:
    """`interval_frames` of one clip whose frames have `times`, ascending from 0: of each moment, the nearest frame.

    Returns int64 [count], ascending. A video too short for the span repeats its last frame.
    """
    offsets = np.arange(count) * seconds
    moments = max(0.0, float(times[-1]) - offsets[-1]) * (0.5 if u is None else u) + offsets
    middles = (times[1:].astype(np.float64) + times[:-1]) / 2
    return np.searchsorted(middles, moments, side="right").astype(np.int64)


def spaced_frames(
    num_frames: NDArray[np.int64], offsets: NDArray[np.floating], u: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """The frames `offsets` ([n, count], ascending from 0) after a start: at u [n] of the room there is, or centred.

    Returns int64 [n, count], ascending. A video too short for the span repeats its last frame.
    """
    room = np.maximum(0.0, num_frames - 1 - offsets[:, -1])
    start = room * (0.5 if u is None else u)
    # Half a frame of rounding: 0.2 s at 29.97 fps is frame 6, not 5.
    frames = np.floor(start[:, None] + offsets + 0.5).astype(np.int64)
    return np.clip(frames, 0, num_frames[:, None] - 1)
