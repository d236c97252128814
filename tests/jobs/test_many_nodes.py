"""launch/many_nodes.sh: two "nodes" on loopback train as two processes do; nodes that do not meet soon say so."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import ranks
from tests.runs import REPO, SMALL, losses

slow = pytest.mark.slow  # each starts launchers, of which `make test` has as few as can be


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def node(number: int, port: int, *arguments: str, head: str = "127.0.0.1") -> subprocess.Popen[str]:
    """One of two nodes, of one CPU process."""
    environment = os.environ | {"HEAD": head, "PORT": str(port), "NODES": "2", "NODE": str(number), "PROCESSES": "1"}
    command = [str(REPO / "launch" / "many_nodes.sh"), *SMALL, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """A node is gone: the script, the launcher, the run, whose processes have sessions of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait()


@slow
def test_two_nodes_train_as_two_processes(demo_shards: Path, tmp_path: Path, started: list) -> None:
    run, port = tmp_path / "run", free_port()
    started += [node(number, port, f"data.shards={demo_shards}", f"run_dir={run}") for number in (0, 1)]
    ends = [process.communicate(timeout=150) for process in started]
    assert [process.returncode for process in started] == [0, 0], ends
    assert '"num_processes": 2' in (run / "environment.json").read_text()
    two = ranks.train(demo_shards, tmp_path / "two")
    assert losses(run) == losses(two)


@slow
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


@slow
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


@slow
def test_a_lost_node_may_come_back(
    demo_shards: Path, tmp_path: Path, started: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node 1 is killed as a whole; node 0 starts again by itself, waits for it, and the run ends as one that nothing
    happened to.
    """
    monkeypatch.setenv("RESTART_AFTER", "0")
    run, port = tmp_path / "run", free_port()
    keys = ("train.max_steps=40", "train.save_every_steps=5")
    asked = (f"data.shards={demo_shards}", f"run_dir={run}", *keys)
    started += [node(number, port, *asked) for number in (0, 1)]
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "step-00000010").exists():
        assert time.monotonic() < deadline and all(process.poll() is None for process in started)
        time.sleep(0.05)
    end(started[1])
    time.sleep(10)  # as long as a machine may take, and more than the others need to notice
    started.append(node(1, port, *asked))
    ends = [started[number].communicate(timeout=200) for number in (0, 2)]
    assert [started[number].returncode for number in (0, 2)] == [0, 0], ends
    assert "many_nodes.sh: exit code" in ends[0][1] and "starting again (1 of 3)" in ends[0][1]
    assert losses(run) == losses(ranks.train(demo_shards, tmp_path / "two", *keys))


def stand_in(folder: Path, text: str) -> list[str]:
    """The script in a project whose Python is `text`, a shell's; calls are counted in folder/calls."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/bash\necho "$@" >> {folder / "calls"}\n{text}\n')
    python.chmod(0o755)
    (folder / "launch").symlink_to(REPO / "launch")
    return [str(folder / "launch" / "many_nodes.sh"), "a.yaml"]


@pytest.mark.parametrize(
    ("codes", "after", "expected"),
    [("76 1 0", 0, (0, 3)), ("74 74 74 74 74", 0, (74, 4)), ("75", 0, (75, 1)), ("2", 0, (2, 1)), ("1", 60, (1, 1))],
)
def test_what_is_started_again(codes: str, after: int, expected: tuple[int, int], tmp_path: Path) -> None:
    script = stand_in(tmp_path, f"set -- {codes}; shift $(( $(wc -l < {tmp_path / 'calls'}) - 1 )); exit $1")
    environment = os.environ | {"HEAD": "h", "NODES": "2", "NODE": "0", "RESTART_AFTER": str(after)}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=50)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert (done.returncode, len(calls)) == expected
    waits = [call.split("--rdzv_conf timeout=")[1].split()[0] for call in calls]
    assert waits == ["45", *["600"] * (len(calls) - 1)]
    assert done.stderr.count("starting again") == len(calls) - 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.slow
def test_signals_reach_the_run_which_is_not_started_again(number: signal.Signals, tmp_path: Path) -> None:
    text = "trap 'sleep 0.3; exit 76' TERM USR1; touch there; while :; do sleep 0.05; done"
    environment = os.environ | {"HEAD": "h", "NODES": "2", "NODE": "0", "RESTART_AFTER": "0"}
    with subprocess.Popen(stand_in(tmp_path, text), env=environment, start_new_session=True) as process:
        try:
            while not (tmp_path / "there").exists():
                time.sleep(0.02)
            process.send_signal(number)
            assert process.wait(timeout=40) == 76
        finally:
            end(process)  # type: ignore[arg-type]
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
