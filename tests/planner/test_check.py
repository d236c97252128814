"""The planner against every measurement that is committed in benchmarks/."""

from __future__ import annotations

from pathlib import Path

import pytest

from livetrain import cli
from livetrain.bench.results import Report, Table
from livetrain.core.errors import UserError
from livetrain.core.files import write_json
from livetrain.planner import check

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


def found() -> list[check.Checked]:
    return check.check(BENCHMARKS)


@pytest.mark.parametrize("item", found(), ids=lambda item: f"{item.bench}: {item.name}")
def test_every_committed_measurement_is_predicted(item: check.Checked) -> None:
    """Within 30 % of what was measured, from that machine's measured parts."""
    assert item.predicted == pytest.approx(item.measured, rel=check.TOLERANCE)


def test_what_is_checked_is_what_a_bench_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"kind": "training", "name": "both", "measured": 8.5,
         "inputs": {"compute_rate": 10.0, "loader_rate": 40.0, "shares_cores": True}},
        {"kind": "loading", "name": "cores", "measured": 100.0, "inputs": {"core_seconds": 0.02, "cores": 2}},
    ]  # fmt: skip
    table = Table("C", ("x",), [(float("nan"),)])
    Report("T", "S", [table], {"r": float("nan")}, measurements=rows).write(tmp_path / "step.md")
    assert [(c.bench, c.name, c.predicted) for c in check.check(tmp_path)] == [
        ("step", "both", 8.0), ("step", "cores", 100.0),
    ]  # fmt: skip
    assert cli.main(["plan", "--check", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "1 of 1 predictions within 30%; 1 rows are derived from the measurement itself" in said
    rows[1]["measured"] = 160.0
    Report("T", "S", [table], measurements=rows).write(tmp_path / "step.md")
    assert cli.main(["plan", "--check", str(tmp_path)]) == 0, "counts for nothing"
    rows[0]["measured"] = 20.0
    Report("T", "S", [table], measurements=rows).write(tmp_path / "step.md")
    assert cli.main(["plan", "--check", str(tmp_path)]) == 1
    assert "0 of 1 predictions within 30%" in capsys.readouterr().out


def test_nothing_is_passed_over_in_silence(tmp_path: Path) -> None:
    Report("T", "S", []).write(tmp_path / "decode.md")
    write_json(tmp_path / "ratios.json", {"r": 1.0})
    assert check.check(tmp_path) == [], "excused by name"
    Report("T", "S", []).write(tmp_path / "newest.md")
    with pytest.raises(UserError, match="newest.json has no measurement"):
        check.check(tmp_path)
    write_json(tmp_path / "newest.json", {"measurements": [{"kind": "colour"}]})
    with pytest.raises(UserError, match="newest.json is not a result of `livetrain bench`"):
        check.check(tmp_path)


def test_every_bench_is_predicted_or_excused() -> None:
    from livetrain.bench.main import BENCHES

    assert set(check.NOT_PREDICTED) <= set(BENCHES)
    assert set(BENCHES) - set(check.NOT_PREDICTED) == {"loader", "step", "ddp"}
