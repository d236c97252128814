"""Runs that are stopped and killed, and go on: to the same bits on as many processes, to the same figures on others.

Each test starts whole runs of two processes through `livetrain train`, as a cluster's job does.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from livetrain.engine import heartbeat
from livetrain.engine.heartbeat import EXIT_HANG
from livetrain.engine.stop import EXIT_STOPPED
from tests.runs import REPO, SMALL, launch, losses, records, same_weights, weights

pytestmark = pytest.mark.slow  # whole runs, each started as a user starts it

# Everything that could keep a hidden state.
ALL = (
    "train.ema_decay=0.9",
    "train.accumulation=2",
    "model.dropout=0.3",
    "augment.mixup=0.5",
    "optim.warmup_steps=3",
    "train.eval_every_epochs=0.7",
    "train.save_every_steps=4",
)
STEPS = 24
WAIT_SECONDS = 300


def start(shards: Path, run_dir: Path, *overrides: str, log: Path, processes: int = 2) -> subprocess.Popen[str]:
    """`livetrain train` on CPU processes, in the background; its output goes to `log`."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    options = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    arguments = [f"data.shards={shards}", f"run_dir={run_dir}", *SMALL, f"train.max_steps={STEPS}", *ALL, *overrides]
    command = [sys.executable, "-m", "livetrain.cli", "train", *options, *arguments]
    with log.open("a") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, text=True, env=environment, cwd=REPO)


def steps_done(run_dir: Path) -> int:
    """Updates that are logged; the run logs each."""
    path = run_dir / "metrics.jsonl"
    return max([0, *(record["step"] for record in records(run_dir))]) if path.exists() else 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], log: Path) -> None:
    """Until `condition` holds; fails when the run ends before or takes too long."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def finish(process: subprocess.Popen[str], log: Path, code: int = 0) -> str:
    """Wait for the end with this exit code; returns what was printed."""
    assert process.wait(WAIT_SECONDS) == code, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text
    return text


def same_run(a: Path, b: Path) -> None:
    """The same figures at every step, and the same final weights, to the bit."""
    timing = ("time", "samples_per_second", "frames_per_second", "data_wait_percent", "step_seconds", "num_skipped")
    for kind in ("train", "dev"):
        first, second = (
            [{k: v for k, v in record.items() if k not in timing} for record in records(run, kind)] for run in (a, b)
        )
        assert first == second and len(first) >= 3
    for file in ("model.safetensors", "ema.safetensors"):
        assert same_weights(weights(a, file), weights(b, file))
    assert (a / "verdict.json").read_text() == (b / "verdict.json").read_text()


@pytest.fixture(scope="module", params=["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def precision(request: pytest.FixtureRequest) -> str:
    return f"train.precision={request.param}"


@pytest.fixture(scope="module")
def whole(precision: str, demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbed."""
    return undisturbed(demo_shards, tmp_path_factory.mktemp("whole"), precision, STEPS)


def undisturbed(shards: Path, folder: Path, precision: str, steps: int) -> Path:
    """A run from start to end; its folder."""
    run, log = folder / "whole", folder / "whole-log"
    finish(start(shards, run, precision, f"train.max_steps={steps}", log=log), log)
    assert [record["step"] for record in records(run)] == list(range(1, steps + 1))
    return run


def test_signals_stop_all_processes_and_the_run_goes_on_to_the_same_bits(
    whole: Path, precision: str, demo_shards: Path, tmp_path: Path
) -> None:
    """SIGUSR1 to the launcher, then SIGTERM to one process of two, then nothing."""
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(demo_shards, run, precision, log=log)
    wait_for(lambda: steps_done(run) >= 5, process, log)
    process.send_signal(signal.SIGUSR1)
    assert "stopped by SIGUSR1 after" in finish(process, log, EXIT_STOPPED)
    first = steps_done(run)
    assert 5 <= first < STEPS

    process = start(demo_shards, run, precision, log=log)
    wait_for(lambda: steps_done(run) >= first + 3, process, log)
    one_of_two = next(beat for beat in heartbeat.read(run / heartbeat.FOLDER) if beat.rank == 1)
    os.kill(one_of_two.pid, signal.SIGTERM)
    assert "stopped by SIGTERM after" in finish(process, log, EXIT_STOPPED)
    assert first < steps_done(run) < STEPS

    finish(start(demo_shards, run, precision, log=log), log)
    same_run(whole, run)


