"""Sides of `livetrain bench shards`: each still does its work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from livetrain.bench import shards
from livetrain.bench.clips import ClipSet, make_clips

SIDES = (
    shards.build_probed, shards.copy, shards.tar_and_ffprobe, shards.probe, shards.build_decoded, shards.ffmpeg,
    shards.libavcodec, shards.verify, shards.sha256sum, shards.build_remuxed,
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    return shards._corpus(folder / "files-4", make_clips(folder, ClipSet(64, 48, seconds=0.2, num_clips=2)))


@pytest.mark.parametrize("side", SIDES)
def test_a_side_has_a_rate_and_leaves_nothing(side: Callable[[Path, int], float], home: Path) -> None:
    if side is shards.tar_and_ffprobe and not shutil.which("ffprobe"):
        pytest.skip("no ffprobe")
    assert side(home, 1) > 0
    kept = {"videos", "label.csv", "shards"}  # the last is what `verify` reads again
    assert {path.name for path in home.iterdir()} <= kept
