"""Where a bench keeps its data: apart for each version of the code that makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from livetrain.bench import options


def test_data_of_other_code_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    first = options.recipe()
    assert len(first) == 8 and options.recipe() == first
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: real(path) + b"#" * (path.name == "scene.py"))
    assert options.recipe() != first
