"""Two ranks that are stopped and killed, and go on: to the same bits as two, to the same figures as one or four.

tests/test_preemption.py does the same through `livetrain train`, as a cluster's job does.
"""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest

from livetrain.engine import heartbeat
from livetrain.engine.heartbeat import EXIT_HANG
from livetrain.engine.stop import EXIT_STOPPED
from tests import ranks
from tests.runs import losses, records, same_weights, weights

# Everything that could keep a hidden state.
ALL = (
    "train.ema_decay=0.9",
    "train.accumulation=2",
    "model.dropout=0.3",
    "augment.mixup=0.5",
    "optim.warmup_steps=3",
    "train.eval_every_epochs=1.5",
    "train.save_every_steps=4",
)
STEPS = 18
# Dropout draws by process: it is the one thing that a number of processes changes.
ELASTIC = ("model.dropout=0", "train.accumulation=1")


def steps_done(run_dir: Path) -> int:
    """Updates that are logged; the run logs each."""
    path = run_dir / "metrics.jsonl"
    return max([0, *(record["step"] for record in records(run_dir))]) if path.exists() else 0


def same_run(a: Path, b: Path) -> None:
    """The same figures at every step, and the same final weights, to the bit."""
    timing = ("time", "samples_per_second", "frames_per_second", "data_wait_percent", "step_seconds", "num_skipped")
    for kind in ("train", "dev"):
        first, second = (
            [{k: v for k, v in record.items() if k not in timing} for record in records(run, kind)] for run in (a, b)
        )
        assert first == second and len(first) >= 3
    for field in ("model", "ema"):
        assert same_weights(weights(a, field), weights(b, field))
    assert (a / "verdict.json").read_text() == (b / "verdict.json").read_text()


@pytest.fixture(scope="module")
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return (*ALL, f"train.max_steps={STEPS}", f"train.precision={request.param}")


@pytest.fixture(scope="module")
def whole(options: tuple[str, ...], demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbed."""
    run = ranks.train(demo_shards, tmp_path_factory.mktemp("whole") / "run", *options)
    assert [record["step"] for record in records(run)] == list(range(1, STEPS + 1))
    pieces = sorted(path.name[:11] for path in max((run / "checkpoints").glob("step-*/tensors")).iterdir())
    assert pieces == ["shard-00001", "shard-00002"], "each process wrote its share"
    return run


def in_precision(first: str, other: str) -> pytest.MarkDecorator:
    """`options` in either precision; the other one by `make test-slow`."""
    values = [first, pytest.param(other, marks=pytest.mark.slow)]
    return pytest.mark.parametrize("options", values, indirect=True, scope="module")


@in_precision("fp32", "bf16")
def test_signals_at_either_rank_stop_both_and_the_run_goes_on_to_the_same_bits(
    whole: Path, options: tuple[str, ...], demo_shards: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    for number, rank, after in ((signal.SIGUSR1, 0, 4), (signal.SIGTERM, 1, 10)):
        with ranks.start(demo_shards, run, *options, log=log) as started:
            started.until(lambda: steps_done(run) >= after)  # noqa: B023
            started.signal(number, rank)
            assert started.wait() == [EXIT_STOPPED, EXIT_STOPPED], log.read_text()
        assert after <= steps_done(run) < STEPS
        assert f"stopped by {number.name} after" in log.read_text() or rank != 0
    ranks.train(demo_shards, run, *options)
    same_run(whole, run)


@in_precision("bf16", "fp32")
def test_three_kills_at_random_steps_change_nothing(
    whole: Path, options: tuple[str, ...], demo_shards: Path, tmp_path: Path
) -> None:
    same_run(whole, killed(demo_shards, tmp_path, options, STEPS, num_kills=3))


@pytest.mark.slow
@in_precision("bf16", "fp32")
def test_twenty_kills_at_random_steps_change_nothing(
    options: tuple[str, ...], demo_shards: Path, tmp_path: Path
) -> None:
    steps = 6 * STEPS
    undisturbed = ranks.train(demo_shards, tmp_path / "undisturbed", *options, f"train.max_steps={steps}")
    same_run(undisturbed, killed(demo_shards, tmp_path, options, steps, num_kills=20))


def killed(shards: Path, folder: Path, options: tuple[str, ...], steps: int, *, num_kills: int) -> Path:
    """A run with SIGKILL to one rank or to both, so many times at random updates; what was lost is done again."""
    run, log = folder / "run", folder / "log"
    options = (*options, f"train.max_steps={steps}", "train.save_every_steps=1")
    choose = random.Random(num_kills)
    for kill in range(num_kills):
        with ranks.start(shards, run, *options, log=log) as started:
            goal = min(steps_done(run) + choose.randint(1, 5), steps * (kill + 1) // (num_kills + 1) + 1)
            started.until(lambda: steps_done(run) >= goal)  # noqa: B023
            victims = [0, 1] if choose.random() < 0.5 else [choose.randrange(2)]
            for rank in victims:
                started.signal(signal.SIGKILL, rank)
            codes = started.wait()
            assert all(codes[rank] == -signal.SIGKILL for rank in victims) and 0 not in codes
    assert 0 < steps_done(run) < steps
    return ranks.train(shards, run, *options)


@pytest.fixture(scope="module")
def half_done(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(an uninterrupted run of one process, a run of two that was stopped on the way)."""
    folder = tmp_path_factory.mktemp("elastic")
    one = ranks.train(demo_shards, folder / "one", *ALL, *ELASTIC, f"train.max_steps={STEPS}", processes=1)
    log = folder / "log"
    with ranks.start(demo_shards, folder / "two", *ALL, *ELASTIC, f"train.max_steps={STEPS}", log=log) as started:
        started.until(lambda: steps_done(folder / "two") >= 6)
        started.signal(signal.SIGTERM, 0)
        assert started.wait() == [EXIT_STOPPED, EXIT_STOPPED], log.read_text()
    return one, folder / "two"


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_run_goes_on_with_another_number_of_processes(
    half_done: tuple[Path, Path], demo_shards: Path, tmp_path: Path, processes: int
) -> None:
    """The same loss at every later step within 1e-3 (why: tests/test_two_processes.py)."""
    one, two = half_done
    run = tmp_path / "run"
    shutil.copytree(two, run)
    assert 6 <= steps_done(run) < STEPS - 6
    ranks.train(demo_shards, run, *ALL, *ELASTIC, f"train.max_steps={STEPS}", processes=processes)
    assert f'"num_processes": {processes}' in (run / "environment.json").read_text()
    assert [record["step"] for record in records(run)] == list(range(1, STEPS + 1))
    assert losses(run) == pytest.approx(losses(one), abs=1e-3)


def test_a_rank_that_stands_still_is_named(demo_shards: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    overrides = ("train.hang_timeout_seconds=6", "train.max_steps=100000")
    with ranks.start(demo_shards, run, *overrides, log=log) as started:
        started.until(lambda: steps_done(run) >= 3)
        started.signal(signal.SIGSTOP, 1)
        started.processes[0].join(40)
        assert started.processes[0].exitcode == EXIT_HANG, log.read_text()
    stopped = next(beat for beat in heartbeat.read(run / heartbeat.FOLDER) if beat.rank == 1)
    said = log.read_text()
    assert "error: rank 0 on" in said and f"Farthest behind: rank 1 on {stopped.host} (pid {stopped.pid})" in said
