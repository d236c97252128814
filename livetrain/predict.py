"""Score raw videos; no shards needed, no labels read.

    livetrain predict --checkpoint C --videos DIR --out submission.csv [--json FILE] [--processes N] [key=value …]
    livetrain predict --checkpoint C VIDEO …                 # prints JSON
    livetrain predict --ensemble RUN RUN … --videos DIR --out submission.csv   # weights fitted on dev
    accelerate launch … livetrain/predict.py --checkpoint C --videos DIR --out submission.csv      # several nodes
    livetrain predict --checkpoint C --videos DIR --out scores.parquet --engine ray                # a Ray cluster
    livetrain predict --onnx FILE --videos DIR --out submission.csv        # of `livetrain export`; no torch is needed

C is a model package, a run directory, a checkpoint's folder or an ensemble's. FILE is what `livetrain export --format
onnx` wrote; ONNX Runtime (extra: export) computes on the CPU. Every video file below DIR gets a row
in submission.csv (fname,liveness_score) and in time_submission.csv beside it (fname,time in milliseconds); one that
cannot be decoded gets predict.failed_score, is counted and reported with its reason. `fname` is the file's name, with
`--names path` its path below DIR.

The time is a file's share of the wall time of its batch, from the end of the batch before, reading and decoding
included: the times of a process add up to its wall time. For times of files alone: eval.batch_size=1 data.prefetch=1.
With an --out that ends in .parquet, all that is known of each video is written there, and there is no table of times.

--ensemble is short for `livetrain ensemble RUN RUN … --out OUT.ensemble` and --checkpoint OUT.ensemble.

Rows are kept in OUT.partial/ by parts of up to 256 files: the same command resumes; --fresh starts over. Memory does
not grow with the number of files.
--processes: on CUDA one a GPU by default; more than one on the CPU too; with --engine ray, tasks at once (default: one
a GPU of the cluster, or one a core where it has none).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # as in train.py: livetrain/ is first on the path, not its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from livetrain.core import entrypoint
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import write_text
from shards.cli_engine import add_cluster

if TYPE_CHECKING:
    from livetrain.inference.video_scorer import Prediction


def as_json(prediction: Prediction, failed_score: float) -> dict[str, Any]:
    """A prediction as it is printed: with the score that submission.csv has."""
    kept = {name: value for name, value in asdict(prediction).items() if name != "reason" or value}
    return kept | {"liveness_score": failed_score if prediction.p_live is None else prediction.p_live}


def parser() -> Parser:
    """The command line of `livetrain predict`."""
    parser = Parser("predict", __doc__)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--onnx", type=Path, metavar="FILE")
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--names", choices=("name", "path"), default="name")
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--fresh", action="store_true")
    add_cluster(parser)
    return parser


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(options, `key=value`). Raises UserError."""
    options, rest = parser().parse_some(arguments)
    options.files = [Path(item) for item in rest if not _is_override(item)]
    if not options.checkpoint and not options.onnx:
        raise UserError("livetrain predict: --checkpoint is missing: a model package, a run directory, …")
    if options.checkpoint and options.onnx:
        raise UserError("livetrain predict: --checkpoint and --onnx are both given; choose one")
    if options.onnx and options.onnx.suffix != ".onnx":
        raise UserError(f"livetrain predict: --onnx {options.onnx}: no .onnx file; --checkpoint takes all else")
    if bool(options.files) == bool(options.videos):
        raise UserError("livetrain predict: name video files, or a folder of them with --videos DIR and --out FILE")
    if options.videos and not options.out:
        raise UserError("livetrain predict: --videos needs --out, the table to write: --out submission.csv")
    if options.videos:
        from livetrain.inference.score_parts import TIMES

        if options.out.name == TIMES:
            raise UserError(f"livetrain predict: --out {TIMES} is the name of the table of times; choose another")
    if options.engine == "local" and options.ray_address:
        raise UserError("livetrain predict: --ray-address has no effect without --engine ray")
    if options.engine == "ray" and not options.videos:
        raise UserError("livetrain predict: --engine ray is for folders: --videos DIR and --out FILE")
    return options, [item for item in rest if _is_override(item)]


