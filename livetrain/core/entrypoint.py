"""How a program ends.

Invalid input is a one-line error and exit code 2, a non-finite loss 3, a fault of the machine 74, a stop on request 75.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from livetrain.core.errors import EXIT_INTERRUPTED, EXIT_NON_FINITE, EXIT_STOPPED, NonFiniteLoss, Stopped, UserError


def run(main: Callable[[], int]) -> int:
    """Call `main`; print a user's mistake without a traceback. Returns the exit code.

    How it ended is left for the launcher, which names the process that failed first.
    """
    try:
        return main()
    except UserError as error:
        _leave_word(error)
        if _is_first_to_say(str(error)):
            print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except NonFiniteLoss as error:
        _leave_word(error)
        _tell_once(f"error: {error}")
        return EXIT_NON_FINITE
    except Stopped as stopped:
        _leave_word(stopped)
        _tell_once(str(stopped))
        return EXIT_STOPPED
    except Exception as error:
        _leave_word(error, traceback.format_exc())
        raise
    except KeyboardInterrupt:
        _tell_once("interrupted")
        return EXIT_INTERRUPTED


def _leave_word(error: Exception, callstack: str = "") -> None:
    """Write how this process ends where torchrun's agent looks for it, as it wants it; `exact`: when, nanoseconds."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    extra = {"py_callstack": callstack, "timestamp": str(int(time.time())), "exact": time.time_ns()}
    with contextlib.suppress(OSError):
        message = {"message": f"{type(error).__name__}: {error}", "extraInfo": extra}
        Path(path).write_text(json.dumps({"message": message}), encoding="utf-8")


def _is_first_to_say(line: str) -> bool:
    """Whether no other process of this node has said the same in this attempt: most mistakes all of them find."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return True
    said = Path(path).parent.parent / f"said-{hashlib.sha256(line.encode()).hexdigest()[:16]}"
    try:
        said.open("x").close()
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


def _tell_once(line: str) -> None:
    """Print what all processes know on the first one alone (torchrun sets RANK)."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)
