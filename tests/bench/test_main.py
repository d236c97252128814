"""The command: what it refuses, and the guard."""

from __future__ import annotations

from pathlib import Path

import pytest

from livetrain import cli
from livetrain.bench import main
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.core.files import write_json


def test_names_and_files_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "nothing"]) == 2
    assert "no bench 'nothing'; there are: decode" in capsys.readouterr().err
    assert cli.main(["bench", "decode", "--against", str(tmp_path / "none.json")]) == 2
    assert "none.json: no file of ratios" in capsys.readouterr().err
    assert cli.main(["bench", "decode", "--height", "481"]) == 2
    assert "--height 481: there are 480, 1080" in capsys.readouterr().err


def test_every_bench_is_a_module_with_a_run() -> None:
    import importlib

    assert all(callable(importlib.import_module(f"livetrain.bench.{name}").run) for name in main.BENCHES)
    assert set(main.QUICK) <= set(main.BENCHES)


def test_options_reach_the_bench_and_its_table_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Options] = []

    def run(options: Options) -> Report:
        given.append(options)
        return Report("T", "S", [Table("C", ("x",), [(1,)])], {})

    monkeypatch.setattr("livetrain.bench.decode.run", run)
    flags = ["--rounds", "3", "--device", "cuda:0", "--height", "480"]
    assert cli.main(["bench", "decode", *flags, "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    (options,) = given
    assert (options.quick, options.rounds, options.device, options.height) == (False, 3, "cuda:0", 480)
    assert options.data.parent == tmp_path, "apart for each version of what makes the data"
    (line,) = [line for line in (tmp_path / "out/decode.md").read_text().splitlines() if line.startswith("Made by")]
    assert all(" ".join(pair) in line for pair in zip(flags[::2], flags[1::2], strict=True)), line


def test_only_a_ratio_that_falls_by_half_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"speed": 1.0, "new": 0.1, "lost": float("nan")}
    rounds: list[int] = []

    def run(options: Options) -> Report:
        assert options.quick
        rounds.append(options.rounds)
        return Report("T", "S", [Table("C", ("x",), [(1,)])], found)

    monkeypatch.setattr("livetrain.bench.decode.run", run)
    known = tmp_path / "known.json"
    command = ["bench", "decode", "--quick", "--against", str(known), "--ratios", str(tmp_path / "now.json")]
    for value, code in ((1.9, 0), (2.1, 1)):
        write_json(known, {"speed": value, "not measured": 5.0})
        assert cli.main(command) == code
        assert ("slower: speed: 1.000, and 2.100" in capsys.readouterr().out) == bool(code)
    assert rounds == [1, 1, 3], "what has fallen is measured again"
    write_json(known, {"lost": 1.0})
    assert cli.main(command) == 1, "a ratio that could not be measured any more"
    assert (tmp_path / "now.json").read_text() == '{\n  "new": 0.1,\n  "speed": 1.0\n}\n'


def test_what_the_whole_guard_lacks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where an extra is not installed, or a ratio was renamed."""
    monkeypatch.setattr(main, "QUICK", ("decode",))
    monkeypatch.setattr("livetrain.bench.decode.run", lambda options: Report("T", "S", [], {"speed": 1.0}))
    write_json(tmp_path / "known.json", {"speed": 1.0, "gone": 2.0})
    assert cli.main(["bench", "--quick", "--against", str(tmp_path / "known.json")]) == 0
    assert "not measured here: gone, known 2.000\n" in capsys.readouterr().out


def test_a_ratio_that_recovers_when_it_is_measured_again_is_no_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.2, 1.0])
    monkeypatch.setattr("livetrain.bench.decode.run", lambda options: Report("T", "S", [], {"speed": next(values)}))
    write_json(tmp_path / "known.json", {"speed": 1.0})
    assert cli.main(["bench", "decode", "--quick", "--against", str(tmp_path / "known.json")]) == 0
    assert next(values, None) is None
