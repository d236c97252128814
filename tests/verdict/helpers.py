"""Scores made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from livetrain.verdict.scores import FAILED, OK, Scores


def make_scores(rows: Sequence[tuple[str, float | None]], people: Sequence[str] | None = None) -> Scores:
    """From (kind, p_live) pairs: kind "live" or an attack type; p_live None for a failure to acquire."""
    return Scores.from_rows(
        {
            "video": f"videos/{number}.mp4",
            "key": f"clip{number}",
            "p_live": p,
            "label": float(kind == "live"),
            "subject": people[number] if people else f"person{number % 3}",
            "attack_type": kind,
            "num_frames": 4 if p is not None else 0,
            "seconds": 1.5,
            "status": OK if p is not None else FAILED,
        }
        for number, (kind, p) in enumerate(rows)
    )
