"""W&B over restarts: one group of attempts offline, one run online; and telling what W&B lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from livetrain import cli
from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.tracking import wandb_check
from livetrain.tracking.metrics_log import MetricsLog
from livetrain.tracking.wandb_check import compare
from livetrain.tracking.wandb_run import Wandb, wandb_id


def line(step: int, loss: float | None = 0.5, kind: str = "train") -> dict[str, Any]:
    return {"kind": kind, "step": step, "epoch": step / 10, "loss": loss, "time": 1.0e9 + step / 3}


def attempt(run_dir: Path, lines: list[dict[str, Any]], *, first: bool = False) -> None:
    """What the loop does with its log lines, and the end of the process."""
    config = Config(name="tracked")
    config.tracking.wandb = "offline"
    log = MetricsLog(run_dir / "metrics.jsonl", is_new=first)
    tracker = Wandb(config, run_dir, print)
    for record in lines:
        if log.write(record):
            tracker.log(record)
    tracker.finish()


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three attempts; the second and third do some steps again. Long enough for W&B's files to have several blocks."""
    run_dir = tmp_path_factory.mktemp("run")
    attempt(run_dir, [line(step) for step in range(1, 300)] + [line(299, None, "dev")], first=True)
    attempt(run_dir, [line(step) for step in range(290, 320)])
    attempt(run_dir, [line(step) for step in range(310, 330)])
    return run_dir


def test_attempts_are_a_group_and_together_the_whole_run(restarted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(restarted.glob("wandb/offline-run-*/run-*.wandb"))
    base = (restarted / "wandb" / "id").read_text()
    assert sorted(path.stem for path in files) == [f"run-{base}-{n}" for n in (1, 2, 3)]
    assert max(path.stat().st_size for path in files) > 2 * wandb_check.BLOCK_BYTES
    assert compare(restarted) == wandb_check.Comparison(330, [], [], [])
    assert cli.main(["sync-check", str(restarted)]) == 0
    assert "shows all 330 log lines" in capsys.readouterr().out


def test_what_is_lost_doubled_or_changed_is_named(
    restarted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (restarted / "metrics.jsonl").read_text().splitlines()
    changed = json.loads(lines[4]) | {"loss": 0.75}
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines[:4], json.dumps(changed), *lines[5:]]) + "\n")
    first, *others = sorted(restarted.glob("wandb/offline-run-*"))
    for number, folder in enumerate((first, first, others[0])):  # one attempt twice, the last one never
        (tmp_path / "wandb" / str(number)).mkdir(parents=True)
        for path in folder.glob("*.wandb"):
            (tmp_path / "wandb" / str(number) / path.name).write_bytes(path.read_bytes())
    found = compare(tmp_path)
    assert found.missing == [("train", step) for step in range(320, 330)]
    assert found.doubled == [("dev", 299), *(("train", step) for step in range(1, 300))]
    assert found.differing == [("train", 5)]
    assert cli.main(["sync-check", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "lacks 10 of 330 log lines: train 320" in said and "doubles 300" in said and "differs in 1" in said


def test_a_torn_file_gives_what_is_whole(restarted: Path, tmp_path: Path) -> None:
    source = min(restarted.glob("wandb/*/run-*.wandb"), key=lambda path: path.parent.name)
    data = source.read_bytes()
    whole = [figures["step"] for figures in wandb_check.history(source)]
    for size in (0, 6, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "run-x.wandb").write_bytes(data[:size])
        cut = [figures["step"] for figures in wandb_check.history(tmp_path / "run-x.wandb")]
        assert cut == whole[: len(cut)]
    assert len(cut) >= len(whole) - 1


def test_ids(tmp_path: Path) -> None:
    online = wandb_id(tmp_path, "online")
    assert wandb_id(tmp_path, "online") == online and wandb_id(tmp_path, "offline") == f"{online}-1"
    (tmp_path / "wandb" / f"offline-run-20260101_000000-{online}-1").mkdir()
    assert wandb_id(tmp_path, "offline") == f"{online}-2"
    assert wandb_id(tmp_path / "other", "online") != online


def test_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="holds no figures"):
        compare(tmp_path)
    MetricsLog(tmp_path / "metrics.jsonl", is_new=True).write(line(1))
    assert cli.main(["sync-check", str(tmp_path)]) == 2
    assert "holds no W&B files" in capsys.readouterr().err
