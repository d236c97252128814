"""livetrain.train where the first process writes its part of a checkpoint slowly."""

from __future__ import annotations

import os
import time
from typing import Any

from livetrain import train
from livetrain.checkpoint import safetensors_io

SECONDS = 5.0


def main(arguments: list[str]) -> int:
    """As livetrain.train's."""
    if os.environ["RANK"] == "0":
        usual = safetensors_io.write

        def write(*given: Any) -> Any:
            time.sleep(SECONDS)
            return usual(*given)

        safetensors_io.write = write
    return train.main(arguments)
