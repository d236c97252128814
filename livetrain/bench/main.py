"""`livetrain bench NAME … [options]`: measure, print, and write NAME.md and NAME.json into --out.

With --quick and --against it is a guard: ratios of both sides on one machine do not depend on how fast the machine is,
so one that falls by half tells of a change of the program.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from livetrain.bench.options import Options, recipe
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import write_json

BENCHES = {
    "decode": "the CPU decoder against libavcodec alone; frames decoded against the fewest possible",
    "loader": "the loader against the decoder's limit and against what others load videos with",
    "shards": "building and verifying shards against cp, tar, probing, ffmpeg, libavcodec and sha256sum",
    "checkpoint": "how long a checkpoint keeps training waiting",
    "step": "training against a cached batch, a plain PyTorch loop and Lightning",
    "keys": "what options of training cost or save, in time and memory",
    "ddp": "averaging gradients of 2 and 4 processes: traffic, bucket sizes, overlap, compression, FSDP2",
    "evaluation": "joining the scores of four processes, for a million videos",
    "predict": "scoring raw videos against a script with PyAV and timm, warm and cold; the exported model",
    "startup": "from the start of a process to its first batch, against importing torch, timm and accelerate",
    "memory": "what a process of a run holds at most, with whole weights and in shards (FSDP2)",
    "gpu": "decoding, training and shards on a GPU, in parts; also with --device cpu",
    "download": "bytes that training downloads when a node's cache holds a part of the data; mixing of batches",
    "plan": "opening shards, the first batch and planning, from a thousand samples to a billion",
}
# What --quick measures when no name is given.
QUICK = ("loader", "shards", "step", "startup", "predict")
FALL = 0.5  # of a ratio, that is no noise
SECOND_LOOK_ROUNDS = 3  # where a ratio has fallen: a neighbour on the machine may have done it


def parser() -> Parser:
    """The command line of `livetrain bench`."""
    listing = "\n".join(f"  {name:<12} {text}" for name, text in BENCHES.items())
    parser = Parser("bench", f"Measurements, each against a limit or another program on the same work:\n\n{listing}")
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="the short form: fewer clips and rounds")
    parser.add_argument("--rounds", type=int, help="passes of each side (default 5, quick 1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write DIR/NAME.md and DIR/NAME.json")
    parser.add_argument("--ratios", type=Path, metavar="FILE", help="write the ratios to FILE, as JSON")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help=f"exit code 1 when a ratio is below {FALL:g} x that in FILE"
    )
    parser.add_argument("--data", type=Path, default=Options.data, help="where clips to measure with are kept")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--height", type=int, default=0, metavar="N", help="decode, loader: only clips of N lines")
    return parser


def main(arguments: list[str]) -> int:
    """The command line."""
    parsed = parser().parse(arguments)
    if unknown := sorted(set(parsed.names) - set(BENCHES)):
        raise UserError(f"no bench {unknown[0]!r}; there are: {', '.join(BENCHES)}")
    rounds = parsed.rounds or (1 if parsed.quick else 5)
    options = Options(parsed.quick, rounds, parsed.data / recipe(), parsed.device, parsed.height)
    known = _read_ratios(parsed.against) if parsed.against else {}
    ratios: dict[str, float] = {}
    for name in parsed.names or (QUICK if parsed.quick else BENCHES):
        bench = importlib.import_module(f"livetrain.bench.{name}")
        report = bench.run(options)
        if fallen := _fallen(report.ratios, known):
            print(f"measured again, with {SECOND_LOOK_ROUNDS} rounds: {', '.join(fallen)}", file=sys.stderr)
            report = bench.run(replace(options, rounds=max(rounds, SECOND_LOOK_ROUNDS)))
        command = ["livetrain", "bench", name, *(["--quick"] if parsed.quick else [])]
        command += ["--rounds", str(parsed.rounds)] if parsed.rounds else []
        command += ["--height", str(parsed.height)] if parsed.height else []
        command += ["--device", parsed.device] if parsed.device != "cpu" else []
        print(report.text(command))
        if parsed.out:
            report.write(parsed.out / f"{name}.md", command)
        ratios |= report.ratios
    if parsed.ratios:
        write_json(parsed.ratios, {name: value for name, value in ratios.items() if math.isfinite(value)})
    if not parsed.names:
        for name in sorted(known.keys() - ratios.keys()):
            print(f"not measured here: {name}, known {known[name]:.3f}")
    fallen = compare(ratios, known)
    for line in fallen:
        print(line)
    return 1 if fallen else 0


def compare(found: Mapping[str, float], known: Mapping[str, float]) -> list[str]:
    """A line for each ratio that was measured and is below `FALL` times the known one, or is NaN."""
    for name in sorted(found.keys() & known.keys()):
        print(f"{name:<60} {found[name]:8.3f}, known {known[name]:8.3f}")
    return [
        f"slower: {name}: {found[name]:.3f}, and {known[name]:.3f} when the figures were committed"
        for name in _fallen(found, known)
    ]


def _fallen(found: Mapping[str, float], known: Mapping[str, float]) -> list[str]:
    return [name for name in sorted(found.keys() & known.keys()) if not found[name] >= FALL * known[name]]


def _read_ratios(path: Path) -> dict[str, float]:
    try:
        return {str(name): float(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"--against {path}: no file of ratios ({error}); --ratios writes one") from error
