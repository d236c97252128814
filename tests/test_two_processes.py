"""Two processes train to the loss curve of one.

The samples, frames and augmentations of a step are identical by construction (tests/data), and the loss of an update
is a sum over its clips over a constant. What is left is the order of floating-point sums: the matrix products of a
batch of 4 and of 8 clips, and gloo's sum of two halves. One float32 rounding is 6e-8; the network multiplies it over a
few hundred sums and AdamW's division by small second moments adds more, so losses of order 1 are held to 1e-3 over the
first updates. A wrong scale of the gradient, a sample drawn twice or a different frame moves them by 1e-2 or more
within these updates.
"""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path

import pytest

from shards import cli
from tests import ranks
from tests.runs import launch, losses, records
from tests.shards import clips

OPTIONS = ("train.max_steps=10", "optim.warmup_steps=2", "model.dropout=0.3", "model.drop_path=0.2")


@pytest.fixture(scope="module")
def one(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ranks.train(demo_shards, tmp_path_factory.mktemp("one") / "run", *OPTIONS, processes=1)


def same_run(one: Path, two: Path) -> None:
    assert '"num_processes": 2' in (two / "environment.json").read_text()
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)
    assert len(set(losses(one))) == 10
    norms = [[record["grad_norm"] for record in records(run)] for run in (one, two)]
    assert norms[1][0] == pytest.approx(norms[0][0], rel=1e-4)
    scores = [(run / "scores" / "test.csv").read_text().splitlines() for run in (one, two)]
    assert [line.split(",")[1] for line in scores[0]] == [line.split(",")[1] for line in scores[1]]


def test_two_processes_train_as_one(one: Path, demo_shards: Path, tmp_path: Path) -> None:
    run = ranks.train(demo_shards, tmp_path / "run", *OPTIONS)
    same_run(one, run)
    for record in records(run):
        assert record["data_wait_percent_min"] <= record["data_wait_percent"] <= record["data_wait_percent_max"] <= 100
        assert 0 < record["step_seconds_min"] <= record["step_seconds_max"] and record["slowest_rank"] in (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "average",
    [
        pytest.param("train.ema_decay=0.0", marks=pytest.mark.slow),
        "train.ema_decay=0.5",
        pytest.param("train.swa_start=0.3 train.swa_bn_updates=2", marks=pytest.mark.slow),
    ],
)
def test_dev_is_scored_with_the_weights_that_are_saved(average: str, demo_shards: Path, tmp_path: Path) -> None:
    """Batch statistics, and their average, are each process's own: what is logged is of the first one's, which are
    saved. Scored again from the file, dev has the same loss.
    """
    run = tmp_path / "run"
    options = ("model.backbone=test_efficientnet", *average.split(), "train.eval_every_epochs=0.7")
    ranks.train(demo_shards, run, *OPTIONS, *options, "optim.lr=0.01")
    (best,) = (run / "checkpoints").glob("best-*")
    logged = {record["step"]: record["loss"] for record in records(run, "dev")}[int(best.name[5:])]
    with (run / "scores" / "dev.csv").open(newline="") as file:
        rows = [(float(row["label"]), float(row["p_live"])) for row in csv.DictReader(file)]
    again = -sum(label * math.log(p) + (1 - label) * math.log(1 - p) for label, p in rows) / len(rows)
    assert again == pytest.approx(logged, rel=1e-5)


@pytest.mark.slow  # the README's quickstart and the job of tests/slurm launch processes, too
def test_accelerate_launches_two_processes(one: Path, demo_shards: Path, tmp_path: Path) -> None:
    """The launcher itself, with launch/two_cpus.yaml, gradients accumulated, and a log file for each process."""
    logs = ("--tee", "3", "--log_dir", str(tmp_path / "logs"))
    done = launch(demo_shards, tmp_path / "run", *OPTIONS, "train.accumulation=2", processes=2, extra=logs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].endswith(f":{tmp_path / 'run' / 'report.html'}")
    written = {path.parent.name: path.read_text() for path in (tmp_path / "logs").rglob("stdout.log")}
    assert sorted(written) == ["0", "1"] and "report.html" in written["0"] and "report.html" not in written["1"]
    same_run(one, tmp_path / "run")


def test_a_batch_that_does_not_divide_ends_with_words(demo_shards: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ranks.start(demo_shards, tmp_path / "run", "train.global_batch=7", log=log) as started:
        assert started.wait() == [2, 2]
    assert "train.global_batch=7 does not divide over 2 processes" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "tolerance"),
    [
        # The same sums in another order at most; half precision rounds to 8 or 11 bits.
        pytest.param("ddp.bucket_view=false", 1e-3, marks=pytest.mark.slow),
        pytest.param("ddp.bucket_mb=0.01", 1e-3, marks=pytest.mark.slow),
        pytest.param("ddp.static_graph=true train.accumulation=1", 1e-3, marks=pytest.mark.slow),
        ("ddp.compression=bf16", 3e-2),
        pytest.param("ddp.compression=fp16", 3e-2, marks=pytest.mark.slow),
    ],
)
def test_ways_to_average_gradients(one: Path, demo_shards: Path, tmp_path: Path, option: str, tolerance: float) -> None:
    two = ranks.train(demo_shards, tmp_path / "run", *OPTIONS, "train.accumulation=2", *option.split())
    assert losses(two) == pytest.approx(losses(one), abs=tolerance)
    if "compression" in option:
        norms = [[record["grad_norm"] for record in records(run)] for run in (one, two)]
        assert norms[1][0] == pytest.approx(norms[0][0], rel=2e-2) and norms[1][0] != norms[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("num_test", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_evaluation_over_processes_that_do_not_divide(demo_videos: Path, tmp_path: Path, num_test: int) -> None:
    """Three clips a process and step: each clip of the score file once, and every figure to the last digit; with one
    clip the second process has none, and nobody waits.
    """
    with (demo_videos / "label.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    splits = ["test"] * num_test + ["dev"] * 9
    for row, split in zip(rows, splits + ["train"] * (len(rows) - len(splits)), strict=True):
        row["split"] = split
    clips.write_labels(tmp_path / "label.csv", rows, rows[0])
    arguments = ["--videos", demo_videos / "videos", "--labels", tmp_path / "label.csv", "--out", tmp_path / "s"]
    assert cli.main(["build", *map(str, arguments), "--allow-leak", "--workers", "1"]) == 0
    options = ("data.allow_leak=true", "eval.batch_size=3", "train.max_steps=2")
    run = ranks.train(tmp_path / "s", tmp_path / "run", *options, processes=1)
    found = []
    for processes in (1, 2):
        folder = tmp_path / f"of-{processes}"
        shutil.copytree(run, folder)
        (folder / "verdict.json").unlink()
        log = tmp_path / f"log-{processes}"
        script = [str(folder), f"run_dir={folder}"]
        with ranks.start_script("livetrain.evaluate", script, log=log, processes=processes) as started:
            assert started.wait() == [0] * processes, log.read_text()
        with (folder / "scores" / "test.csv").open(newline="") as file:
            scores = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
        found.append((scores, (folder / "verdict.json").read_text()))
    assert found[0] == found[1]
    assert len(found[1][0]) == num_test == len({row["video"] for row in found[1][0]})
