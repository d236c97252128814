"""A run over two real SLURM nodes and through all that happens to jobs, to the bits of a run that was left alone.

A node's processes are killed; the job is requeued by hand; it hits its time limit (`make test-slow`: it takes minutes);
then it may finish.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livetrain import cli
from livetrain.checkpoint.folders import MANIFEST
from livetrain.core.errors import EXIT_STOPPED
from livetrain.distributed import watchdog
from tests import ranks
from tests.runs import REPO, SMALL, records, same_weights, weights
from tests.slurm import cluster as slurm
from tests.slurm.cluster import Cluster

reason = slurm.missing()
if reason and os.environ.get("LIVETRAIN_REQUIRE_SLURM"):
    pytest.fail(f"LIVETRAIN_REQUIRE_SLURM is set, but {reason}", pytrace=False)
pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(reason), reason=reason or "runs")]

RUN = ("train.save_every_steps=20", "train.eval_every_epochs=30", "train.ema_decay=0.9")
SITE = """
setup: [export ACCELERATE_USE_CPU=1, export OMP_NUM_THREADS=1]
processes_per_node: 1
cpus_per_task: 2
stop_seconds_before_limit: 50
"""


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with contextlib.ExitStack() as open_:
        folder = open_.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True))
        try:
            cluster = open_.enter_context(slurm.two_nodes(Path(folder) / "c"))
        except slurm.NoCluster as error:
            if os.environ.get("LIVETRAIN_REQUIRE_SLURM"):
                raise
            pytest.skip(str(error))
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        yield cluster


class Job:
    """A submitted run: its number, what it has done so far, how its attempts ended."""

    def __init__(self, cluster: Cluster, run_dir: Path, number: str) -> None:
        self.cluster, self.run_dir, self.number = cluster, run_dir, number

    def steps(self) -> int:
        path = self.run_dir / "metrics.jsonl"
        return max([0, *(record["step"] for record in records(self.run_dir))]) if path.exists() else 0

    def attempts(self) -> list[dict]:
        path = self.run_dir / "attempts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def log(self) -> str:
        return (self.run_dir / "job.log").read_text() if (self.run_dir / "job.log").exists() else "no log yet"

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
        """Until `condition` holds; fails when the job ended for good, or after so many seconds."""
        deadline = time.monotonic() + seconds
        pending_since = 0.0
        while not condition():
            state, now = self.cluster.state(self.number), time.monotonic()
            ended = state in ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
            assert not ended and now < deadline, f"{what}: {state}\n{self.log()}\n{self.cluster.logs()}"
            # A requeued job waits two minutes by default. Five seconds are enough here, but not none: a node refuses a
            # job whose number it has just ended.
            pending_since = (pending_since or now) if state == "PENDING" else 0.0
            if pending_since and now - pending_since > 5:
                self.cluster.call("scontrol", "update", f"JobId={self.number}", "StartTime=now")
            time.sleep(0.5)


@pytest.mark.parametrize(("steps", "with_time_limit"), [(80, False), (450, True)])
@pytest.mark.slow
def test_a_run_survives_what_happens_to_jobs(
    nodes: Cluster,
    demo_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    steps: int,
    with_time_limit: bool,
) -> None:
    run = tmp_path / "run"
    (tmp_path / "site.yaml").write_text(SITE)
    options = (*RUN, f"train.max_steps={steps}")
    asked = [*SMALL, *options, f"data.shards={demo_shards}", f"run_dir={run}"]
    where = ["--nodes", "2", "--time", "60", "--cluster", str(tmp_path / "site.yaml")]
    assert cli.main(["submit", *asked, *where]) == 0
    job = Job(nodes, run, capsys.readouterr().out.split()[1].rstrip(":"))

    # A checkpoint is written beside training: the update after it may be logged before it is there.
    saved = run / "checkpoints" / "step-00000020" / MANIFEST
    job.wait(lambda: job.steps() >= 25 and saved.exists(), "the job trains and has saved")
    victim = next(beat for beat in watchdog.read(run / watchdog.FOLDER) if beat.rank == 1)
    os.kill(victim.pid, signal.SIGKILL)
    job.wait(lambda: len(job.attempts()) == 1, "the fault is noted")
    assert job.attempts()[0]["exit_code"] not in (0, EXIT_STOPPED) and job.attempts()[0]["step"] >= 20

    before = job.steps()
    job.wait(lambda: job.steps() >= before + 10, "it continues after the fault")
    _another_run_waits_and_is_cancelled(nodes, demo_shards, tmp_path, capsys)
    assert cli.main(["jobs", str(run)]) == 0
    header, shown = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["run", "job", "what", "state"]
    assert shown.split()[:4] == [str(run), job.number, "train", "RUNNING"]
    nodes.call("scontrol", "requeue", job.number)
    before = job.steps()
    job.wait(lambda: job.steps() >= before + 10, "it continues after it was requeued")

    if with_time_limit:
        known = len(job.attempts())
        nodes.call("scontrol", "update", f"JobId={job.number}", "TimeLimit=2")  # minutes; the signal is 50 s before
        job.wait(lambda: len(job.attempts()) > known, "the time limit stops it, saved")
        assert job.attempts()[known]["exit_code"] == EXIT_STOPPED and "asked to stop; passing it on" in job.log()
        nodes.call("scontrol", "update", f"JobId={job.number}", "TimeLimit=60")
    job.wait(lambda: nodes.state(job.number) == "COMPLETED", "it finishes", 600)
    assert job.attempts()[-1]["exit_code"] == 0 and "on n[0-1]" in job.log()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["num_processes"] == 2
    assert environment["cpu_count"] == min(2, os.cpu_count() or 1), "srun passes on what the job requested"

    whole = ranks.train(demo_shards, tmp_path / "whole", *options)
    assert [record["loss"] for record in records(run)] == [record["loss"] for record in records(whole)]
    for field in ("model", "ema"):
        assert same_weights(weights(run, field), weights(whole, field))
    assert (run / "verdict.json").read_text() == (whole / "verdict.json").read_text()


def _another_run_waits_and_is_cancelled(
    nodes: Cluster, shards: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "other"
    asked = [*SMALL, f"data.shards={shards}", f"run_dir={run}", "train.max_steps=9"]
    assert cli.main(["submit", *asked, "--nodes", "2", "--time", "60", "--cluster", str(folder / "site.yaml")]) == 0
    number = capsys.readouterr().out.split()[1].rstrip(":")
    assert cli.main(["jobs", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1:4] == [number, "train", "PENDING"]
    assert cli.main(["cancel", str(run)]) == 0
    assert f"cancelled {number}" in capsys.readouterr().out
    deadline = time.monotonic() + 20
    while nodes.state(number) != "CANCELLED":
        assert time.monotonic() < deadline, nodes.state(number)
        time.sleep(0.5)
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.slow
def test_doctor_compares_the_nodes(nodes: Cluster, tmp_path: Path) -> None:
    look = f"cd {REPO} && {sys.executable} -c 'from livetrain.jobs.doctor import check_nodes; print(check_nodes())'"
    log = tmp_path / "log"
    nodes.call("sbatch", "--wait", "--nodes=2", "--ntasks-per-node=1", f"--output={log}", "--wrap", look)
    assert "level='ok', seen='2 nodes with the same versions" in log.read_text()


@pytest.mark.slow
def test_ray_over_an_allocation_builds_the_same_bytes(
    nodes: Cluster, demo_videos: Path, demo_shards: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'livetrain[ray]'")
    out, log = tmp_path / "out", tmp_path / "log"
    script = [f"--output={log}", "--wait", "--nodes=2", "--cpus-per-task=1", f"--chdir={REPO}", "slurm/ray.sbatch"]
    build = ["build", "--videos", demo_videos / "videos", "--labels", demo_videos / "label.csv", "--out", out]
    environment = f"ALL,LIVETRAIN_CODE={REPO},LIVETRAIN_PYTHON={sys.executable}"
    command = ["sbatch", f"--export={environment}", *script, "shards", *map(str, build), "--shard-mb", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=600)
    assert done.returncode == 0, f"{done.stderr}\n{log.read_text()}"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in demo_shards.iterdir()
    }
