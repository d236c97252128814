"""How a program ends: a user's mistake is one clear line and exit code 2, a non-finite loss 3, a fault of the machine
74, a stop on request 75."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from livetrain.errors import UserError

EXIT_INTERRUPTED = 130  # as shells count SIGINT


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(YAML files, `key=value` overrides) of a command line, in order."""
    files = [item for item in arguments if "=" not in item and item.endswith((".yaml", ".yml"))]
    return files, [item for item in arguments if item not in files]


def run(main: Callable[[], int]) -> int:
    """Call `main`; print a user's mistake without a traceback. Returns the exit code."""
    from livetrain.engine.step import EXIT_NON_FINITE, NonFiniteLoss
    from livetrain.engine.stop import EXIT_STOPPED, Stopped

    try:
        return main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except NonFiniteLoss as error:
        _tell_once(f"error: {error}")
        return EXIT_NON_FINITE
    except Stopped as stopped:
        _tell_once(str(stopped))
        return EXIT_STOPPED
    except KeyboardInterrupt:
        _tell_once("interrupted")
        return EXIT_INTERRUPTED


def _tell_once(line: str) -> None:
    """Print what all processes know on the first one alone (torchrun sets RANK)."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)
