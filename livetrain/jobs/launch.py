"""Start one of the scripts through `accelerate launch`, pass signals on to its processes, and end as it ended.

Accelerate and torchrun leave some things to be wished for: SIGUSR1 does not reach the processes; SIGTERM gives them
30 s and loses their exit code; Ctrl-C ends the launcher and may leave them; an orderly end with a code of its own shows
the launcher's traceback; and processes outlive a launcher that is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from livetrain.config import load_config, split_arguments
from livetrain.config.load import read_mapping
from livetrain.core.errors import EXIT_STOPPED, UserError, first_line
from livetrain.core.machine import num_cores
from livetrain.distributed import watchdog
from livetrain.distributed.preemption import SIGNALS

LAUNCHER = "LIVETRAIN_LAUNCHER"  # the environment variable that names its process
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

PACKAGE = Path(__file__).resolve().parent.parent

# torchrun's agent turns the signals it handles into a hard end; those of a polite stop are left to `_Passing`.
AGENT_SIGNALS = "SIGQUIT"
PATIENCE_SECONDS = 30  # of the agent, between SIGTERM and SIGKILL to the processes that are left when one has failed


def launch(script: str, arguments: list[str]) -> int:
    """Run livetrain/`script`; returns its exit code, or 128 + the signal that ended a process.

    Arguments up to the first YAML file, folder or `key=value` are Accelerate's options.
    """
    return _launch(script, *split(arguments))


def launch_processes(script: str, num_processes: int, arguments: list[str]) -> int:
    """`launch` with all `arguments` the script's, on `num_processes` GPUs of this machine, or CPU processes without."""
    import torch

    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "1"
    # "--multi_gpu" is what makes Accelerate start several processes, on the CPU too.
    options = ["--multi_gpu", "--num_processes", str(num_processes), "--num_machines", "1", "--mixed_precision", "no"]
    return _launch(script, [*options, "--dynamo_backend", "no", "--main_process_port", "0"], arguments)


def _launch(script: str, accelerates: list[str], scripts: list[str]) -> int:
    with _Passing(str(PACKAGE / script)) as passing:
        from accelerate.commands.launch import launch_command, launch_command_parser
        from torch.distributed import DistError
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

        options = launch_command_parser().parse_args([*accelerates, str(PACKAGE / script), *scripts])
        options.signals_to_handle = AGENT_SIGNALS
        _set_defaults(options)
        try:
            launch_command(options)
        except subprocess.CalledProcessError as error:
            returncode = error.returncode
        except ChildFailedError as error:
            rank, failure = first_of(error.failures)
            returncode = failure.exitcode
            if returncode < 0 and -returncode not in passing.passed:
                _tell_of_death(rank, returncode, scripts)
            elif len(error.failures) > 1:
                _tell_of_the_first(rank, failure)
        except (DistError, ConnectionError) as error:  # the second is Accelerate's, of a port that is taken
            # Not invalid input, for which a cluster would not start the job again: nodes die, and come late.
            print(f"error: {_not_met(options, error)}", file=sys.stderr, flush=True)
            return 1
        else:
            return 0
    if -returncode in passing.passed:  # it came before the process could listen; nothing was done that could be lost
        return EXIT_STOPPED
    return returncode if returncode >= 0 else 128 - returncode  # as shells count deaths by signals


