"""Where the tasks of the data jobs run: in worker processes of this machine, or on a Ray cluster.

    engine = LocalEngine(num_workers=8)              # shards build --workers 8
    engine = RayEngine(address="head:6379")          # shards build --engine ray --ray-address head:6379
    for index, result in engine.unordered(write_shard, tasks, PRELOAD): ...

A task is a pure function of its argument that writes to the shared file system, or returns a record: which engine ran
it changes no byte. On a Ray node a task runs in the same isolated child process as on this machine (`worker_pool`),
under the same limits, so a video that crashes its decoder costs one child and is named. (Tasks of `livetrain predict`
decode in worker processes of their own: is_isolated=False.) Ray distributes the tasks; those of a node that is gone are
started again, from their beginning.
"""

from __future__ import annotations

import functools
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from livetrain.core import worker_pool
from livetrain.core.errors import MachineFault, UserError, first_line
from livetrain.core.worker_pool import Limits, WorkerDied

Task = TypeVar("Task")
Result = TypeVar("Result")

ENGINES = ("local", "ray")
TRIES = 3  # of a task whose Ray worker or node is gone
CONNECT_SECONDS = 10
AHEAD = 2  # tasks submitted to a core of the cluster, so that none waits for the driver

Stamp = tuple[str, int, int]  # path, bytes, mtime in ns


class Engine(Protocol):
    """What runs tasks."""

    def unordered(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        preload: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> Iterator[tuple[int, Result | WorkerDied]]:
        """Yield (index of the task, its result) as tasks complete; see worker_pool.unordered."""
        ...

    def sharing(self, *files: Path) -> Engine:
        """An engine that refuses to run a task where `files` (existing ones) are missing or others."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Worker processes of this machine; with one worker, this process."""

    num_workers: int = 1

    def unordered(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        preload: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> Iterator[tuple[int, Result | WorkerDied]]:
        return worker_pool.unordered(function, tasks, self.num_workers, preload, limits)

    def sharing(self, *files: Path) -> LocalEngine:
        return self


ONE_PROCESS = LocalEngine()


@dataclass(frozen=True)
class RayEngine:
    """A running Ray cluster, whose nodes have this environment and the same file system.

    address: as `ray start` prints it; "auto" finds that of this machine, or RAY_ADDRESS. num_tasks: at most so many at
    once, 0: a task a core. shared: files that every node must see as this machine does. is_isolated: False for tasks
    that have worker processes of their own; they run in Ray's workers, a task a GPU where the cluster has any, and
    have no limits.
    """

    address: str = "auto"
    num_tasks: int = 0
    shared: tuple[Stamp, ...] = ()
    is_isolated: bool = True

    def sharing(self, *files: Path) -> RayEngine:
        return replace(self, shared=(*self.shared, *(_stamp(file) for file in files)))

    def unordered(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        preload: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> Iterator[tuple[int, Result | WorkerDied]]:
        """As the protocol says. Raises UserError without Ray or a cluster, MachineFault where nodes do not share files.

        A task whose worker is lost TRIES times is WorkerDied; when the caller stops early, running tasks are killed.
        """
        if not tasks:
            return
        ray = _connected(self.address)
        call = ray.put((function, tuple(preload), limits, self.shared, self.is_isolated))
        kind = "CPU" if self.is_isolated or not ray.cluster_resources().get("GPU") else "GPU"
        # Tries are counted here, not by Ray, so that a task that kills every worker it is given ends. Workers are kept
        # for the next task (max_calls): what they have loaded stays loaded.
        options = {"num_cpus": 1, "num_gpus": int(kind == "GPU"), "max_retries": 0, "max_calls": 0}
        remote = ray.remote(**options)(_run)
        waiting = iter(range(len(tasks)))
        tries = [0] * len(tasks)
        running: dict[Any, int] = {}

        def submit(index: int) -> None:
            tries[index] += 1
            running[remote.remote(call, tasks[index])] = index

        try:
            while True:
                while len(running) < self._most(ray, kind) and (index := next(waiting, None)) is not None:
                    submit(index)
                if not running:
                    return
                ready, _ = ray.wait(list(running), num_returns=1)
                for ref in ready:
                    index = running.pop(ref)
                    try:
                        result = ray.get(ref)
                    except ray.exceptions.RayTaskError as error:
                        raise (error.cause if isinstance(error.cause, Exception) else error) from None
                    except ray.exceptions.RayError as error:  # its worker or node is gone, or short of memory
                        if tries[index] < TRIES:
                            submit(index)
                            continue
                        result = WorkerDied(f"was lost {TRIES} times ({first_line(error)})")
                    yield index, result
        finally:
            for ref in running:
                ray.cancel(ref, force=True)

    def _most(self, ray: Any, kind: str) -> int:
        """Tasks at once; asked again and again, for nodes come and go."""
        return self.num_tasks or max(1, AHEAD * int(ray.cluster_resources().get(kind, 1)))


def engine_of(name: str, address: str, num_workers: int, num_tasks: int = 0) -> Engine:
    """The engine that the options --engine, --ray-address and --workers ask for. Raises UserError."""
    if name == "local":
        if address:
            raise UserError("--ray-address has no effect without --engine ray")
        return LocalEngine(num_workers)
    _library()
    return RayEngine(address or "auto", num_tasks)


def _library() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install 'livetrain[ray]' on every node") from None
    return ray


@functools.cache
def _connected(address: str) -> Any:
    """Ray, connected to a cluster that runs already: none is started here, where it would have one machine."""
    ray = _library()
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--ray-address {address}: no Ray cluster answers there ({first_line(error)}); start one with `ray start "
            "--head` and `ray start --address …` on the nodes, or by slurm/ray.sbatch"
        ) from None
    return ray


# --- on a node of the cluster -----------------------------------------------------------------------------------------


def _run(call: tuple[Callable[[Any], Any], tuple[str, ...], Limits | None, tuple[Stamp, ...], bool], task: Any) -> Any:
    """One task, in this Ray worker's own child process where it is isolated."""
    function, preload, limits, shared, is_isolated = call
    _check(shared)
    if not is_isolated:
        return function(task)
    return _pool(pickle.dumps((function, preload, limits))).submit(task).result()


@functools.lru_cache(maxsize=1)
def _pool(call: bytes) -> worker_pool.Pool[Any, Any]:
    function, preload, limits = pickle.loads(call)
    return worker_pool.Pool(function, 1, preload, limits)


@functools.cache
def _check(shared: tuple[Stamp, ...]) -> None:
    """Raises MachineFault where this node does not see what the driver sees: it would reject every video."""
    for path, *known in shared:
        try:
            found = list(_stamp(Path(path))[1:])
        except OSError as error:
            found, why = [], error.strerror or str(error)
        else:
            why = "another file"
        if found != known:
            raise MachineFault(
                f"Ray node {socket.gethostname()} does not see {path} as the driver does ({why}): videos and shards "
                "must be on a file system that all nodes share"
            )


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return str(path.absolute()), status.st_size, status.st_mtime_ns
