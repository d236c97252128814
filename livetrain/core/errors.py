"""How a program ends other than by being done, and its exit codes."""

from __future__ import annotations

import re

EXIT_USER_ERROR = 2
EXIT_NON_FINITE = 3
EXIT_MACHINE = 74  # EX_IOERR of sysexits.h: the same command may do better later, or elsewhere
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: start the same command again to resume
EXIT_HANG = 76  # EX_PROTOCOL: no progress for train.hang_timeout_seconds
EXIT_INTERRUPTED = 130  # as shells count SIGINT


class UserError(Exception):
    """Bad input or a bad option. The message names the file, row or key and says what to do about it."""

    exit_code = EXIT_USER_ERROR


class MachineFault(UserError):
    """What was asked is fine, but the machine, its disk or its network did not do it; a cluster may try again."""

    exit_code = EXIT_MACHINE


class NonFiniteLoss(Exception):
    """The loss or the gradient is NaN or Inf; the message names the step and the clips."""


class Stopped(Exception):
    """The run ended on request and can be resumed; the message says where it stands."""


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def first_line(error: BaseException) -> str:
    """The first line of another library's message, at most 200 characters; the exception's name if it has none."""
    lines = _COLOURS.sub("", str(error)).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
