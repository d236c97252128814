"""The one exception type for a user's mistake: entry points print it without a traceback and exit with code 2."""

EXIT_USER_ERROR = 2


class UserError(Exception):
    """Bad input or a bad option. The message names the file, row or key and says what to do about it."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, at most 200 characters; the exception's name if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
