"""Running tasks in worker processes that cannot outlive the build, and whose death names the task that caused it.

Not `concurrent.futures`: there one worker that dies takes all others with it, and one that hangs cannot be ended. Here
a worker has one task at a time, so it is known which one it died of, or has been at for too long.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from livetrain.core.errors import UserError
from livetrain.core.machine import status_bytes

EXIT_WITHOUT_GUARD = 97  # of a worker whose import of the main script would start workers again

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class WorkerDied:
    """In place of a result: the process that ran the task was killed (a crash in a decoder, no memory, too slow)."""

    reason: str


@dataclass(frozen=True)
class Limits:
    """What a task may take in a worker process.

    seconds: after that it is killed, whatever it is doing. bytes: of memory beside what the worker has when it starts;
    allocations then fail.
    """

    seconds: float
    num_bytes: int


def unordered(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    num_workers: int,
    preload: Sequence[str] = (),
    limits: Limits | None = None,
) -> Iterator[tuple[int, Result | WorkerDied]]:
    """Yield (index of the task, its result) as tasks complete; an exception of a task is raised here.

    With one worker the tasks run in this process, without limits, and a crash is this process's. `preload` names
    modules that workers share instead of importing them each. A task whose worker died is run once more when all others
    are done, alone: it may have died of what another one did to the memory. When the caller stops early, tasks under
    limits are killed, others finish.
    """
    if num_workers == 1:
        yield from ((index, function(task)) for index, task in enumerate(tasks))
        return
    waiting, once_more = _Queue(tasks), deque[tuple[int, Task]]()
    workers: list[_Worker[Task]] = []
    is_last_try = False
    try:
        while waiting or once_more or any(worker.task for worker in workers):
            for worker in [worker for worker in workers if not worker.task]:
                if waiting and not worker.give(waiting.first()):
                    _end(workers, worker)
                elif waiting:
                    waiting.pop()
            while waiting and len(workers) < num_workers:
                workers.append(_Worker(function, preload, limits, waiting.pop()))
            if not any(worker.task for worker in workers):
                for worker in list(workers):
                    _end(workers, worker)
                workers.append(_Worker(function, preload, limits, once_more.popleft()))
                is_last_try = True
            ready = wait([worker.connection for worker in workers if worker.task], _seconds_left(workers, limits))
            for worker in [worker for worker in workers if worker.connection in ready]:
                assert worker.task is not None
                index, task = worker.task
                try:
                    message = worker.message()
                except (EOFError, OSError):
                    _end(workers, worker)
                    _refuse_script_without_guard(worker)
                    if is_last_try:
                        yield index, WorkerDied("crashed")
                    else:
                        once_more.append((index, task))
                    continue
                if message is None:
                    continue
                is_result, answer = message
                if not is_result:
                    raise answer
                yield index, answer
            for worker in [worker for worker in workers if limits and worker.task and worker.seconds > limits.seconds]:
                assert limits is not None and worker.task is not None
                index, _ = worker.task
                worker.process.kill()
                _end(workers, worker)
                yield index, WorkerDied(f"took longer than {limits.seconds:g} s")
    finally:
        for worker in list(workers):
            if limits:
                worker.process.kill()
            _end(workers, worker)


def prepare(preload: Sequence[str]) -> None:
    """Begin to import `preload` for the workers to come, in their server, while this process goes on."""
    _context(preload)
    forkserver.ensure_running()


def _context(preload: Sequence[str]) -> multiprocessing.context.ForkServerContext:
    """Workers start from a small process without threads, which imports `preload` once for all of them."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # this is a worker, importing the script
        os._exit(EXIT_WITHOUT_GUARD)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