def _set_defaults(options: Any) -> None:
    """Set what Accelerate would choose for itself and warn about: one process a GPU, and threads by affinity."""
    from accelerate.commands.config.config_args import default_config_file
    from torch import cuda

    num_processes = options.num_processes
    content = _read(options.config_file) if options.config_file else None
    if options.config_file is None and not Path(default_config_file).is_file():
        num_gpus = 0 if options.cpu else cuda.device_count()
        num_processes = options.num_processes = num_processes or max(1, num_gpus)
        # Not beside another way to start them: Accelerate takes one.
        others = (options.cpu, options.tpu, options.use_deepspeed, options.use_fsdp, options.use_megatron_lm)
        options.multi_gpu = options.multi_gpu or (min(num_gpus, num_processes) > 1 and not any(others))
        options.num_machines = options.num_machines or 1
        options.mixed_precision = options.mixed_precision or "no"
        options.dynamo_backend = options.dynamo_backend or "no"
    elif num_processes is None:
        path = options.config_file or default_config_file
        num_processes = (content or _read(path)).get("num_processes") or 1
        if not isinstance(num_processes, int):
            raise UserError(f"--config_file {path}: num_processes: {num_processes!r} is no whole number")
    if options.num_cpu_threads_per_process is None and "OMP_NUM_THREADS" not in os.environ and not cuda.is_available():
        here = max(1, num_processes // (options.num_machines or 1))
        cores = min(num_cores(), psutil.cpu_count(logical=False) or num_cores())
        options.num_cpu_threads_per_process = max(1, cores // here)


def _read(path: str) -> dict[str, Any]:
    """Accelerate's configuration. Raises UserError for a file that is none."""
    return read_mapping(path, "--config_file", missing="livetrain's own are in launch/")


def first_of(failures: Mapping[int, Any]) -> tuple[int, Any]:
    """(rank, failure) of the process that failed first; the others followed it, or were ended by the launcher.

    It sends SIGTERM to those that are left, also to one that is about to end by itself.
    """
    return min(failures.items(), key=lambda item: (item[1].exitcode == -signal.SIGTERM, _when(item[1])))


def _when(failure: Any) -> int:
    """Nanoseconds since 1970 at which a process failed, by what it left (entrypoint.run), or when its end was seen.

    One that was killed leaves nothing, and a peer that lost its connection to it may be seen in the same moment: so it
    counts as earlier, but not by so much as the launcher waits before it kills.
    """
    if failure.exitcode == -signal.SIGKILL:
        return (failure.timestamp - PATIENCE_SECONDS + 1) * 10**9
    return int(_left_by(failure).get("exact", 0)) or (failure.timestamp + 1) * 10**9  # whole seconds, cut off


def _left_by(failure: Any) -> dict[str, Any]:
    message = failure.error_file_data.get("message")
    return message["extraInfo"] if isinstance(message, dict) else {}


def _tell_of_the_first(rank: int, failure: Any) -> None:
    """Of several processes that failed, most because another one did, print how the first one came to it."""
    callstack = _left_by(failure).get("py_callstack")
    if callstack:
        print(f"error: rank {rank} failed first, the others after it:\n{callstack}", file=sys.stderr, flush=True)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(Accelerate's options, the script's arguments): options and their values come first."""
    flags: set[str] = set()
    for index, item in enumerate(arguments):
        before = arguments[index - 1] if index else ""
        if item.startswith("-"):
            continue
        if before.startswith("-") and "=" not in before:
            flags = flags or _flags()
            if before not in flags:
                continue  # it is the option's value
        return arguments[:index], arguments[index:]
    return arguments, []


def _flags() -> set[str]:
    """Accelerate's options that take no value, as its own parser has them."""
    from accelerate.commands.launch import launch_command_parser

    actions = launch_command_parser()._actions
    return {name for action in actions if action.nargs == 0 for name in action.option_strings}


class _Passing:
    """Passes SIGNALS on to all processes below this one that run `script`, as soon as there are any.

    A process learns whose it is, so that it stops when this one is gone (`follow_launcher`).
    """

    def __init__(self, script: str) -> None:
        self.script = script
        self.passed: set[int] = set()
        self._before: dict[int, Any] = {}
        self._waiting: threading.Timer | None = None

    def __enter__(self) -> _Passing:
        os.environ[LAUNCHER] = str(os.getpid())
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, lambda n, _: self._pass_on(n)) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting:
            self._waiting.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int) -> None:
        found = False
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if self.script in process.cmdline():
                    process.send_signal(number)
                    found = True
        if found:
            self.passed.add(int(number))
        else:
            self._waiting = threading.Timer(0.5, self._pass_on, [number])
            self._waiting.daemon = True
            self._waiting.start()


def follow_launcher() -> None:
    """Have this process asked to stop (SIGTERM) when the launcher that started it is gone, however it went. Linux.

    One process saves before it ends. Several cannot: the store that they report through is the launcher's.
    """
    launcher = os.environ.get(LAUNCHER, "")
    if launcher != str(os.getppid()):
        return  # started by hand, or by something between
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(launcher):  # it went meanwhile
        os.kill(os.getpid(), signal.SIGTERM)


def _not_met(options: Any, error: Exception) -> str:
    """Why the nodes of a run are not together, and what to look at."""
    where = f"{options.main_process_ip}:{options.main_process_port}"
    if "EADDRINUSE" in str(error) or type(error) is ConnectionError:
        return f"port {options.main_process_port} is taken on this machine; choose another on all nodes (PORT)"
    return (
        f"node {options.machine_rank} of {options.num_machines} did not meet the others at {where}, or lost them "
        f"({first_line(error)}); is that the address of node 0, can it be reached from here, are all nodes alive, and "
        "were they started within half a minute?"
    )


def _tell_of_death(rank: int, exitcode: int, arguments: list[str]) -> None:
    """Name the process that a signal ended, and how far it got."""
    name = signal.Signals(-exitcode).name
    with contextlib.suppress(UserError):  # the script itself has reported it
        config = load_config(*split_arguments(arguments), warn=lambda line: None)
        beats = {beat.rank: beat for beat in watchdog.read(Path(config.run_dir) / watchdog.FOLDER)}
        where = f" on {beats[rank].host} after {beats[rank].step} updates" if rank in beats else ""
        print(f"error: rank {rank} was ended by {name}{where}", file=sys.stderr, flush=True)
