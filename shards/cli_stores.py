"""The options of stores (`--store` and what goes with it) on the command line."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

from livetrain.core.errors import UserError
from shards.stores import StoreOptions

# Options of the stores: those that each has a use for, with the value it takes where none is given.
STORE_OPTIONS: dict[str, dict[str, Any]] = {
    "original": {},
    "remux": {},
    "transcode": {"size": 0, "long_side": 0, "gop": 8, "codec": "h264", "quality": 0},
    "frames": {"num_frames": 0, "frames_per_second": 0.0, "size": 0, "long_side": 0, "quality": 0},
}
DEFAULT_FRAMES = 16


def media_of(arguments: argparse.Namespace) -> StoreOptions:
    """The options of the store, checked; an option that the store has no use for is refused."""
    values = dict(STORE_OPTIONS[arguments.store])
    for name in {name: None for options in STORE_OPTIONS.values() for name in options}:
        if (given := getattr(arguments, name)) is None:
            continue
        option = f"--{name.replace('_', '-')}"
        if name not in values:
            raise UserError(f"{option} has no effect with --store {arguments.store}; leave it out")
        least, most = _bounds(name, arguments.store)
        if not (name == "codec" or least <= given <= most):
            raise UserError(f"{option} {given:g}: give {least:g} {'or more' if most == math.inf else f'to {most:g}'}")
        values[name] = given
    from shards.stores import default_quality
    from shards.stores.pictures import BLOCK, scaled_size

    size = int(values.get("size", 0))
    if arguments.store == "transcode" and size % BLOCK:
        short, _ = scaled_size(size, size, size, 0, BLOCK)
        print(f"--size {size}: sides become multiples of {BLOCK}, the short one {short}", file=sys.stderr)
    if arguments.store == "frames" and not values["frames_per_second"]:
        values["num_frames"] = values["num_frames"] or DEFAULT_FRAMES
    if "quality" in values:  # spelt out: the same build, whether it was given or is the default
        values["quality"] = values["quality"] or default_quality(arguments.store, values.get("codec", ""))
    if values.get("num_frames") and values["frames_per_second"]:
        raise UserError("--num-frames and --frames-per-second: give one of them")
    return StoreOptions(arguments.store, short_side=values.pop("size", 0), **values)


def _bounds(name: str, store: str) -> tuple[float, float]:
    """The least and the most that an option of a store may be."""
    from shards.stores.frames import MAX_FRAMES

    if name == "quality":
        return (1, 100) if store == "frames" else (1, 51)
    return {"num_frames": (1, MAX_FRAMES), "frames_per_second": (0.01, 1000), "gop": (1, math.inf)}.get(
        name, (16, math.inf)
    )
