"""A decoder that crashes, hangs or swells on some files: for tests of those who must live on.

Imports nothing large, since worker processes import it.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from livetrain.data import isolated_decode


def work(task: isolated_decode.ProbeTask | isolated_decode.DecodeTask) -> Any:
    """As untrusted.work, but for files whose name says what they do, and when."""
    name, when = task.path.name, "probe" if isinstance(task, isolated_decode.ProbeTask) else "decode"
    if f"crash_{when}" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if f"hang_{when}" in name:
        signal.pause()
    if f"swell_{when}" in name:
        usual = isolated_decode.decode_video, isolated_decode.probe
        isolated_decode.decode_video = isolated_decode.probe = _swell  # type: ignore[assignment]
        try:
            return isolated_decode.work(task)
        finally:
            isolated_decode.decode_video, isolated_decode.probe = usual  # the worker lives on
    return isolated_decode.work(task)


def _swell(*_: Any, **__: Any) -> Any:
    return bytearray(10**12)
