"""Two processes of which the first one decides, badly: it prints how each of them ends."""

from __future__ import annotations

from accelerate import PartialState

from livetrain.core.errors import UserError
from livetrain.distributed.collectives import decide_on_rank_zero


def main(arguments: list[str]) -> int:
    """arguments: the kind of error that the first process meets, or none."""
    rank = PartialState(cpu=True).process_index

    def decide() -> int:
        if arguments[0] == "user":
            raise UserError("no such folder")
        return 1 // (arguments[0] == "none")

    try:
        print(f"rank {rank}: {decide_on_rank_zero(decide)}", flush=True)
    except Exception as error:
        print(f"rank {rank}: {type(error).__name__}: {error}", flush=True)
    return 0
