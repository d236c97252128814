"""The ranks of a run as children of a forkserver that has imported everything: 0.02 s each; a launcher takes 14 s.

    ranks = start(shards, run_dir, "train.max_steps=10", log=log)
    assert ranks.wait() == [0, 0], log.read_text()

tests/conftest.py calls `prepare` where a test module imports this one as `ranks`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

from tests.runs import SMALL, quickly

CONTEXT = multiprocessing.get_context("forkserver")
PRELOAD = [
    "torch",
    "timm",
    "accelerate",
    "livetrain.train",
    "livetrain.evaluation.final",
    "livetrain.training.trainer",
    "tests.runs",
]
WAIT_SECONDS, SLOW_WAIT_SECONDS = 50, 1200  # less than a test's timeout, so that what the ranks printed is seen
KILL_SECONDS = 3  # a process that sleeps in the kernel (a disk that does not answer) outlives SIGKILL


wait_seconds = WAIT_SECONDS  # of the test that runs (tests/conftest.py)


def prepare() -> None:
    """Start the forkserver, before anything else in this process starts one that imports less."""
    CONTEXT.set_forkserver_preload(PRELOAD)
    forkserver.ensure_running()


class Ranks:
    """Running ranks; `wait` for them, or leave the `with` block, which ends them."""

    def __init__(self, processes: Sequence[Any], store: TCPStore, log: Path) -> None:
        self.processes, self.log, self._store = list(processes), log, store

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def signal(self, number: signal.Signals, rank: int) -> None:
        os.kill(self.processes[rank].pid, number)

    def kill(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        deadline = time.monotonic() + KILL_SECONDS
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))

    def stacks(self) -> str:
        """Where each rank is: Python's stacks at the end of the log, and what the kernel says of it."""
        states = []
        for rank, process in enumerate(self.processes):
            with contextlib.suppress(OSError):
                os.kill(process.pid, signal.SIGUSR2)
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                states.append(f"rank {rank}: {next(line for line in lines if line.startswith('State'))}")
        time.sleep(0.5)
        return "\n".join([self.log.read_text(), *states])

    def wait(self) -> list[int]:
        """Their exit codes (negative: the signal that ended one); fails, and ends them, after `wait_seconds`."""
        deadline = time.monotonic() + wait_seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        if late:
            message = self.stacks()
            self.kill()
            raise AssertionError(f"ranks {late} did not end; {message}")
        return [process.exitcode for process in self.processes]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for `condition`; fails when a rank ends before."""
        deadline = time.monotonic() + wait_seconds
        while not condition():
            assert all(process.is_alive() for process in self.processes), self.log.read_text()
            assert time.monotonic() < deadline, self.stacks()
            time.sleep(0.01)


def start(shards: Path, run_dir: Path, *overrides: str, log: Path, processes: int = 2) -> Ranks:
    """livetrain/train.py on CPU processes with one thread each; what they print goes to the end of `log`."""
    arguments = [f"data.shards={shards}", f"run_dir={run_dir}", *SMALL, *overrides]
    return start_script("livetrain.train", arguments, log=log, processes=processes)


def start_script(module: str, arguments: list[str], *, log: Path, processes: int = 2) -> Ranks:
    """The same for the `main` of another script."""
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    children = [
        CONTEXT.Process(target=_rank, args=(rank, processes, store.port, module, arguments, str(log)), daemon=True)
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    return Ranks(children, store, log)


def train(shards: Path, run_dir: Path, *overrides: str, processes: int = 2) -> Path:
    """A whole run; its folder."""
    log = run_dir.parent / f"{run_dir.name}-log"
    with start(shards, run_dir, *overrides, log=log, processes=processes) as ranks:
        assert ranks.wait() == [0] * processes, log.read_text()
    return run_dir


def _rank(rank: int, world: int, port: int, module: str, arguments: list[str], log: str) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "ACCELERATE_USE_CPU": "1",
    }  # fmt: skip
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    faulthandler.register(signal.SIGUSR2, file=2)
    faulthandler.enable(file=2)  # a crash within torch or DALI leaves its place in the log
    # Ended with the tests, whatever happens; but it must be able to start workers of its own, as a real rank is.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    import torch

    torch.set_num_threads(1)
    with quickly():
        code = importlib.import_module(module).main(arguments)
    sys.exit(code)
