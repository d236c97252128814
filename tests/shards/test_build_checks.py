"""What a build says of facts that alone tell live clips from attacks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from shards import build_checks

NUM_CLIPS = 40


def facts(file_size: list[int], live: list[bool]) -> pa.Table:
    """What is known of clips that differ in their size alone."""
    same = {"length": 100, "frame rate": 25.0, "resolution": 640 * 480, "codec": "h264 yuv420p", "split": "train"}
    rows = [
        {"live": is_live, "sha256": number, "file size": size, **same}
        for number, (is_live, size) in enumerate(zip(live, file_size, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=build_checks.facts_of([]).schema)


@pytest.mark.parametrize("sign", [1, -1])
def test_equal_values_count_half_in_either_direction(sign: int) -> None:
    random = np.random.default_rng(5)
    live = random.permutation(NUM_CLIPS) < NUM_CLIPS // 2
    sizes = 10 + sign * (2 * live + random.integers(0, 3, NUM_CLIPS))  # few values, many of them equal
    auc = roc_auc_score(live, sizes)
    assert len(set(sizes)) < 6 and 0.8 < max(auc, 1 - auc) < 1
    assert build_checks._telling(facts(sizes.tolist(), live.tolist())) == [
        ("file size", pytest.approx(max(auc, 1 - auc), abs=1e-12))
    ]


def test_a_build_imports_none_of_the_large_libraries() -> None:
    """Each takes as long to import as hundreds of videos take to be probed."""
    code = """
import sys
from pathlib import Path
from shards import build, build_checks, cli, split, verify
from shards.labels import Labels
facts = build_checks.pa.Table.from_pylist(
    [
        {"live": number % 2 == 0, "sha256": number, "file size": number % 2, "length": 100, "frame rate": 25.0,
         "resolution": 640 * 480, "codec": "h264 yuv420p", "split": "train"}
        for number in range(20)
    ], schema=build_checks.facts_of([]).schema
)
build_checks.suggest_audit(facts, Labels([], "subject", ""), Path("out"))
sys.exit(", ".join({"scipy", "sklearn", "torch", "pandas", "matplotlib"} & set(sys.modules)) or None)
"""
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert "file size separates live clips from attacks (AUC 1.00)" in done.stderr
    assert done.returncode == 0, done.stderr