def with_ensemble(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--ensemble RUN …` replaced by an ensemble of these runs.

    It is written beside the table; one of the same runs that is already there is used again. Raises UserError.
    """
    arguments = list(arguments)
    if "--ensemble" not in arguments:
        return arguments
    first = arguments.index("--ensemble")
    count = next((n for n, item in enumerate(arguments[first + 1 :]) if item.startswith("-") or "=" in item), None)
    last = len(arguments) if count is None else first + 1 + count
    sources, rest = arguments[first + 1 : last], arguments[:first] + arguments[last:]
    if other := next((item for item in ("--checkpoint", "--onnx") if item in rest), ""):
        raise UserError(f"livetrain predict: --ensemble and {other} are both given; choose one")
    if "--out" not in rest[:-1] or "--videos" not in rest:
        raise UserError("livetrain predict: --ensemble needs --videos DIR and --out FILE; it is kept beside that table")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("livetrain predict: make the ensemble before many processes start: livetrain ensemble")
    from livetrain.inference import ensemble, package
    from livetrain.inference.predictor import ENSEMBLE

    out = Path(rest[rest.index("--out") + 1])
    folder = out.with_name(f"{out.name}.ensemble")
    if (folder / ENSEMBLE).exists():
        content = json.loads((folder / ENSEMBLE).read_text(encoding="utf-8"))
        made_of = content.get("sources")
        if made_of != sources:
            raise UserError(
                f"{folder} is of other runs ({', '.join(made_of or ())}); remove it, or choose another --out"
            )
        now = {source: package.weights_sha256(Path(source)) for source in sources}
        changed = [source for source in sources if content.get("sources_sha256", now)[source] != now[source]]
        if changed:
            raise UserError(f"{folder} is of other weights of {changed[0]}; remove it, or choose another --out")
    else:
        weights = ensemble.build([Path(source) for source in sources], folder)
        for name, weight in weights.items():
            print(f"{weight:.4f}  {name}", file=sys.stderr)
    return [*rest, "--checkpoint", str(folder)]


def _is_override(item: str) -> bool:
    return "=" in item and not Path(item).exists()


def processes_wanted(options: argparse.Namespace) -> int:
    """How many processes are to work on a folder: as asked, or one a GPU."""
    if options.engine == "ray":
        return 1
    if options.processes or options.onnx:  # ONNX Runtime has a thread a core
        return int(options.processes or 1)
    import torch

    return max(1, torch.cuda.device_count())


def _predict_folder(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    from livetrain.core.engines import RayEngine
    from livetrain.inference import score_folder

    asked = score_folder.Asked(
        options.onnx or options.checkpoint,
        options.videos,
        options.out,
        options.json,
        options.names,
        options.fresh,
        tuple(overrides),
    )
    if options.engine == "ray":
        engine = RayEngine(options.ray_address or "auto", options.processes, is_isolated=False)
        score_folder.by_ray(asked, engine)
    elif options.onnx and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        score_folder.by_this_process(asked)
    else:
        score_folder.by_processes(asked)


def main(arguments: list[str]) -> int:
    """The command line, in this process. Returns the exit code."""

    def run() -> int:
        from livetrain.data import isolated_decode

        options, overrides = parse(with_ensemble(arguments))
        if options.engine == "local":
            isolated_decode.prepare()
        if options.videos:
            _predict_folder(options, overrides)
            return 0
        from livetrain.inference.score_folder import scorer_of

        model = scorer_of(options.onnx or options.checkpoint, overrides)
        missing = [str(path) for path in options.files if not path.is_file()]
        if missing:
            raise UserError(f"livetrain predict: {', '.join(missing)}: no such file")
        found = [as_json(item, model.failed_score) for item in model.predict(options.files)]
        text = json.dumps(found[0] if len(found) == 1 else found, indent=2)
        if options.json:
            write_text(options.json, text + "\n")
        print(text)
        return 0

    return entrypoint.run(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
