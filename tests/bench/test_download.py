"""What training downloads from a bucket: in windows about what it uses, in global order many times that."""

from __future__ import annotations

from livetrain.bench import download
from livetrain.bench.options import Options


def test_windows_download_what_they_use() -> None:
    found = download.run(Options(quick=True))
    assert len(found.ratios) == 2 and all(ratio >= 1 / 1.05 for ratio in found.ratios.values())
    cost, mixing = found.tables
    assert float(cost.rows[0][2]) > 50, "global order, a cache of 5 %"
    assert [float(row[-1]) for row in cost.rows[:3]] == [0, 0, 0], "all is in the cache after one epoch"
    (_, everywhere, *_), (_, windows, *_), *_ = mixing.rows
    assert float(everywhere.rstrip("%")) < 0.5 and 5 < float(windows.rstrip("%")) < 8
