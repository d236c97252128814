"""Model soups: the mean of weights, chosen greedily on dev; a run directory like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from livetrain import cli, load_model
from livetrain.inference import soup
from livetrain.inference.package import load
from tests.inference.test_package import untrained
from tests.runs import forget_accelerator


def weights(value: float) -> soup.Weights:
    return {"w": torch.full((3,), value), "count": torch.tensor(7)}


def test_mean_weights() -> None:
    mean = soup.mean_weights([weights(1.0), weights(2.0), weights(6.0)])
    assert mean["w"].tolist() == [3.0] * 3 and mean["w"].dtype == torch.float32 and mean["count"].item() == 7


def test_greedy_keeps_what_helps() -> None:
    def distance(state: soup.Weights) -> float:
        return abs(float(state["w"][0]) - 2.0)

    found = soup.greedy([weights(9.0), weights(1.5), weights(2.8)], distance)
    assert found.members == [1, 2] and found.weights["w"][0] == pytest.approx(2.15)
    assert found.figure == pytest.approx(0.15)
    assert soup.greedy([weights(2.0), weights(9.0)], distance).members == [0]


@pytest.mark.slow
def test_a_soup_is_a_run(
    plain: Path, variant: Path, demo_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "soup"
    forget_accelerator()
    assert cli.main(["soup", str(plain), str(variant), "--out", str(out), "--method", "uniform"]) == 0
    assert f"in the soup: {plain}, {variant}" in capsys.readouterr().out
    states = [load(run).model.state_dict() for run in (plain, variant, out)]
    assert all(torch.allclose((a + b) / 2, c) for a, b, c in zip(*(state.values() for state in states), strict=True))
    assert (out / "report.html").exists() and json.loads((out / "verdict.json").read_text())["test"]["num_clips"] == 6
    found = load_model(out).predict(demo_videos / "videos" / "id00_0_live.mp4")
    assert found.live is not None and 0 < found.p_live < 1


def test_mistakes(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from livetrain.inference.package import write

    other = write(untrained(pool="attention"), tmp_path / "other")
    for arguments, says in [
        ([str(plain), "--out", str(tmp_path / "x")], "needs two checkpoints or more"),
        ([str(plain), str(other), "--out", str(tmp_path / "x")], "different architectures"),
        ([str(other), str(other), "--out", str(tmp_path / "x")], "does not know its shards"),
        ([str(plain), str(plain), "--out", str(plain)], "holds something already"),
    ]:
        assert cli.main(["soup", *arguments]) == 2
        assert says in capsys.readouterr().err
