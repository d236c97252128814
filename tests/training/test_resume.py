"""Two ranks that are stopped and killed, and continue: to the same bits as two, to the same figures as one or four.

tests/distributed/test_preemption.py does the same through `livetrain train`, as a cluster's job does.
"""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest

from livetrain.core.errors import EXIT_HANG, EXIT_STOPPED
from livetrain.distributed import watchdog
from tests import ranks
from tests.runs import SMALL, losses, records, same_weights, weights

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
# Statistics of batches in the backbone, and layers that are left out by chance.
BATCH_NORM = ("model.backbone=test_efficientnet", "model.drop_path=0.2")
STEPS = 18
BEGUN = ("train.save_every_steps=2", "train.keep_last=10")
# Without batch norm the number of processes changes nothing but rounding, dropout and stochastic depth included; micro-
# batches must divide over four.
ELASTIC = ("train.accumulation=1", "model.drop_path=0.2")


def steps_done(run_dir: Path) -> int:
    """Updates that are logged; the run logs each."""
    path = run_dir / "metrics.jsonl"
    return max([0, *(record["step"] for record in records(run_dir))]) if path.exists() else 0


def same_run(a: Path, b: Path) -> None:
    """The same figures at every step, and the same final weights, to the bit."""
    timing = (
        "time",
        "samples_per_second",
        "frames_per_second",
        "data_wait",
        "step_seconds",
        "num_skipped",
        "slowest",
        "loader_",
    )
    for kind in ("train", "dev"):
        first, second = (
            [{k: v for k, v in record.items() if not k.startswith(timing)} for record in records(run, kind)]
            for run in (a, b)
        )
        assert first == second and len(first) >= 3
    for field in ("model", "ema"):
        assert same_weights(weights(a, field), weights(b, field))
    assert (a / "verdict.json").read_text() == (b / "verdict.json").read_text()


@pytest.fixture(scope="module")
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    precision, _, with_bn = request.param.partition("-")
    return (*ALL, *(BATCH_NORM if with_bn else ()), f"train.max_steps={STEPS}", f"train.precision={precision}")


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


@in_precision("bf16-bn", "fp32")
@pytest.mark.slow
def test_killed_and_stopped_at_either_rank_the_run_goes_on_to_the_same_bits(
    whole: Path, options: tuple[str, ...], demo_shards: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    for number, rank, after in ((signal.SIGTERM, 1, 4), (signal.SIGKILL, 0, 10)):
        with ranks.start(demo_shards, run, *options, log=log) as started:
            started.until(lambda: steps_done(run) >= after)  # noqa: B023
            started.signal(number, rank)
            codes = started.wait()
        assert 0 not in codes and (codes == [EXIT_STOPPED] * 2 or number == signal.SIGKILL), log.read_text()
        assert after <= steps_done(run) < STEPS
    ranks.train(demo_shards, run, *options)
    same_run(whole, run)


@pytest.mark.slow
@in_precision("bf16-bn", "fp32")
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


@pytest.mark.parametrize(
    "processes", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
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


@pytest.fixture(scope="module")
def begun(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that is to go on from update 4, with a checkpoint at 2 as well."""
    return ranks.train(demo_shards, tmp_path_factory.mktemp("begun") / "run", *BEGUN, "train.max_steps=4")


@pytest.mark.slow
def test_a_process_that_sees_the_checkpoint_late_waits_for_it(begun: Path, demo_shards: Path, tmp_path: Path) -> None:
    """The first process decides where the run continues.

    Each deciding for itself, the second one would train other updates than the first, and nobody would tell.
    """
    one, two = (Path(shutil.copytree(begun, tmp_path / name)) for name in ("one", "two"))
    ranks.train(demo_shards, one, *BEGUN, "train.max_steps=8")
    log = tmp_path / "log"
    arguments = [f"data.shards={demo_shards}", f"run_dir={two}", *SMALL, *BEGUN, "train.max_steps=8"]
    with ranks.start_script("tests.blind", arguments, log=log) as started:
        assert started.wait() == [0, 0], log.read_text()
    assert losses(one) == losses(two) and same_weights(weights(one), weights(two))


@pytest.mark.slow
def test_a_process_that_never_sees_the_checkpoint_says_so(begun: Path, demo_shards: Path, tmp_path: Path) -> None:
    run, log = Path(shutil.copytree(begun, tmp_path / "run")), tmp_path / "log"
    arguments = [f"data.shards={demo_shards}", f"run_dir={run}", *SMALL, "train.max_steps=8", "name=never"]
    with ranks.start_script("tests.blind", arguments, log=log) as started:
        started.until(lambda: "does not see" in log.read_text())
    assert (
        f"does not see {run / 'checkpoints' / 'step-00000004' / 'checkpoint.json'} as the first process"
        in log.read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("during", ["evaluating", pytest.param("training", marks=pytest.mark.slow)])
def test_no_process_leaves_before_the_checkpoint_is_whole(during: str, demo_shards: Path, tmp_path: Path) -> None:
    """A launcher ends the others soon after the first has left: on a slow disk, the checkpoint with them."""
    run, log = tmp_path / "run", tmp_path / "log"
    options = ("train.max_steps=1000", "train.eval_every_epochs=0.5", "eval.batch_size=1")
    arguments = [f"data.shards={demo_shards}", f"run_dir={run}", *SMALL, *options]
    with ranks.start_script("tests.slow_disk", arguments, log=log) as started:
        started.until(lambda: bool(list((run / watchdog.FOLDER).glob("rank-*.json"))))
        started.until(lambda: steps_done(run) >= 2)
        if during == "evaluating":
            started.until(lambda: "scoring dev" in log.read_text())
        started.signal(signal.SIGTERM, 1)
        started.processes[1].join(40)
        assert started.processes[1].exitcode == EXIT_STOPPED, log.read_text()
        assert list((run / "checkpoints").glob("step-*")), "the second process has left, and nothing is there"
        assert started.wait() == [EXIT_STOPPED, EXIT_STOPPED]


@pytest.mark.slow
def test_a_rank_that_stands_still_is_named(demo_shards: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    overrides = ("train.hang_timeout_seconds=6", "train.max_steps=100000")
    with ranks.start(demo_shards, run, *overrides, log=log) as started:
        started.until(lambda: steps_done(run) >= 3)
        started.signal(signal.SIGSTOP, 1)
        started.processes[0].join(40)
        assert started.processes[0].exitcode == EXIT_HANG, log.read_text()
    stopped = next(beat for beat in watchdog.read(run / watchdog.FOLDER) if beat.rank == 1)
    said = log.read_text()
    assert "error: rank 0 on" in said and f"Farthest behind: rank 1 on {stopped.host} (pid {stopped.pid})" in said
