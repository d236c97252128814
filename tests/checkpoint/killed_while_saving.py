"""Saves checkpoints in a child process, kills it with SIGKILL at a random instant, looks at what is left; many times.

    python -m tests.checkpoint.killed_while_saving FOLDER NUM_KILLS

Forking keeps a round at milliseconds: torch is imported once. Prints the number of kills, and how many of them hit a
write that was under way.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from livetrain.checkpoint import folders
from livetrain.checkpoint.async_writer import CheckpointWriter
from livetrain.checkpoint.folders import Checkpoint

STEPS_A_ROUND = 1000


def save_for_ever(folder: Path, first: int, pipe: int) -> None:
    """Save steps first, first + 1, …; each that is announced goes down the pipe."""

    def tell(line: str) -> None:
        os.write(pipe, f"{line.rpartition('-')[2]}\n".encode())

    with CheckpointWriter(folder, keep_last=2, keep_every=0, tell=tell) as writer:
        for step in range(first, first + STEPS_A_ROUND):
            weights = {f"layer{i}": torch.full((50_000,), float(step)) for i in range(4)}
            writer.save(Checkpoint(step, weights, weights, {"optimizer": weights, "carry": {"step": step}}))
            if step % 3 == 0:
                writer.save_best(step, weights, {})


def main(folder: Path, num_kills: int) -> None:
    """Raises AssertionError when a kill left less than what was announced."""
    choose = random.Random(0)
    announced = hit = 0
    for _ in range(num_kills):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            save_for_ever(folder, announced + 1, write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as lines:
            if choose.random() < 0.7:  # some before the first save, most somewhere behind it
                announced = int(lines.readline())
            time.sleep(choose.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            announced = max([announced, *(int(line) for line in lines if line.endswith("\n"))])
        hit += any(folder.glob(".*.tmp"))
        found = folders.newest(folder, lambda line: sys.exit(f"not whole after a kill: {line}"))
        assert (found.step if found else 0) >= announced, f"announced {announced}, found {found and found.step}"
        if found:
            assert {float(tensor[0]) for tensor in found.part("model").values()} == {float(found.step)}
            best = max(folder.glob("best-*"), default=None)
            assert best is None or folders.load_weights(best, averaged=False)[1]["step"] % 3 == 0
    print(num_kills, hit)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
