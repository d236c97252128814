"""`livetrain consolidate`: the weights of a checkpoint, whoever wrote which part of them, as one safetensors file.

    livetrain consolidate runs/NAME/checkpoints/step-00001500 --out weights.safetensors [--averaged] [--all]

Names are those of the model. `model.weights=weights.safetensors` starts another run from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import atomic_write


def parser() -> Parser:
    """The command line of `livetrain consolidate`."""
    parser = Parser("consolidate", (__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a folder step-* or best-*")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends in .safetensors")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--averaged",
        action="store_true",
        help="the average of the weights (ema_decay, swa_start), not the weights",
    )
    what.add_argument("--all", action="store_true", help="all of its tensors, moments of the optimizer too")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    options = parser().parse(arguments)
    consolidate(options.checkpoint, options.out, averaged=options.averaged, everything=options.all)
    print(options.out)
    return 0


def consolidate(folder: Path, out: Path, *, averaged: bool = False, everything: bool = False) -> None:
    """Write `out` from the checkpoint in `folder`. Raises UserError when that is damaged, or has no average of them.

    everything: all tensors of a step-* folder, named by their place: model/…, ema/…, state/optimizer/….
    """
    from livetrain.checkpoint import folders, safetensors_io

    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the name must end in .safetensors")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one of RUN/checkpoints")
    manifest = folders.check(folder)
    if everything or averaged:
        saved = folders.open_checked(folder)
        if averaged and saved.outline["ema"] is None:
            raise UserError(f"{folder} has no average of the weights: the run had no train.ema_decay or swa_start")
        stored, prefix = saved.stored, "" if everything else "ema/"
    else:
        stored, prefix = folders.stored_weights(folder, manifest, averaged=False)
    names = {name.removeprefix(prefix): name for name in stored.shapes if name.startswith(prefix)}
    with atomic_write(out) as temporary:
        safetensors_io.join(stored, names, temporary, metadata={"format": "pt"})
