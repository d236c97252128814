"""`livetrain challenge`: the steps of a submission, each with its command, skipped when done."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from livetrain import cli
from livetrain.core.errors import UserError
from livetrain.jobs import challenge
from shards import cli as shards_cli
from tests.runs import SMALL


@pytest.mark.slow
def test_from_videos_to_a_submission(demo_videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    videos, out = demo_videos / "videos", tmp_path / "submission.csv"
    where = ["--videos", videos, "--labels", demo_videos / "label.csv", "--test", videos, "--out", out]
    command = ["challenge", *map(str, where), *SMALL]
    assert cli.main(command) == 0
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == len(list(videos.iterdir())) and all(0 < float(row["liveness_score"]) < 1 for row in rows)
    assert (tmp_path / "submission" / "run" / "report.html").exists()
    assert capfd.readouterr().out.count("livetrain ") >= 4
    before = out.read_bytes()
    assert cli.main(command) == 0
    assert "is trained and evaluated already" in capfd.readouterr().out and out.read_bytes() == before
    assert cli.main([*command, "optim.lr=2e-3"]) == 2
    assert "holds a run with other settings" in capfd.readouterr().err


def test_every_step_is_a_command_that_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("videos", "test"):
        (tmp_path / name).mkdir()
    (tmp_path / "label.csv").touch()
    run: list[list[str]] = []

    class Done:
        def __init__(self, command: list[str]) -> None:
            run.append(command[3:])
            self.returncode = 75 if command[3] == "train" else 0

    monkeypatch.setattr(challenge.subprocess, "run", Done)
    where = [f"--videos={tmp_path}/videos", f"--labels={tmp_path}/label.csv", f"--test={tmp_path}/test"]
    options = [*where, f"--out={tmp_path}/mine.csv", "optim.lr=1e-3"]
    assert challenge.main(options) == 75, "it ends as the step that was stopped"
    assert [command[:2] for command in run] == [["shards", "build"], ["shards", "verify"], ["train", "optim.lr=1e-3"]]
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert [line.partition("] livetrain ")[2].split()[0] for line in shown] == ["shards", "shards", "train"]


def test_a_finished_run_of_other_data_or_settings_is_not_taken(
    plain: Path, demo_shards: Path, demo_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards may have been built again, or split again by hand; how many threads load them is no matter."""
    work = tmp_path / "mine"
    shutil.copytree(plain, work / "run")
    shutil.copytree(demo_shards, work / "shards")
    monkeypatch.setattr(challenge.subprocess, "run", lambda command: SimpleNamespace(returncode=0))
    videos, labels = demo_videos / "videos", demo_videos / "label.csv"
    where = [f"--videos={videos}", f"--labels={labels}", f"--test={videos}", f"--out={tmp_path}/mine.csv", *SMALL]
    assert challenge.main([*where, "data.threads=3"]) == 0
    with pytest.raises(UserError, match="optim.lr was 0.001 and is 0.002"):
        challenge.main([*where, "optim.lr=2e-3"])
    assert (
        shards_cli.main(["split", str(work / "shards"), "--protocol", "leave_one_attack_out", "--attack", "print"]) == 0
    )
    with pytest.raises(UserError, match="the data are not those it was trained on"):
        challenge.main(where)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--videos": "absent"}, "absent: no such folder of videos"),
        ({"--labels": "absent.csv"}, "absent.csv: no such label file"),
        ({"--out": "mine"}, "name a file with a suffix"),
        ({"data.shards": "x"}, "livetrain challenge sets it"),
        ({"optim.lrr": "1"}, "did you mean optim.lr?"),
    ],
)
def test_mistakes_cost_no_time(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "label.csv").touch()
    where = {"--videos": tmp_path, "--labels": tmp_path / "label.csv", "--test": tmp_path, "--out": "mine.csv"} | change
    with pytest.raises(UserError) as error:
        challenge.main([f"{name}={value}" for name, value in where.items()])
    assert says in str(error.value)
