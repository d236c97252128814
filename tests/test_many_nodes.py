"""launch/many_nodes.sh: two "nodes" on loopback train as two processes do; nodes that do not meet soon say so."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ranks
from tests.runs import REPO, SMALL, losses

pytestmark = pytest.mark.slow  # each starts launchers, of which `make test` has as few as can be


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def node(number: int, port: int, *arguments: str, head: str = "127.0.0.1") -> subprocess.Popen[str]:
    """One of two nodes, of one CPU process."""
    environment = os.environ | {"HEAD": head, "PORT": str(port), "NODES": "2", "NODE": str(number), "PROCESSES": "1"}
    command = [str(REPO / "launch" / "many_nodes.sh"), *SMALL, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_two_nodes_train_as_two_processes(demo_shards: Path, tmp_path: Path, started: list) -> None:
    run, port = tmp_path / "run", free_port()
    started += [node(number, port, f"data.shards={demo_shards}", f"run_dir={run}") for number in (0, 1)]
    ends = [process.communicate(timeout=150) for process in started]
    assert [process.returncode for process in started] == [0, 0], ends
    assert '"num_processes": 2' in (run / "environment.json").read_text()
    two = ranks.train(demo_shards, tmp_path / "two")
    assert losses(run) == losses(two)


@pytest.mark.parametrize(
    ("number", "head", "says"),
    [
        (0, "127.0.0.1", "node 0 of 2 did not meet the others at 127.0.0.1:"),  # the other is missing
        (1, "127.0.0.1", "node 1 of 2 did not meet the others at 127.0.0.1:"),  # nobody is at the address
        (1, "no-such-host.invalid", "node 1 of 2 did not meet the others at no-such-host.invalid:"),
    ],
)
def test_nodes_that_do_not_meet(number: int, head: str, says: str, tmp_path: Path, started: list) -> None:
    began = time.monotonic()
    started.append(node(number, free_port(), "data.shards=x", f"run_dir={tmp_path / 'run'}", head=head))
    _, error = started[0].communicate(timeout=120)
    print(f"{time.monotonic() - began:.0f} s: {error.strip().splitlines()[-1]}")
    assert started[0].returncode == 1 and says in error and "Traceback" not in error
    assert time.monotonic() - began < 75, "45 s of waiting, and what imports take"


def test_a_taken_port(tmp_path: Path, started: list) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        started.append(node(0, port, "data.shards=x", f"run_dir={tmp_path / 'run'}"))
        _, error = started[0].communicate(timeout=120)
    assert started[0].returncode == 1 and f"port {port} is taken" in error and "Traceback" not in error


def test_what_is_not_set_is_named() -> None:
    done = subprocess.run([REPO / "launch" / "many_nodes.sh"], env=os.environ | {"NODES": "2"}, capture_output=True)
    assert done.returncode != 0 and b"set HEAD" in done.stderr
