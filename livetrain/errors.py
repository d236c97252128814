"""What entry points print without a traceback: a user's mistake (exit code 2), a fault of the machine (74)."""

EXIT_USER_ERROR = 2
EXIT_MACHINE = 74  # EX_IOERR of sysexits.h: the same command may do better later, or elsewhere


class UserError(Exception):
    """Bad input or a bad option. The message names the file, row or key and says what to do about it."""

    exit_code = EXIT_USER_ERROR


class MachineFault(UserError):
    """What was asked is fine, but the machine, its disk or its network did not do it; a cluster may try again."""

    exit_code = EXIT_MACHINE


def first_line(error: BaseException) -> str:
    """The first line of another library's message, at most 200 characters; the exception's name if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
