"""Sweeps: the same file as W&B takes, the same trials again for the same seed, one table in the end."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from livetrain import cli, sweep, train
from livetrain.errors import UserError
from livetrain.sweep import Bayes, grid, load_sweep, random_options

REPO = Path(__file__).parent.parent

GRID = """
method: grid
metric: {name: dev/eer, goal: minimize}
parameters:
  optim.lr: {values: [1.0e-4, 3.0e-4]}
  model.pool: {values: [mean, max]}
  train.global_batch: {value: 8}
"""
RANDOM = """
method: random
metric: {name: dev/auc, goal: maximize}
parameters:
  optim.lr: {distribution: log_uniform_values, min: 1.0e-5, max: 1.0e-2}
  optim.warmup_steps: {min: 1, max: 4}
  model.dropout: {min: 0.0, max: 0.5}
  model.pool: {values: [mean, max, attention]}
"""


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "sweep.yaml").write_text(text)
    return tmp_path / "sweep.yaml"


def test_grid_has_every_combination_once(tmp_path: Path) -> None:
    found = list(grid(load_sweep(write(tmp_path, GRID))))
    assert found[0] == {"optim.lr": 1e-4, "model.pool": "mean", "train.global_batch": 8}
    assert len({json.dumps(options) for options in found}) == 4


def test_random_options_are_those_of_seed_and_trial(tmp_path: Path) -> None:
    loaded = load_sweep(write(tmp_path, RANDOM))
    found = [random_options(loaded, 3, trial) for trial in range(400)]
    assert found[7] == random_options(loaded, 3, 7) != random_options(loaded, 4, 7)
    rates = [options["optim.lr"] for options in found]
    assert min(rates) > 1e-5 and max(rates) < 1e-2
    assert sum(rate < 10**-3.5 for rate in rates) / 400 == pytest.approx(0.5, abs=0.1), "even in the logarithm"
    assert {options["optim.warmup_steps"] for options in found} == {1, 2, 3, 4}
    assert {options["model.pool"] for options in found} == {"mean", "max", "attention"}
    assert all(0 <= options["model.dropout"] <= 0.5 for options in found)


def test_bayes_comes_nearer_than_chance(tmp_path: Path) -> None:
    """The best of 30 trials for a smooth figure with its peak at lr = 3e-4, against random search, over five seeds."""
    loaded = load_sweep(write(tmp_path, RANDOM.replace("random", "bayes")))

    def quality(options: dict[str, Any]) -> float:
        return -abs(math.log10(options["optim.lr"] / 3e-4)) - options["model.dropout"]

    informed, blind = [], []
    for seed in range(5):
        search = Bayes(loaded, seed)
        values = []
        for _ in range(30):
            values.append(quality(search.suggest()))
            search.tell(values[-1])
        informed.append(max(values))
        blind.append(max(quality(random_options(loaded, seed, trial)) for trial in range(30)))
    assert sum(informed) > sum(blind)
    search.suggest()
    search.tell(math.nan)  # a trial that failed has no figure; the search goes on
    assert search.suggest()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("method: grid", "method: best"), "method is 'best'"),
        (("dev/eer", "train/loss"), "metric must have a name as dev/eer"),
        (("optim.lr:", "optim.rate:"), "parameters.optim.rate is no key"),
        (("{values: [mean, max]}", "mean"), "parameters.model.pool must hold values"),
        (("{values: [mean, max]}", "{values: []}"), "something in it"),
        (("{value: 8}", "{min: 4, max: 8}"), "method grid needs values"),
        (("{value: 8}", "{min: 8, max: 4}"), "min the smaller one"),
        (("{value: 8}", "{distribution: normal, min: 4, max: 8}"), "distribution is 'normal'"),
        (("{value: 8}", "{distribution: log_uniform_values, min: 0, max: 8}"), "min above 0"),
    ],
)
def test_mistakes_in_the_file_are_named(change: tuple[str, str], says: str, tmp_path: Path) -> None:
    path = write(tmp_path, GRID.replace(*change))
    with pytest.raises(UserError, match=says) as caught:
        load_sweep(path)
    assert "sweep.yaml" in str(caught.value)


def test_mistakes_in_the_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bayes = path = str(write(tmp_path, RANDOM.replace("random", "bayes")))
    for arguments, says in [
        (["absent.yaml"], "absent.yaml: no such file"),
        ([path, "data.shards=x"], "--count"),
        ([path, "data.shards=x", "optim.lrr=1"], "optim.lr"),
        ([str(tmp_path)], "holds no trials"),
        (
            [bayes, "data.shards=x", "--count", "2", "--nodes", "1"],
            "locally",
        ),
    ]:
        assert cli.main(["sweep", *arguments]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((REPO / "configs" / "sweeps").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_sweeps_load_here_and_in_wandb(path: Path) -> None:
    from wandb.sdk.launch.sweeps.utils import load_sweep_config  # what `wandb sweep` checks a file with

    assert load_sweep(path).parameters
    assert load_sweep_config(str(path))


def test_trials_run_rank_and_go_on(
    demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two real trials, of which the first was done before: it stays as it is. Trained here, not by a launcher."""
    from tests.runs import SMALL, forget_accelerator

    def run(command: list[str]) -> Any:
        assert command[:4] == [sys.executable, "-m", "livetrain.cli", "train"]
        assert command[4:6] == ["--config_file", "launch/one_cpu.yaml"]
        forget_accelerator()
        return SimpleNamespace(returncode=train.main(command[6:]))

    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(run=run))
    path = write(tmp_path, GRID.replace("[1.0e-4, 3.0e-4]", "[1.0e-3]"))
    base = [str(path), *SMALL, f"data.shards={demo_shards}", f"run_dir={tmp_path / 's'}", "train.max_steps=2"]
    done = tmp_path / "s" / "trial-000"
    done.mkdir(parents=True)
    (done / "metrics.jsonl").write_text('{"kind": "dev", "step": 2, "eer": 0.01}\n')
    (done / "verdict.json").write_text('{"test": {"eer": 0.02, "auc": 0.9, "hter": 0.03}}')
    assert cli.main(["sweep", *base, "--config_file", "launch/one_cpu.yaml"]) == 0
    rows = list(csv.DictReader((tmp_path / "s" / "leaderboard.csv").open()))
    assert [row["trial"] for row in rows] == ["trial-000", "trial-001"]
    assert float(rows[0]["dev/eer"]) == 0.01 <= float(rows[1]["dev/eer"])
    assert rows[1]["model.pool"] == "max" and rows[1]["test/auc"]
    assert "MaxPool" not in (done / "verdict.json").read_text() and not (done / "config.yaml").exists()
    assert "pool: max" in (tmp_path / "s" / "trial-001" / "config.yaml").read_text()
    assert "trial-001" in capsys.readouterr().out.splitlines()[-1]


def test_an_array_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("livetrain.submit.main", lambda arguments: asked.extend(arguments) or 0)
    arguments = [str(write(tmp_path, GRID)), "data.shards=x", f"run_dir={tmp_path}/s", "--nodes", "2", "--time", "1:00"]
    assert cli.main(["sweep", *arguments]) == 0
    assert {"--nodes=2", "--time=1:00", "--array"} <= set(asked)
    assert len((tmp_path / "s" / "trials.txt").read_text().splitlines()) == 4
    assert json.loads((tmp_path / "s" / "task-3" / sweep.TRIAL).read_text())["options"]["model.pool"] == "max"


def test_trials_of_wandb_agent_have_run_directories_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from livetrain.config import load_config
    from livetrain.engine.tracking import wandb_id

    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    assert load_config([], ["data.shards=x", "name=n"], warn=print).run_dir == "runs/n-abc123"
    assert wandb_id(Path("runs/n-abc123"), "online") == "abc123"
