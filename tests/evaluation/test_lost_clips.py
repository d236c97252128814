"""Training clips that failed to load: joined over processes, kept over attempts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from livetrain.data import PADDING, Failure
from livetrain.evaluation import lost_clips
from livetrain.evaluation.lost_clips import LostClips


def batch(rows: list[int], *bad: int) -> Any:
    return SimpleNamespace(rows=np.array(rows), failures=[Failure("s", "k", f"why {row}", row) for row in bad])


def agree(parts: list[LostClips], monkeypatch: pytest.MonkeyPatch) -> None:
    """As processes do, one after the other: what each gathers is what all of them gave."""
    rounds = [[dict(part.failed) for part in parts]]
    rows = np.array(sorted({row for failed in rounds[0] for row in failed}), np.int64)
    rounds.append([part._arrived[rows] for part in parts])  # type: ignore[arg-type]
    for part in parts:
        answers = iter(rounds)
        monkeypatch.setattr(lost_clips, "gather_object", lambda given, answers=answers: next(answers))
        part.agree()


def test_what_arrived_elsewhere_later_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [LostClips(10, {}), LostClips(10, {})]
    parts[0].add(0, [batch([1, 2, PADDING], 1), batch([3, 4], 4)])
    parts[1].add(0, [batch([5, 6], 6), batch([7, 8])])
    parts[0].add(1, [batch([6, 5])])
    parts[1].add(1, [batch([4, 7], 4, 7), batch([2])])
    agree(parts, monkeypatch)
    assert parts[0].failed == parts[1].failed == {1: (0, "why 1"), 4: (1, "why 4"), 7: (1, "why 7")}
    again = [LostClips(10, parts[0].state()), LostClips(10, parts[1].state())]
    again[1].add(2, [batch([1])])
    again[0].add(2, [batch([9], 9)])
    agree(again, monkeypatch)
    assert again[0].state() == again[1].state() == {"4": (1, "why 4"), "7": (1, "why 7"), "9": (2, "why 9")}
