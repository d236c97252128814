"""Export a trained model for other programs.

    livetrain export SOURCE --format onnx|torch|hub [--precision fp32|fp16] [--out PATH] [--check DATA] [--clips N]

SOURCE is a model package, a run directory or a checkpoint's folder. Formats:

    onnx    one .onnx file, for ONNX Runtime and others
    torch   a torch.export program (.pt2): torch.export.load(FILE).module()(clips)
    hub     a folder for the Hugging Face hub; timm.create_model("local-dir:DIR", pretrained=True) classifies frames

onnx and torch take float32 clips [clips, frames, 3, size, size], any number of both, normalised as the file's metadata
says (`livetrain` in ONNX, livetrain.json in .pt2: mean, std, size, frames), and give p_live [clips].

--check compares p_live of the file with the model's on the first N (200) clips of DATA, a shard folder or a folder of
videos, and prints sizes and latencies on this machine. Exit code 1 when they differ by more than 1e-4 (fp16: 0.02) from
the model in float32, or an fp32 file decides otherwise than the scores that set the threshold (train.precision).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError

SUFFIX = {"onnx": ".onnx", "torch": ".pt2", "hub": ""}


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    options, overrides = _parse(arguments)
    from livetrain.evaluation.scoring import face_scales
    from livetrain.inference.export import write
    from livetrain.inference.package import load

    trained = load(options.source, overrides)
    settings = trained.config.eval
    scales = face_scales(trained.config.data)
    if (settings.aggregate, settings.tta) != ("model", "none") or scales:
        also = f" and data.face_multi_scale={scales}" if scales else ""
        print(
            f"warning: eval.aggregate={settings.aggregate}, eval.tta={settings.tta}{also} are not exported: "
            "it scores one view of a clip by the model's own pooling",
            file=sys.stderr,
        )
        # Chosen on other scores than the file gives.
        trained = dataclasses.replace(trained, threshold=None)
    name = f"{trained.config.name}-{options.precision}{'-hub' if options.format == 'hub' else ''}"
    out = options.out or Path(f"{name}{SUFFIX[options.format]}")
    if options.format != "hub" and out.suffix != SUFFIX[options.format]:
        raise UserError(f"--out {out}: the name of this format must end in {SUFFIX[options.format]}")
    {"onnx": write.to_onnx, "torch": write.to_torch, "hub": write.to_hub}[options.format](
        trained, options.precision, out
    )
    print(f"{write.write_reference(trained, out)} makes its input")
    print(out, flush=True)
    return _check(options, trained, out) if options.check else 0


def _check(options: argparse.Namespace, trained: object, out: Path) -> int:
    from livetrain.evaluation.scoring import precision
    from livetrain.inference.export import check, write
    from livetrain.inference.package import Trained

    assert isinstance(trained, Trained)
    run = check.runtime(out)
    parity = check.compare(trained, run, options.check, options.clips)
    other = parity.num_other_decisions
    print(f"{len(parity.model)} clips: max |Δp_live| = {parity.difference:.3g}; {other} other decisions")
    evaluated = precision(trained.config)
    if evaluated != "fp32":
        apart = parity.difference_evaluated
        print(f"against the scores that set the threshold ({evaluated}): max |Δp_live| = {apart:.3g}")
    own = sum(tensor.numel() * tensor.element_size() for tensor in trained.model.state_dict().values()) / 1e6
    rows = {"the model, fp32": (check.of_model(trained), own)}
    rows[f"{options.format}, {options.precision}"] = (run, out.stat().st_size / 1e6)
    clip = write.example(trained, 1, trained.config.eval.num_frames or 8)[0].numpy()
    print(check.table(rows, clip), flush=True)
    same = parity.difference <= check.TOLERANCE[options.precision] and (other == 0 or options.precision == "fp16")
    return 0 if same else 1


def parser() -> Parser:
    """The command line of `livetrain export`."""
    parser = Parser("export", __doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--format", choices=tuple(SUFFIX), required=True)
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", type=Path)
    parser.add_argument("--clips", type=int, default=200)
    return parser


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    options, rest = parser().parse_some(arguments)
    if options.check and options.format == "hub":
        raise UserError("livetrain export: --check compares onnx and torch; the hub's folder is checked when written")
    if options.check and not options.check.is_dir():
        raise UserError(f"livetrain export: --check {options.check}: no such folder")
    return options, rest
