"""A group of gloo processes that measure together: started once, they do one pass after another.

A pass is a module-level function `work(*arguments) -> facts`, called on all processes at once; what rank 0 returns
counts. Starting a process costs seconds of imports, so the sides of a bench take turns in the same processes.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

Work = Callable[..., dict[str, Any]]


class Group:
    """`world` processes of one thread each, as a context manager; `call` runs a pass on all of them."""

    def __init__(self, world: int, work: Work, *, on_cpu: bool = True) -> None:
        self.world, self.work, self.on_cpu = world, work, on_cpu
        self._members: list[tuple[Any, Any]] = []

    def __enter__(self) -> Group:
        context = multiprocessing.get_context("spawn")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for rank in range(self.world):
            here, there = context.Pipe()
            process: Any = context.Process(
                target=_serve, args=(rank, self.world, port, self.work, there, self.on_cpu), daemon=True
            )
            process.start()
            there.close()
            self._members.append((process, here))
        return self

    def __exit__(self, *_: object) -> None:
        for _, pipe in self._members:
            pipe.close()
        for process, _ in self._members:
            process.join(10)
            if process.is_alive():
                process.kill()

    def call(self, *arguments: Any) -> dict[str, Any]:
        """What rank 0's `work(*arguments)` returned. Raises RuntimeError with the reason when a process fails."""
        return self.call_all(*arguments)[0]

    def call_all(self, *arguments: Any) -> list[dict[str, Any]]:
        """`call`, with what all of them returned, by rank."""
        for _, pipe in self._members:
            pipe.send(arguments)
        return [self._receive(number) for number in range(self.world)]

    def _receive(self, number: int) -> dict[str, Any]:
        process, connection = self._members[number]
        try:
            result = connection.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"rank {number} ended with exit code {process.exitcode}") from None
        if isinstance(result, str):
            raise RuntimeError(f"rank {number}: {result}")
        return result


def _serve(rank: int, world: int, port: int, work: Work, connection: Connection, on_cpu: bool) -> None:
    """A member: passes until the pipe is closed. A failure ends it, so that the others do not wait for it forever."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    } | ({"ACCELERATE_USE_CPU": "1"} if on_cpu else {})  # fmt: skip
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(work(*arguments))
        except Exception as error:  # reported where the table is made
            connection.send(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            return
