"""What training from a bucket downloads: the formula against a simulated cache, and the words at the start of a run."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from livetrain.core.remote import Url
from livetrain.data import Dataset, download_cost
from tests.runs import small_config


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_it_is_what_a_cache_of_whole_shards_downloads(share: float) -> None:
    rng = np.random.default_rng(0)
    shard_bytes = rng.integers(80, 120, 200)
    shards = rng.integers(0, 200, 40_000)
    cache: OrderedDict[int, int] = OrderedDict()
    downloaded = used = 0
    for number, shard in enumerate(shards.tolist()):
        if shard not in cache and number > 20_000:  # the first half fills it
            downloaded += int(shard_bytes[shard])
        cache[shard] = int(shard_bytes[shard])
        cache.move_to_end(shard)
        while sum(cache.values()) > share * shard_bytes.sum():
            cache.popitem(last=False)
        used += 2 if number > 20_000 else 0
    expected = download_cost.amplification(shard_bytes, shards, np.full(len(shards), 2), share * shard_bytes.sum())
    assert downloaded / used == pytest.approx(expected, rel=0.08)


def test_a_run_whose_cache_is_small_says_what_it_will_download(demo_shards: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(demo_shards)
    total = sum(shard["bytes"] for shard in dataset.manifest["shards"])
    remote = Dataset([dataclasses.replace(dataset.shard_sets[0], root=Url("s3://bucket/shards"))], dataset.columns)

    def said(data: Dataset, share: float) -> list[str]:
        config = small_config(demo_shards, tmp_path / "run", f"data.cache_gb={share * total / 1e9}")
        return download_cost.notices(data, config)

    (line,) = said(remote, 0.25)
    rows = dataset.rows("train")
    sizes = np.array([shard["bytes"] for shard in dataset.manifest["shards"]])[dataset.column("shard")[rows]]
    times = 0.75 * sizes.mean() / dataset.column("size")[rows].mean()
    assert "holds 25% of" in line and f"{times:,.1f} times its size" in line and "data.cache_gb" in line
    assert said(remote, 1.0) == [] and said(dataset, 0.25) == []
