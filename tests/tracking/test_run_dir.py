"""The run directory: every name in it, and what is said where something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.tracking.run_dir import RunDir
from livetrain.verdict import threshold


def test_the_names_are_those_that_a_run_writes(plain: Path) -> None:
    run = RunDir(plain)
    written = [run.config, run.environment, run.metrics, run.checkpoints, run.verdict, run.report]
    written += [run.scores("dev"), run.scores("test"), run.details("dev"), run.details("test")]
    assert [path for path in written if not path.exists()] == []
    assert run.evaluations == plain / threshold.EVALUATIONS and RunDir.of(run.load_config()) == run


def test_the_best_and_the_newest_checkpoint(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.best() is None and run.newest_step() == 0
    for name in ("best-00000020", "best-00000100", "step-00000020", "step-00000100", ".step-00000120.tmp"):
        (run.checkpoints / name).mkdir(parents=True)
    assert run.best() == run.checkpoints / "best-00000100" and run.newest_step() == 100


def test_what_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with pytest.raises(UserError, match="run is not a run directory: it has no config.yaml"):
        run.load_config()
    for content in (None, "{", "[]", '{"threshold": null}'):
        run.path.mkdir(exist_ok=True)
        if content is not None:
            run.verdict.write_text(content)
        with pytest.raises(UserError, match=r"verdict\.json: .*; `livetrain evaluate .*run` writes it"):
            run.read_verdict()


def test_it_is_that_of_the_configuration() -> None:
    assert RunDir.of(Config(run_dir="runs/mine")).metrics == Path("runs/mine/metrics.jsonl")
