"""A run of version 0.1, whose files say group and num_people, is read as one of today."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from livetrain.report import compare, leaderboard, page
from livetrain.tracking.run_dir import RunDir
from livetrain.verdict import threshold


@pytest.fixture
def old(plain: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(plain, tmp_path / "old"))
    files = [*folder.glob("scores/*.csv"), folder / "verdict.json", *folder.rglob(threshold.FILE_NAME)]
    assert len(files) > 3
    for path in files:
        text = path.read_text()
        path.write_text(text.replace("num_subjects", "num_people").replace(",subject,", ",group,"))
        assert path.read_text() != text or "details" in path.name
    return folder


def test_its_figures_are_the_same(plain: Path, old: Path) -> None:
    assert RunDir(old).read_verdict() == RunDir(plain).read_verdict()
    assert leaderboard.figures(old) == leaderboard.figures(plain)
    assert leaderboard.figures(old)["people"] == 1
    best = RunDir(old).best()
    assert best is not None and threshold.read(best) == threshold.read(RunDir(plain).checkpoints / best.name)


def test_its_report_and_a_comparison_are_made(plain: Path, old: Path, tmp_path: Path) -> None:
    assert "unknown number" not in page.write(old).read_text()
    assert compare.main([str(plain), str(old), "--out", str(tmp_path / "compare")]) == 0
