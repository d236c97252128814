"""Stopped and killed runs resume to the same bits, through `livetrain train` as a cluster's job starts it.

tests/training/test_resume.py does it in seconds and more often, without the launcher.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from livetrain.core.errors import EXIT_STOPPED
from livetrain.distributed import watchdog
from tests.runs import REPO, SMALL, records
from tests.training.test_resume import ALL, STEPS, same_run, steps_done

pytestmark = pytest.mark.slow  # whole runs, each started as a user starts it

WAIT_SECONDS = 300
started: list[subprocess.Popen[str]] = []  # of the test that runs


def start(shards: Path, run_dir: Path, *overrides: str, log: Path, processes: int = 2) -> subprocess.Popen[str]:
    """`livetrain train` on CPU processes, in the background; its output goes to `log`."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    options = ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else []
    options += ["--num_processes", str(processes), "--num_machines", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    arguments = [f"data.shards={shards}", f"run_dir={run_dir}", *SMALL, f"train.max_steps={STEPS}", *ALL, *overrides]
    command = [sys.executable, "-m", "livetrain.cli", "train", *options, *arguments]
    with log.open("a") as file:
        started.append(subprocess.Popen(command, stdout=file, stderr=file, text=True, env=environment, cwd=REPO))
    return started[-1]


@pytest.fixture(autouse=True)
def _no_run_outlives_its_test() -> Iterator[None]:
    """What a test that failed left would train for ever, and take the cores from all tests after it."""
    yield
    for process in started:
        with contextlib.suppress(psutil.Error):
            here = psutil.Process(process.pid)
            for one in [here, *here.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    one.kill()
    started.clear()


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


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def precision(request: pytest.FixtureRequest) -> str:
    return f"train.precision={request.param}"


@pytest.fixture(scope="module")
def whole(precision: str, demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run, log = folder / "whole", folder / "whole-log"
    finish(start(demo_shards, run, precision, log=log), log)
    assert [record["step"] for record in records(run)] == list(range(1, STEPS + 1))
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
    one_of_two = next(beat for beat in watchdog.read(run / watchdog.FOLDER) if beat.rank == 1)
    os.kill(one_of_two.pid, signal.SIGTERM)
    assert "stopped by SIGTERM after" in finish(process, log, EXIT_STOPPED)
    assert first < steps_done(run) < STEPS

    finish(start(demo_shards, run, precision, log=log), log)
    same_run(whole, run)


def test_two_kills_at_random_steps_change_nothing(
    whole: Path, precision: str, demo_shards: Path, tmp_path: Path
) -> None:
    """SIGKILL to one process or to all of them, at random updates; what was lost is done again, to the same bits."""
    run, log = tmp_path / "run", tmp_path / "log"
    options = (precision, "train.save_every_steps=1")
    choose = random.Random(2)
    for kill in range(2):
        process = start(demo_shards, run, *options, log=log)
        goal = min(steps_done(run) + choose.randint(1, 4), STEPS * (kill + 1) // 3 + 1)
        began = time.time()
        alive = lambda: [b for b in watchdog.read(run / watchdog.FOLDER) if b.time > began]  # noqa: E731, B023
        wait_for(lambda: steps_done(run) >= goal and len(alive()) == 2, process, log)  # noqa: B023
        time.sleep(choose.uniform(0, 0.3))
        beats = alive()
        for beat in beats if choose.random() < 0.5 else [choose.choice(beats)]:
            os.kill(beat.pid, signal.SIGKILL)
        assert process.wait(WAIT_SECONDS) == 128 + signal.SIGKILL, log.read_text()
        assert "was ended by SIGKILL" in log.read_text()
    assert steps_done(run) < STEPS
    last = tmp_path / "last"
    finish(start(demo_shards, run, *options, log=last), last)
    same_run(whole, run)


def test_ctrl_c_stops_all_processes_once(demo_shards: Path, tmp_path: Path) -> None:
    """As a terminal does it: SIGINT to the launcher and all of its children, which it passes on as well."""
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(demo_shards, run, "train.max_steps=10000", log=log)
    wait_for(lambda: steps_done(run) >= 3, process, log)
    children = psutil.Process(process.pid).children(recursive=True)
    for one in [process, *children]:
        with contextlib.suppress(psutil.Error):
            one.send_signal(signal.SIGINT)
    assert "stopped by SIGINT after" in finish(process, log, EXIT_STOPPED)
    assert list((run / "checkpoints").glob("step-*")) and not [one for one in children if one.is_running()]
    # The same command again has the folder to itself.
    again = start(demo_shards, run, "train.max_steps=10000", log=log)
    wait_for(lambda: (run / "owner.json").exists(), again, log)
    second = start(demo_shards, run, "train.max_steps=10000", log=tmp_path / "second")
    assert second.wait(WAIT_SECONDS) == 2 and "is being written by process" in (tmp_path / "second").read_text()
    again.send_signal(signal.SIGINT)
    assert again.wait(WAIT_SECONDS) == EXIT_STOPPED


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_do_not_outlive_a_launcher_that_is_killed(processes: int, demo_shards: Path, tmp_path: Path) -> None:
    """They stop: nobody would tell them to later.

    One is saved; several have lost the store they report parts of a checkpoint through, which is the launcher's, and
    leave what was saved before.
    """
    run, log = tmp_path / "run", tmp_path / "log"
    options = ("train.max_steps=10000", "train.save_every_steps=2")
    process = start(demo_shards, run, *options, log=log, processes=processes)
    wait_for(lambda: steps_done(run) >= 3, process, log)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, log.read_text()
    assert list((run / "checkpoints").glob("step-*")) and "stopped by SIGTERM" in log.read_text()