class _Queue(Generic[Task]):
    """Tasks with their indices, each taken from the sequence when it is due: a lazy one makes it then."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks, self._next = tasks, 0
        self._first: tuple[int, Task] | None = None

    def __bool__(self) -> bool:
        return self._next < len(self._tasks)

    def first(self) -> tuple[int, Task]:
        if self._first is None:
            self._first = self._next, self._tasks[self._next]
        return self._first

    def pop(self) -> tuple[int, Task]:
        first = self.first()
        self._first, self._next = None, self._next + 1
        return first


class Pool(Generic[Task, Result]):
    """Worker processes for tasks that come one by one, each under limits (None: without); threads may share it.

    A thread for each process waits for it, so at most `num_workers` tasks are under way and the others queue. A task
    whose process died is run once more, in a new one. Workers start with the first task and end with this process.
    """

    def __init__(
        self, function: Callable[[Task], Result], num_workers: int, preload: Sequence[str], limits: Limits | None
    ) -> None:
        self._function, self._preload, self._limits = function, preload, limits
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="livetrain-pool")
        self._own = threading.local()

    def submit(self, task: Task) -> Future[Result | WorkerDied]:
        """The task's result to be, or its exception, or WorkerDied."""
        return self._threads.submit(self._run, task)

    def close(self) -> None:
        """End the workers; tasks that have not begun are cancelled."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self, task: Task) -> Any:
        died = WorkerDied("")
        for _ in range(2):
            worker: _Worker[Task] | None = getattr(self._own, "worker", None)
            if worker is None or not worker.give((0, task)):
                worker = self._own.worker = _Worker(self._function, self._preload, self._limits, (0, task))
            try:
                while (message := self._message(worker)) is None:
                    pass
            except TimeoutError:
                assert self._limits is not None
                self._end(worker)
                return WorkerDied(f"took longer than {self._limits.seconds:g} s")
            except (EOFError, OSError):
                worker.process.join(1)  # it is ending; what it ends with tells why
                self._end(worker)
                _refuse_script_without_guard(worker)
                died = WorkerDied("crashed")
                continue
            is_result, answer = message
            if not is_result:
                raise answer
            return answer
        return died

    def _message(self, worker: _Worker[Task]) -> tuple[bool, Any] | None:
        """Its next message. Raises TimeoutError when it takes too long, EOFError when it is gone."""
        if not worker.connection.poll(_seconds_left([worker], self._limits)):
            raise TimeoutError
        return worker.message()

    def _end(self, worker: _Worker[Task]) -> None:
        worker.process.kill()
        worker.connection.close()
        worker.process.join()
        self._own.worker = None


class _Worker(Generic[Task]):
    """A process that does one task after the other, as seen from the build."""

    def __init__(
        self, function: Callable[[Task], Any], preload: Sequence[str], limits: Limits | None, task: tuple[int, Task]
    ) -> None:
        context = _context(preload)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, function, limits), daemon=True)
        self.process.start()
        theirs.close()
        self.task: tuple[int, Task] | None = task
        self._start = float("inf")
        self.give(task)  # if it is dead already, the end of the connection tells so

    def give(self, task: tuple[int, Task]) -> bool:
        """Whether it takes the task: a dead process does not."""
        try:
            self.connection.send(task[1])
        except OSError:
            return False
        self.task, self._start = task, float("inf")
        return True

    @property
    def seconds(self) -> float:
        """How long it has been at its task; below 0 as long as it has not begun (starting a process takes time)."""
        return time.monotonic() - self._start

    def message(self) -> tuple[bool, Any] | None:
        """None: it begins with its task.

        (True, the result) or (False, the exception): it is done. Raises EOFError when the process is gone.
        """
        message: tuple[bool, Any] | None = self.connection.recv()
        if message is None:
            self._start = time.monotonic()
        else:
            self.task = None
        return message


def _refuse_script_without_guard(worker: _Worker[Any]) -> None:
    """Else every task would be called one on which workers crash. Raises UserError."""
    if worker.process.exitcode == EXIT_WITHOUT_GUARD:
        raise UserError(
            "worker processes import the script that started them, and this one starts workers when it is imported: "
            'put what it does under `if __name__ == "__main__":`'
        )


def _end(workers: list[_Worker[Task]], worker: _Worker[Task]) -> None:
    workers.remove(worker)
    worker.connection.close()
    worker.process.join()


def _seconds_left(workers: Sequence[_Worker[Task]], limits: Limits | None) -> float | None:
    """Until the first busy worker has been at its task for too long."""
    longest = max(worker.seconds for worker in workers if worker.task)
    if limits is None or longest < 0:
        return None
    return max(0.0, limits.seconds - longest) + 0.01


def _work(connection: Connection, function: Callable[[Any], Any], limits: Limits | None) -> None:
    """What a worker does, until the build closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the build answers it
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if limits:
        _limit_memory(limits.num_bytes)
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = connection.recv()
            connection.send(None)
            try:
                answer = True, function(task)
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = False, error
            connection.send(answer)


def _limit_memory(num_bytes: int) -> None:
    """Let this process allocate so much more than it has. Linux alone counts what this needs; elsewhere no limit."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        used = status_bytes("VmData")
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = used + num_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if most < 0 else min(wanted, most), most))


def _die_with_parent() -> None:
    """Without this, workers of a killed build would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
