"""`livetrain bench gpu` without a GPU: parts that are there are not measured again, and shards change no loss."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from livetrain.bench import gpu
from livetrain.bench.options import Options
from livetrain.bench.results import Table


def test_a_part_that_is_there_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second part fails at first; the next call measures it and those after it alone."""
    calls: list[str] = []
    broken = True

    def part(name: str) -> gpu.Part:
        calls.append(name)
        if name == "jpeg" and broken:
            raise RuntimeError("the machine is gone")
        return [Table(name, ("side", "rate"), [("ours", 2.0), ("theirs", float("nan"))])], {name: float("nan")}

    for name, function in (("video", "video"), ("jpeg", "jpeg"), ("step", "fed"), ("shards", "in_shards")):
        monkeypatch.setattr(gpu, function, lambda options, name=name: part(name))
    options = Options(quick=True, data=tmp_path)
    with pytest.raises(RuntimeError):
        gpu.run(options)
    broken = False
    report = gpu.run(options)
    assert calls == ["video", "jpeg", "jpeg", "step", "shards"]
    again = gpu.run(options)
    assert calls[5:] == [] and [t.caption for t in again.tables] == ["video", "jpeg", "step", "shards"]
    assert again.tables[0].rows[0] == ("ours", 2.0) and math.isnan(again.tables[0].rows[1][1])
    assert math.isnan(again.ratios["jpeg"]) and report.ratios.keys() == again.ratios.keys()
    gpu.run(Options(quick=True, data=tmp_path, rounds=1))
    assert len(calls) == 9, "another request is measured"


@pytest.mark.slow
def test_shards_change_no_loss() -> None:
    tables, ratios = gpu.in_shards(Options(quick=True))
    assert ratios["gpu losses in shards, 1 - largest difference"] > 1 - 1e-6
    assert len(tables[0].rows) == 2
