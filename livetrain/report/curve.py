"""A clip's scores over its frames, as the points of a small drawing in the report."""

from __future__ import annotations

from typing import Any

from livetrain.verdict.clip_metadata import Details

WIDTH, HEIGHT = 240.0, 64.0
MARGIN = 4.0


def drawing(item: Details, threshold: float) -> dict[str, Any] | None:
    """The score of each frame as a drawing; None without frames.

    {dots: [{x, y}], line, threshold_y, from_seconds, to_seconds, text} in a box of WIDTH x HEIGHT. Frames are placed by
    time; p_live 1 is at the top. `text` says the same in words.
    """
    if not item.frame_p_live:
        return None
    rate = item.frames_per_second
    times = [frame / rate if rate else float(frame) for frame in item.frames]
    first, span = times[0], (times[-1] - times[0]) or 1.0
    dots = [
        {"x": round(MARGIN + (time - first) / span * (WIDTH - 2 * MARGIN), 1), "y": _y(p)}
        for time, p in zip(times, item.frame_p_live, strict=True)
    ]
    unit = " s" if rate else ""
    message = ", ".join(
        f"{p:.2f} at {time:.2f}{unit}" if rate else f"{p:.2f} in frame {time:.0f}"
        for time, p in zip(times, item.frame_p_live, strict=True)
    )
    return {
        "dots": dots,
        "line": " ".join(f"{dot['x']},{dot['y']}" for dot in dots),
        "threshold_y": _y(threshold),
        "from": f"{times[0]:.1f}{unit}" if rate else f"frame {times[0]:.0f}",
        "to": f"{times[-1]:.1f}{unit}" if rate else f"frame {times[-1]:.0f}",
        "text": f"p_live of each frame alone: {message}",
    }


def shown_frames(item: Details, num: int) -> tuple[int, ...]:
    """Up to `num` of the scored frames, evenly spaced; () without any."""
    count = len(item.frames)
    if count <= num:
        return tuple(dict.fromkeys(item.frames))
    return tuple(dict.fromkeys(item.frames[round(i * (count - 1) / (num - 1))] for i in range(num)))


def _y(p: float) -> float:
    return round(MARGIN + (1 - min(1.0, max(0.0, p))) * (HEIGHT - 2 * MARGIN), 1)
