"""The verb `faces` of shards/cli.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from livetrain.core.engines import LocalEngine
from livetrain.core.errors import UserError
from shards.cli_engine import add_engine, engine_from


def add_faces(verbs: Any, local: Callable[[str], Path]) -> None:
    """Add the verb. local: the type of a path that is no URL."""
    parser = verbs.add_parser("faces", help="find the face of each clip (extra: faces)")
    parser.set_defaults(verb=run)
    parser.add_argument("folder", type=local, metavar="DIR", help="shard folder")
    parser.add_argument(
        "--num-frames", type=int, default=8, metavar="K", help="frames to look at in a clip (default 8)"
    )
    parser.add_argument(
        "--upsample",
        type=int,
        default=0,
        metavar="N",
        help="enlarge frames N times twofold: small faces, slower",
    )
    parser.add_argument(
        "--detector", choices=("blazeface", "dlib"), default="blazeface", help="what finds faces (default blazeface)"
    )
    add_engine(parser, "changes no byte")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where blazeface's network runs, on a GPU in batches (default: a GPU if there is one)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace faces found with other options")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; the exit code."""
    from shards.annotate_faces import MISSING, Machine, find_faces
    from shards.faces.find import FaceOptions

    if arguments.num_frames < 1:
        raise UserError(f"--num-frames {arguments.num_frames}: give 1 or more")
    if not 0 <= arguments.upsample <= 3:
        raise UserError(f"--upsample {arguments.upsample}: give 0 to 3")
    options = FaceOptions(arguments.num_frames, arguments.upsample, arguments.detector)
    engine, device = engine_from(arguments), arguments.device
    if not isinstance(engine, LocalEngine):
        if device == "cuda":
            raise UserError(
                "--device cuda: batches run on a GPU of this machine; leave out --engine ray, or the device"
            )
        device = "cpu"
    machine = Machine(engine, face_device(device, arguments.detector))
    print(find_faces(arguments.folder, options, machine, overwrite=arguments.overwrite))
    if (arguments.folder / MISSING).exists():
        print(f"clips without a face: {arguments.folder / MISSING}")
    return 0


def face_device(device: str, detector: str) -> str:
    """`cpu` or `cuda`. Raises UserError where `device` is not there, or the detector does not run on it."""
    if device == "cpu" or (device == "auto" and detector != "blazeface"):
        return "cpu"
    if detector != "blazeface":
        raise UserError(f"--device cuda: the detector {detector} runs on the CPU only; leave the flag out")
    from torch import cuda

    if cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise UserError("--device cuda: PyTorch sees no GPU here; leave the flag out, or see `livetrain doctor`")
    return "cpu"
