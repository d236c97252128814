"""Sweeps: the same file as W&B takes, the same trials again for the same seed, one table in the end."""

from __future__ import annotations

import csv
import json
import math
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from livetrain import cli, train
from livetrain.config import load_config, to_yaml
from livetrain.core.errors import UserError
from livetrain.jobs import array, sweep
from livetrain.jobs.search import grid, load_sweep, random_options
from livetrain.jobs.study import Study

REPO = Path(__file__).parents[2]

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
    """The best of 20 trials for a smooth figure with its peak at lr = 3e-4, against random search, over four seeds."""
    loaded = load_sweep(write(tmp_path, RANDOM.replace("random", "bayes")))

    def quality(options: dict[str, Any]) -> float:
        return -abs(math.log10(options["optim.lr"] / 3e-4)) - options["model.dropout"]

    informed, blind = [], []
    for seed in range(4):
        values, study = [], Study(tmp_path / f"{seed}", loaded, seed)
        for _ in range(20):
            trial = study.ask()
            values.append(quality(study.options(trial)))
            study.tell(trial, values[-1])
        informed.append(max(values))
        blind.append(max(quality(random_options(loaded, seed, trial)) for trial in range(20)))
    assert sum(informed) > sum(blind)
    study.tell(study.ask(), math.nan)  # a trial that failed has no figure; the search continues
    assert study.options(study.ask())


def test_a_study_goes_on_where_it_was_and_hands_a_trial_to_one_process(tmp_path: Path) -> None:
    loaded = load_sweep(write(tmp_path, RANDOM))
    one, other = Study(tmp_path / "s", loaded, 3), Study(tmp_path / "s", loaded, 3)
    first, second = one.ask(), other.ask()
    assert (first.number, second.number) == (0, 1) and one.num_trials == other.num_trials == 2
    assert [one.options(first), other.options(second)] == [random_options(loaded, 3, n) for n in (0, 1)]
    one.tell(first, 0.5)
    again = Study(tmp_path / "s", loaded, 3)
    (waiting,) = again.unfinished()
    assert waiting.number == 1 and again.options(waiting) == random_options(loaded, 3, 1)


def test_no_command_draws_what_another_one_drew(tmp_path: Path) -> None:
    """Two at once, and one that continues, while too few trials have ended for a model: all options differ."""
    loaded = load_sweep(write(tmp_path, RANDOM.replace("random", "bayes")))
    drawn = []
    for _ in range(3):
        studies = [Study(tmp_path / "s", loaded, 3) for _ in range(2)]
        drawn += [json.dumps(study.options(study.ask())) for study in studies]
    assert len(set(drawn)) == 6


def test_what_finished_elsewhere_is_learnt_from_once(tmp_path: Path) -> None:
    loaded = load_sweep(write(tmp_path, GRID.replace("grid", "bayes")))
    study = Study(tmp_path / "s", loaded, 0)
    options = {"optim.lr": 1e-4, "model.pool": "max", "train.global_batch": 8}
    assert study.add("task-0", options, 0.1) and study.add("task-0", options, 0.1) and study.num_trials == 1
    assert not study.add("task-1", options | {"optim.lr": 7.0}, 0.1), "a value that the search does not know"


def test_a_trial_far_behind_is_ended(tmp_path: Path) -> None:
    text = RANDOM.replace("dev/auc, goal: maximize", "dev/eer, goal: minimize")
    loaded = load_sweep(write(tmp_path, text + "early_terminate: {type: hyperband, min_iter: 2}\n"))
    study = Study(tmp_path / "s", loaded, 0)
    for value in (0.1, 0.11, 0.12, 0.13):
        trial = study.ask()
        study.should_prune(trial, [0.4, value])
        study.tell(trial, value)
    assert not study.should_prune(study.ask(), [0.5]), "too early"
    assert study.should_prune(study.ask(), [0.5, 0.5]) and not study.should_prune(study.ask(), [0.5, 0.05])
    asked = iter([False, True])
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "POLL_SECONDS", 0.2)
        patch.setattr(sweep.sys, "executable", str(script(tmp_path)))
        assert sweep.train([], lambda: next(asked)) == (75, True)
    assert time.monotonic() - started < 20


