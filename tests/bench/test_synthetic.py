"""Large folders made of links: every sample can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from livetrain.bench.synthetic import make_folder
from livetrain.config import Config
from livetrain.data import Dataset
from livetrain.data.plan import Samples, plan_train


def test_every_sample_of_a_made_folder_is_real(demo_shards: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(make_folder(demo_shards, tmp_path / "large", 1000, 10))
    assert len(dataset) == 1000 and len(dataset.manifest["shards"]) == 10
    assert [dataset.shard_name(row) for row in (0, 99, 100, 999)] == [f"shard-{n:06d}.tar" for n in (0, 0, 1, 9)]
    assert all(dataset.video_bytes(row) for row in range(0, 1000, 37)), "checksums hold"
    split = dataset.columns["split"][0].as_py()
    samples = Samples.of(dataset, split, Config())
    assert samples.rows.dtype == np.int32
    plan = plan_train(samples, Config(), 10**6, 0, 0, 1)
    assert np.isin(plan.rows, samples.rows).all()
    assert make_folder(demo_shards, tmp_path / "large", 1000, 10) == tmp_path / "large", "made once"
