"""`data.fold` and `data.leave_out`: shorthands that set the splits of training, dev and test."""

from __future__ import annotations

from collections.abc import Mapping

from livetrain.config.data import DataConfig
from livetrain.core.errors import UserError


def apply_fold(data: DataConfig, explicit: Mapping[str, str]) -> None:
    """Write `fold` into the splits. Raises UserError when it is none, or when they are given too, and otherwise."""
    if not data.fold:
        return
    number, slash, count = data.fold.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count) >= 3):
        raise UserError(
            f"data.fold={data.fold} is not a fold; write 0/5 to 4/5 for shards built with --folds 5 (3 or more)"
        )
    test, dev = int(number), (int(number) + 1) % int(count)
    train = "+".join(f"fold{other}" for other in range(int(count)) if other not in (test, dev))
    for name, split in (("train_split", train), ("dev_split", f"fold{dev}"), ("test_split", f"fold{test}")):
        given, at, domains = getattr(data, name).partition("@")
        # What leave_out wrote behind a split is in a configuration that was resolved before.
        if f"data.{name}" in explicit and (given != split or (at and not data.leave_out)):
            raise UserError(f"data.fold={data.fold} does not go with data.{name}={given}{at}{domains}; leave one out")
        setattr(data, name, split)


def apply_leave_out(data: DataConfig) -> None:
    """Write `leave_out` into the splits. Raises UserError when they name other domains already."""
    if not data.leave_out:
        return
    for name, sign in (("train_split", "-"), ("dev_split", "-"), ("test_split", "")):
        places, colon, kinds = getattr(data, name).partition(":")
        split, at, domains = places.partition("@")
        if at and domains != f"{sign}{data.leave_out}":
            raise UserError(
                f"data.leave_out={data.leave_out} does not go with data.{name}={split}@{domains}; leave one out"
            )
        setattr(data, name, f"{split}@{sign}{data.leave_out}{colon}{kinds}")
