"""The plan of a run says what becomes of the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from livetrain.data import Dataset
from livetrain.planner import dry_run
from tests.runs import small_config


@pytest.mark.parametrize(
    "options, line",
    [
        (["data.fit=stretch"], "data.fit=stretch: 1.33 times as wide or high as the frame at the median, 1.78 at most"),
        (["data.fit=center"], "data.fit=center: 25% of the frame is cut away at the median, 44% at most"),
        (["data.fit=pad"], "data.fit=pad: 25% of the picture is black bars at the median, 44% at most"),
        (["data.crop=face"], "data.crop=face: a square around the face of each frame"),
    ],
)
def test_what_becomes_of_a_frame_is_said(
    options: list[str], line: str, demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, dataset = small_config(demo_shards, tmp_path / "run", *options), Dataset.open(demo_shards)
    height = np.full(len(dataset), 480)
    height[dataset.rows("train")[0]] = 360
    sizes = {"height": height, "width": np.full(len(dataset), 640), "rotation": np.arange(len(dataset)) % 4 * 90}
    sizes["sample_aspect_ratio"] = np.ones(len(dataset))
    column = dataset.column
    monkeypatch.setattr(dataset, "column", lambda name: sizes[name] if name in sizes else column(name))
    assert dry_run._picture(config, dataset) == line
