"""`livetrain jobs` and `cancel`, with stand-ins for SLURM's commands that answer as the real ones do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from livetrain import cli
from livetrain.config import load_config, to_yaml
from livetrain.jobs import ledger, requeue
from livetrain.jobs.ledger import Submitted

STAND_INS = {
    "squeue": '#!/bin/sh\necho "7|RUNNING|None"\necho "8_1|PENDING|Resources"\necho "99|RUNNING|None"\n',
    "sacct": '#!/bin/sh\necho "7|RUNNING|None"\necho "8_0|FAILED|NonZeroExitCode"\necho "6|CANCELLED by 0|None"\n',
    "scancel": '#!/bin/sh\necho "$@" >> "$CALLS"\n',
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the stand-ins; what scancel was called with is in `calls` beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in STAND_INS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return folder


def submitted(run_dir: Path, job: str, *tasks: str) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    runs = [str(run_dir / task) for task in tasks] or [str(run_dir)]
    ledger.note(run_dir, Submitted(job, "train", runs, "abc", "code", ["sbatch"], 1.0))


def test_jobs_shows_state_attempts_and_last_update(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    submitted(runs / "one", "6")
    submitted(runs / "one", "7")
    (runs / "one" / "checkpoints" / "step-00000120").mkdir(parents=True)
    (runs / "one" / "attempts.jsonl").write_text(
        json.dumps({"exit_code": 75, "step": 100, "job": "7", "time": 1}) + "\n"
    )
    submitted(runs / "many", "8", "task-0", "task-1")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["jobs"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][1:5] == ["8_0", "train", "FAILED", "NonZeroExitCode"]
    assert lines[2][1:5] == ["8_1", "train", "PENDING", "Resources"]
    assert lines[3][1:4] == ["6", "train", "CANCELLED"]
    assert lines[4][1:4] == ["7", "train", "RUNNING"] and lines[4][4:] == ["1", "120", "exit", "code", "75"]


def test_a_cancelled_run_saves_and_does_not_start_again(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "many"
    submitted(run, "8", "task-0", "task-1")
    assert cli.main(["cancel", str(run)]) == 0
    assert "cancelled 8; what runs saves first" in capsys.readouterr().out
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["--state=RUNNING --full --signal=TERM 8", "--state=PENDING 8"]
    config = load_config([], [f"run_dir={run / 'task-1'}", "data.shards=x"], warn=print)
    (run / "config.yaml").write_text(to_yaml(config))
    assert requeue.main(["75", str(run / "config.yaml")]) == 1
    assert "not starting again: it was cancelled" in capsys.readouterr().out
    submitted(run, "9", "task-0", "task-1")
    assert requeue.main(["75", str(run / "config.yaml")]) == 0, "submitted again, it is wanted again"


def test_what_cannot_be_asked_is_named(
    tmp_path: Path, cluster: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["jobs", str(tmp_path)]) == 2
    assert "nothing was submitted from here" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert cli.main(["jobs"]) == 2
    submitted(tmp_path / "old", "1")
    (tmp_path / "old" / "attempts.jsonl").write_text('{"exit_code": 75, "st')  # torn
    assert cli.main(["jobs", str(tmp_path / "old")]) == 0
    assert "attempts.jsonl cannot be read" in capsys.readouterr().out
    assert cli.main(["cancel", str(tmp_path / "old")]) == 0
    assert "nothing of it is queued or running" in capsys.readouterr().out
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["jobs", str(tmp_path / "old")]) == 2
    assert "squeue is not on PATH" in capsys.readouterr().err
