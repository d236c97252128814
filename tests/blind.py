"""livetrain.train on a machine whose view of the run directory is late: the second process sees the newest checkpoint
only after a second, or with name=never not at all.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from livetrain import train
from livetrain.checkpoint import folders
from livetrain.distributed import collectives


def main(arguments: list[str]) -> int:
    """As livetrain.train's."""
    if os.environ["RANK"] == "1":
        began, usual_steps, usual_sha256 = time.monotonic(), folders.list_steps, collectives.file_sha256

        def is_late() -> bool:
            return "name=never" in arguments or time.monotonic() < began + 1

        def list_steps(folder: Path) -> list[Path]:
            return usual_steps(folder)[:-1] if is_late() else usual_steps(folder)

        def sha256(path: Path) -> str:
            if is_late():
                raise FileNotFoundError(2, "No such file or directory")
            return usual_sha256(path)

        folders.list_steps, collectives.file_sha256 = list_steps, sha256  # type: ignore[assignment]
        collectives.SECONDS_TO_BE_SEEN = 5.0  # type: ignore[misc]
    return train.main(arguments)