def script(tmp_path: Path) -> Path:
    """A program that waits for SIGTERM and ends with the exit code of a run that was stopped."""
    path = tmp_path / "waits"
    path.write_text("#!/usr/bin/env bash\ntrap 'exit 75' TERM\nwhile true; do sleep 0.05; done\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("method: grid", "method: best"), "method is 'best'"),
        (("dev/eer", "train/loss"), "metric must have a name as dev/eer"),
        (("optim.lr:", "optim.rate:"), "parameters.optim.rate is not a key"),
        (("{values: [mean, max]}", "mean"), "parameters.model.pool must hold values"),
        (("{values: [mean, max]}", "{values: []}"), "something in it"),
        (("{value: 8}", "{min: 4, max: 8}"), "method grid needs values"),
        (("{value: 8}", "{min: 8, max: 4}"), "min the smaller one"),
        (("{value: 8}", "{distribution: normal, min: 4, max: 8}"), "distribution is 'normal'"),
        (("{value: 8}", "{distribution: log_uniform_values, min: 0, max: 8}"), "min above 0"),
        ((GRID, f"{GRID}early_terminate: 3\n"), "early_terminate must hold `key: value` lines, not 3"),
        ((GRID, "- method: grid\n"), "must hold `key: value` lines"),
        ((GRID, "method: grid\nmetric: dev/eer\n"), "metric must hold `key: value` lines, not 'dev/eer'"),
        ((GRID, "method: grid\nmetric: {name: dev/eer}\nparameters: [optim.lr]\n"), "parameters must hold"),
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
        ([str(tmp_path)], "holds no sweep"),
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


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Trials are not trained, but leave what training leaves: config.yaml, a dev figure of their own, a verdict.

    The list has what was asked for; a learning rate of 1e-4 crashes the first time.
    """
    asked: list[list[str]] = []

    def train(arguments: list[str], hopeless: object) -> tuple[int, bool]:
        asked.append(arguments)
        config = load_config([], [item for item in arguments if "=" in item], warn=print)
        folder = Path(config.run_dir)
        (folder / "config.yaml").write_text(to_yaml(config))
        if config.optim.lr == 1e-4 and len([one for one in asked if one == arguments]) == 1:
            return 1, False
        (folder / "metrics.jsonl").write_text(json.dumps({"kind": "dev", "step": 2, "eer": config.optim.lr}) + "\n")
        (folder / "verdict.json").write_text('{"test": {"eer": 0.2, "auc": 0.9, "hter": 0.3}}')
        return 0, False

    monkeypatch.setattr(sweep, "train", train)
    return asked


def table_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "sweep.csv").open()))


@pytest.mark.slow
def test_a_crashed_trial_is_tried_again_and_no_other(
    tmp_path: Path, trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The options in the table are those that each trial was trained with, after a restart too."""
    text = "method: bayes\nmetric: {name: dev/eer, goal: minimize}\n"
    text += "parameters:\n  optim.lr: {values: [1.0e-4, 3.0e-4, 1.0e-3]}\n  model.pool: {values: [mean, max]}\n"
    command = [str(write(tmp_path, text)), "data.shards=x", f"run_dir={tmp_path / 's'}", "--count", "6"]
    assert cli.main(["sweep", *command]) == 0
    crashed = [row["trial"] for row in table_of(tmp_path / "s") if row["state"] == "unfinished"]
    assert crashed and len(trained) == 6
    assert cli.main(["sweep", *command]) == 0
    assert len(trained) == 6 + len(crashed)
    assert trained[6:] == [one for one in trained[:6] if any(f"/{name}" in " ".join(one) for name in crashed)]
    rows = table_of(tmp_path / "s")
    assert [row["state"] for row in rows] == ["finished"] * 6
    assert [float(row["dev/eer"]) for row in rows] == sorted(float(row["optim.lr"]) for row in rows), "as trained"
    assert "ranked by dev/eer" in capsys.readouterr().out.splitlines()[-1]
    assert cli.main(["sweep", str(tmp_path / "s")]) == 0 and len(trained) == 6 + len(crashed)


def test_another_search_in_a_used_folder_is_refused(
    tmp_path: Path, trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, GRID)
    command = [str(path), "data.shards=x", f"run_dir={tmp_path / 's'}"]
    assert cli.main(["sweep", *command, "--count", "1"]) == 0
    assert cli.main(["sweep", *command, "data.threads=3", "--count", "2"]) == 0, "more trials, and what changes nothing"
    assert cli.main(["sweep", *command, "optim.weight_decay=0.5"]) == 2
    assert "optim.weight_decay was 0.05 and is 0.5" in capsys.readouterr().err
    path.write_text(GRID.replace("[mean, max]", "[mean, attention]"))
    assert cli.main(["sweep", *command]) == 2
    assert "parameters.model.pool was" in capsys.readouterr().err


def test_two_commands_do_not_take_the_same_trial(tmp_path: Path) -> None:
    with sweep._lock(tmp_path / "t") as mine, sweep._lock(tmp_path / "t") as also:
        assert mine and not also


@pytest.mark.slow
def test_lists_are_options(tmp_path: Path, trained: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and in a job array, whose lines a shell reads."""
    for method in ("grid", "bayes"):
        text = GRID.replace("grid", method).replace(
            "train.global_batch: {value: 8}", 'data.sources: {values: [[a, "b c"], [d]]}'
        )
        path = write(tmp_path, text)
        run_dir = tmp_path / method
        assert cli.main(["sweep", str(path), "data.sources=[x]", f"run_dir={run_dir}", "--count", "4"]) == 0
        found = {str(load_config([run_dir / f"trial-00{n}" / "config.yaml"], []).data.sources) for n in range(4)}
        assert found <= {"['a', 'b c']", "['d']"}
    calls: list[Any] = []
    monkeypatch.setattr(
        "livetrain.jobs.submit.main", lambda arguments, joined_by: calls.append((arguments, joined_by)) or 0
    )
    path = write(tmp_path, GRID.replace("train.global_batch: {value: 8}", 'data.sources: {values: [[a, "b c"], [d]]}'))
    assert cli.main(["sweep", str(path), "data.sources=[x]", f"run_dir={tmp_path / 'array'}", "--nodes", "2"]) == 0
    (arguments, joined_by) = calls[0]
    assert {"--nodes=2", "--array"} <= set(arguments) and joined_by == ["sweep", str(tmp_path / "array")]
    lines = array.lines_of(tmp_path / "array" / "trials.txt")
    assert len(lines) == 8
    read = load_config([], ["data.shards=", *shlex.split(lines[0])], warn=print)
    assert read.data.sources == ["a", "b c"] and read.optim.lr == 1e-4
    with (tmp_path / "line").open("w") as file:
        file.write(lines[0])
    words = subprocess.run(["xargs", "-a", tmp_path / "line", "printf", "%s\\0"], capture_output=True, text=True).stdout
    assert words.split("\0")[:-1] == shlex.split(lines[0]), "as slurm/train.sbatch reads it"


@pytest.mark.slow
def test_a_real_trial(demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained here, not by a launcher: its own dev figure and test figures are in the table."""
    from tests.runs import SMALL, forget_accelerator

    def run(arguments: list[str], hopeless: object) -> tuple[int, bool]:
        assert arguments[:2] == ["--config_file", "launch/one_cpu.yaml"]
        forget_accelerator()
        return train.main(arguments[2:]), False

    monkeypatch.setattr(sweep, "train", run)
    path = write(tmp_path, GRID.replace("[1.0e-4, 3.0e-4]", "[1.0e-3]").replace("[mean, max]", "[max]"))
    base = [str(path), *SMALL, f"data.shards={demo_shards}", f"run_dir={tmp_path / 's'}", "train.max_steps=2"]
    assert cli.main(["sweep", *base, "--config_file", "launch/one_cpu.yaml"]) == 0
    (row,) = table_of(tmp_path / "s")
    assert row["model.pool"] == "max" and row["test/auc"] and 0 <= float(row["dev/eer"]) <= 1
    assert row["state"] == "finished"


def test_trials_of_wandb_agent_have_run_directories_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from livetrain.config import load_config
    from livetrain.tracking.wandb_run import wandb_id

    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    assert load_config([], ["data.shards=x", "name=n"], warn=print).run_dir == "runs/n-abc123"
    assert wandb_id(Path("runs/n-abc123"), "online") == "abc123"


def test_a_renamed_key_is_taken_by_its_new_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_sweep(write(tmp_path, GRID.replace("train.global_batch:", "data.nvdec_lanes:")))
    assert "data.nvdec_pipelines" in {item.key for item in loaded.parameters}
    assert "parameters.data.nvdec_lanes is now data.nvdec_pipelines" in capsys.readouterr().err
