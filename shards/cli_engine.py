"""The options that say where tasks run, of the verbs of shards/cli.py that have many."""

from __future__ import annotations

import argparse

from livetrain.core.engines import ENGINES, Engine, engine_of
from livetrain.core.errors import UserError
from livetrain.core.machine import num_cores


def add_engine(parser: argparse.ArgumentParser, workers: str) -> None:
    """Add --workers (`workers` is what its help says beside the default), --engine and --ray-address."""
    parser.add_argument(
        "--workers", type=int, metavar="N", help=f"processes (default: one a core, at least 2); {workers}"
    )
    add_cluster(parser)


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add --engine and --ray-address."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="local",
        help="where tasks run: processes here (default), or a Ray cluster that runs already, whose nodes share "
        "this file system (extra: ray); changes no byte",
    )
    parser.add_argument(
        "--ray-address",
        default="",
        metavar="ADDR",
        help="head of the cluster (default: RAY_ADDRESS, or this machine's)",
    )


def engine_from(arguments: argparse.Namespace) -> Engine:
    """The engine that was asked for. Raises UserError."""
    number = arguments.workers
    if number is not None and number < 1:
        raise UserError(f"--workers {number}: give 1 or more")
    # Two at least: a worker process can crash and hang without the build.
    return engine_of(arguments.engine, arguments.ray_address, number or max(2, num_cores()), number or 0)
