"""Accuracy against cost: every combination measured, the Pareto front marked."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from livetrain import cli
from livetrain.inference import ablate
from livetrain.inference.ablate import Row, pareto
from tests.runs import forget_accelerator


def row(eer: float | None, milliseconds: float) -> Row:
    return Row(1, "none", "fp32", 1, eer, 0.9, milliseconds, 1.0, 0)


def test_the_pareto_front() -> None:
    rows = [row(0.1, 5.0), row(0.1, 6.0), row(0.05, 9.0), row(0.2, 4.0), row(0.3, 4.0), row(0.05, 9.0), row(None, 1.0)]
    assert pareto(rows) == [True, False, True, True, False, True, False]
    marked = [line[0] for line in ablate.table(rows).splitlines()]
    assert marked == [" ", "*", " ", "*", "*", " ", "*", " "]


@pytest.mark.slow
def test_every_combination_is_measured(
    plain: Path, variant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_accelerator()
    out = tmp_path / "table.csv"
    arguments = ["ablate", str(plain), "--frames", "1,2", "--tta", "none,flip", "--precision", "fp32"]
    assert cli.main([*arguments, "--out", str(out), "--members", str(variant)]) == 0
    printed = capsys.readouterr().out
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    combinations = [(r["frames"], r["tta"], r["members"]) for r in rows]
    assert combinations == [(f, t, m) for f in "12" for t in ("none", "flip") for m in "12"]
    found = dict(zip(combinations, rows, strict=True))
    plainly = json.loads((plain / "verdict.json").read_text())["dev"]
    assert float(found["2", "none", "1"]["eer_percent"]) == pytest.approx(100 * plainly["eer"], abs=1e-3)
    cost = {key: float(item["gflop_per_clip"]) for key, item in found.items()}
    assert cost["1", "none", "1"] > 0
    for key, factor in [(("2", "none", "1"), 2), (("1", "flip", "1"), 2), (("2", "flip", "2"), 8)]:
        assert cost[key] == pytest.approx(factor * cost["1", "none", "1"], rel=0.05)
    assert all(float(item["ms_per_clip"]) > 0 for item in rows) and any(item["pareto"] == "1" for item in rows)
    assert printed.splitlines()[-1] == str(out) and sum(line.startswith("*") for line in printed.splitlines()) >= 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tta", "spin"], "--tta spin is not one of none, flip"),
        (["--frames", "1,x"], "--frames 1,x must be counts"),
        (["--precision", "fp8"], "--precision fp8 is not one of"),
    ],
)
def test_mistakes(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ablate", "runs/none", *arguments]) == 2
    assert says in capsys.readouterr().err