def test_two_kills_at_random_steps_change_nothing(
    whole: Path, precision: str, demo_shards: Path, tmp_path: Path
) -> None:
    killed_run_is(whole, STEPS, demo_shards, tmp_path, precision, num_kills=2)


@pytest.mark.slow
def test_twenty_kills_at_random_steps_change_nothing(precision: str, demo_shards: Path, tmp_path: Path) -> None:
    steps = 6 * STEPS
    whole = undisturbed(demo_shards, tmp_path, precision, steps)
    killed_run_is(whole, steps, demo_shards, tmp_path, precision, num_kills=20)


def killed_run_is(whole: Path, steps: int, shards: Path, folder: Path, precision: str, *, num_kills: int) -> None:
    """SIGKILL to one process or to all of them, at random updates; what was lost is done again, to the same bits."""
    run, log = folder / "run", folder / "log"
    options = (precision, "train.save_every_steps=1", f"train.max_steps={steps}")
    choose = random.Random(num_kills)
    for kill in range(num_kills):
        process = start(shards, run, *options, log=log)
        goal = steps_done(run) + choose.randint(1, 4)
        goal = min(goal, steps * (kill + 1) // (num_kills + 1) + 1)
        began = time.time()
        alive = lambda: [b for b in heartbeat.read(run / heartbeat.FOLDER) if b.time > began]  # noqa: E731, B023
        wait_for(lambda: steps_done(run) >= goal and len(alive()) == 2, process, log)  # noqa: B023
        time.sleep(choose.uniform(0, 0.3))
        beats = alive()
        for beat in beats if choose.random() < 0.5 else [choose.choice(beats)]:
            os.kill(beat.pid, signal.SIGKILL)
        assert process.wait(WAIT_SECONDS) == 128 + signal.SIGKILL, log.read_text()
        assert "was ended by SIGKILL" in log.read_text()
    assert steps_done(run) < steps
    last = folder / "last"
    finish(start(shards, run, *options, log=last), last)
    same_run(whole, run)


@pytest.fixture(scope="module")
def half_done(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(an uninterrupted run of one process, a run of two processes that was stopped on the way)."""
    folder = tmp_path_factory.mktemp("elastic")
    done = launch(demo_shards, folder / "one", *ALL, *ELASTIC, f"train.max_steps={STEPS}")
    assert done.returncode == 0, done.stderr
    log = folder / "log"
    process = start(demo_shards, folder / "two", *ELASTIC, log=log)
    wait_for(lambda: steps_done(folder / "two") >= 6, process, log)
    process.send_signal(signal.SIGTERM)
    finish(process, log, EXIT_STOPPED)
    return folder / "one", folder / "two"


# Dropout draws by process: it is the one thing that a number of processes changes.
ELASTIC = ("model.dropout=0", "train.accumulation=1", "augment.mixup=0.5", "train.ema_decay=0.9")


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_run_goes_on_with_another_number_of_processes(
    half_done: tuple[Path, Path], demo_shards: Path, tmp_path: Path, processes: int
) -> None:
    """The same loss at every later step within 1e-3 (why: tests/test_two_processes.py)."""
    one, two = half_done
    run = tmp_path / "run"
    shutil.copytree(two, run)
    before = steps_done(run)
    assert 6 <= before < STEPS - 6
    done = launch(demo_shards, run, *ALL, *ELASTIC, f"train.max_steps={STEPS}", processes=processes)
    assert done.returncode == 0, done.stderr
    assert f'"num_processes": {processes}' in (run / "environment.json").read_text()
    assert [record["step"] for record in records(run)] == list(range(1, STEPS + 1))
    assert losses(run) == pytest.approx(losses(one), abs=1e-3)


def test_a_process_that_stands_still_is_named(demo_shards: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(demo_shards, run, "train.hang_timeout_seconds=10", "train.max_steps=100000", log=log)
    wait_for(lambda: steps_done(run) >= 3, process, log)
    stopped = next(beat for beat in heartbeat.read(run / heartbeat.FOLDER) if beat.rank == 1)
    os.kill(stopped.pid, signal.SIGSTOP)
    assert process.wait(WAIT_SECONDS) == EXIT_HANG, log.read_text()
    said = log.read_text()
    assert "error: rank 0 on" in said and f"Farthest behind: rank 1 on {stopped.host} (pid {stopped.pid})" in said
