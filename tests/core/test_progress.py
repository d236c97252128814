"""Progress of many items that are looked at one by one."""

from __future__ import annotations

import pytest

from livetrain.core import progress
from livetrain.core.progress import watched


def test_many_items_are_watched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0)
    assert list(watched(iter(range(2500)), 2500, "plan", "samples")) == list(range(2500))
    assert capsys.readouterr().err == "", "too few to say anything"
    monkeypatch.setattr(progress, "MANY", 2500)
    assert list(watched(iter(range(2500)), 2500, "plan", "samples")) == list(range(2500))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("plan: 1000/2500 samples") and lines[1].startswith("plan: 2000/2500 samples")
