"""Score raw videos; no shards needed, no labels read.

    livetrain predict --checkpoint C --videos DIR --out submission.csv [--json FILE] [--processes N] [key=value …]
    livetrain predict --checkpoint C VIDEO …                 # prints JSON
    livetrain predict --ensemble RUN RUN … --videos DIR --out submission.csv   # weights fitted on dev
    accelerate launch … livetrain/predict.py --checkpoint C --videos DIR --out submission.csv      # several nodes

C is a model package, a run directory, a checkpoint's folder or an ensemble's. Every video file below DIR gets a row
in submission.csv (fname,liveness_score) and in time_submission.csv beside it (fname,time in milliseconds); one that
cannot be decoded gets predict.failed_score, is counted and reported with its reason. `fname` is the file's name, with
`--names path` its path below DIR.

The time is a file's share of the wall time of its batch, from the end of the batch before, reading and decoding
included: the times of a process add up to its wall time. For times of files alone: eval.batch_size=1 data.prefetch=1.

--ensemble is short for `livetrain ensemble RUN RUN … --out OUT.ensemble` and --checkpoint OUT.ensemble.

Rows are kept in OUT.partial/ as they are made: the same command resumes; --fresh starts over.
--processes: on CUDA one a GPU by default; more than one on the CPU too.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # as in train.py: livetrain/ is first on the path, not its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from livetrain.core import entrypoint
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import write_json, write_text
from livetrain.core.progress import progress
from livetrain.core.world import World
from shards.labels import find_videos

if TYPE_CHECKING:
    from livetrain.inference.predictor import Predictor

TIMES = "time_submission.csv"
WHAT = {"videos": "videos", "models": "weights or settings of the model", "overrides": "options key=value"}
MAX_REPORTED = 20  # failures that are reported one by one
PATIENCE = timedelta(days=7)  # a process may wait so long for the others at the end


def predict_folder(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Score every video below options.videos into options.out. Every process calls it."""
    import torch
    from accelerate import PartialState

    from livetrain.inference.predictor import load_model

    names = find_videos(options.videos)
    labels = _row_names(names, options.names)
    on_cpu = os.environ.get("ACCELERATE_USE_CPU") == "1" or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=PATIENCE)
    model = load_model(options.checkpoint, *overrides, device=state.device)
    rows = Rows(options.out, _request(model, options, overrides))
    if state.is_main_process:
        rows.begin(fresh=options.fresh)
    state.wait_for_everyone()
    known = rows.read()
    stamps = [_stamp(options.videos, name) for name in names]
    todo = [name for name, stamp in zip(names, stamps, strict=True) if stamp not in known]
    state.wait_for_everyone()  # all have read before one writes
    if state.is_main_process and len(todo) < len(names):
        print(f"continuing: {len(names) - len(todo)} of {len(names)} videos are scored", file=sys.stderr)
    mine = todo[state.process_index :: state.num_processes]
    _score(model, options.videos, mine, rows.file(state.process_index), state)
    state.wait_for_everyone()
    if state.is_main_process:
        done = rows.read()
        _write(options, model, labels, [done[stamp] for stamp in stamps])
        rows.remove()


class Rows:
    """Rows as they are made: OUT.partial/ with the request they answer and a file of JSON lines a process."""

    def __init__(self, out: Path, request: dict[str, Any]) -> None:
        self.folder = out.with_name(f"{out.name}.partial")
        self.request = request

    def begin(self, *, fresh: bool) -> None:
        """Make the folder, without what is there when it is to another request or to begin `fresh`."""
        file = self.folder / "request.json"
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        if fresh or before != self.request:
            differing = [WHAT[key] for key in self.request if before.get(key) != self.request[key]]
            if differing and not fresh and self.folder.exists():
                print(f"{self.folder} is of other {' and '.join(differing)}: it is made again", file=sys.stderr)
            self.remove()
        write_json(file, self.request)

    def file(self, rank: int) -> Path:
        """Where a process writes."""
        return self.folder / f"rows-{rank:05d}.jsonl"

    def read(self) -> dict[str, dict[str, Any]]:
        """Rows by the stamp of their file; lines that a kill cut are passed over."""
        known: dict[str, dict[str, Any]] = {}
        for path in sorted(self.folder.glob("rows-*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    known[row["stamp"]] = row
        return known

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _score(model: Predictor, folder: Path, names: list[str], file: Path, state: Any) -> None:
    """Append a line for each of the videos `names` to `file`, a batch at a time."""
    import numpy as np

    local_size = World.of(state).local_size
    files = model.files([folder / name for name in names], local_size)
    stamps = iter([_stamp(folder, name) for name in names])
    bar = progress("predicting", len(names), "videos", enabled=state.is_main_process)
    try:
        with file.open("a", encoding="utf-8") as out, bar as advance:
            out.write("\n")  # what a kill cut must not swallow the next line
            if not names:
                return
            rows = np.arange(len(names))
            for batch in model.score(files, rows, batch_size=model.batch_size, local_size=local_size):
                for prediction in batch:
                    out.write(json.dumps({"stamp": next(stamps), **asdict(prediction)}) + "\n")
                out.flush()
                advance(len(batch))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}; free some space and run it again") from error


def _write(options: argparse.Namespace, model: Predictor, labels: list[str], rows: list[dict[str, Any]]) -> None:
    """The tables, and what is reported."""
    scores = [f"{_score_of(row, model):.9g}" for row in rows]
    times = [f"{1000 * row['seconds']:.3f}" for row in rows]
    write_text(options.out, _csv(("fname", "liveness_score"), labels, scores))
    write_text(options.out.with_name(TIMES), _csv(("fname", "time"), labels, times))
    if options.json:
        write_json(options.json, [as_json(row, model) for row in rows])
    failed = [(label, row["reason"]) for label, row in zip(labels, rows, strict=True) if row["status"] != "ok"]
    for label, reason in failed[:MAX_REPORTED]:
        print(f"warning: {label} got {model.failed_score:g}: {reason}", file=sys.stderr)
    if len(failed) > MAX_REPORTED:
        reason, count = Counter(reason for _, reason in failed).most_common(1)[0]
        print(f"warning: and {len(failed) - MAX_REPORTED} more; most often ({count} times): {reason}", file=sys.stderr)
    print(f"{options.out}: {len(rows)} videos, {len(failed)} of them got no score", flush=True)


def as_json(row: dict[str, Any], model: Predictor) -> dict[str, Any]:
    """A prediction as it is printed: with the score that submission.csv has."""
    kept = {name: value for name, value in row.items() if name != "stamp" and (name != "reason" or value)}
    return kept | {"liveness_score": _score_of(row, model)}


def _score_of(row: dict[str, Any], model: Predictor) -> float:
    return model.failed_score if row["p_live"] is None else float(row["p_live"])


def _csv(header: Sequence[str], *columns: list[str]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *zip(*columns, strict=True)])
    return buffer.getvalue()


def _row_names(names: list[str], kind: str) -> list[str]:
    """What stands in the column fname. Raises UserError for names that are not unique."""
    if kind == "path":
        return names
    short = [Path(name).name for name in names]
    twice = [name for name, count in Counter(short).items() if count > 1]
    if twice:
        raise UserError(f"two videos are called {twice[0]}, in different folders; --names path writes their paths")
    return short


def _stamp(folder: Path, name: str) -> str:
    """What identifies a version of a file without reading it."""
    try:
        status = (folder / name).stat()
    except OSError:
        return f"{name} missing"
    return f"{name} {status.st_size} {status.st_mtime_ns}"


def _request(model: Predictor, options: argparse.Namespace, overrides: Sequence[str]) -> dict[str, Any]:
    """What rows depend on: with another one they are made again."""
    return {
        "videos": str(options.videos.resolve()),
        "models": hashlib.sha256(model.identity().encode()).hexdigest(),
        "overrides": list(overrides),
    }


def parser() -> Parser:
    """The command line of `livetrain predict`."""
    parser = Parser("predict", __doc__)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--names", choices=("name", "path"), default="name")
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--fresh", action="store_true")
    return parser


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(options, `key=value`). Raises UserError."""
    options, rest = parser().parse_some(arguments)
    options.files = [Path(item) for item in rest if not _is_override(item)]
    if not options.checkpoint:
        raise UserError("livetrain predict: --checkpoint is missing: a model package, a run directory, …")
    if bool(options.files) == bool(options.videos):
        raise UserError("livetrain predict: name video files, or a folder of them with --videos DIR and --out FILE")
    if options.videos and not options.out:
        raise UserError("livetrain predict: --videos needs --out, the table to write: --out submission.csv")
    if options.out and options.out.name == TIMES:
        raise UserError(f"livetrain predict: --out {TIMES} is the name of the table of times; choose another")
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
    if "--checkpoint" in rest:
        raise UserError("livetrain predict: --ensemble and --checkpoint are both given; choose one")
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
    if options.processes:
        return int(options.processes)
    import torch

    return max(1, torch.cuda.device_count())


def main(arguments: list[str]) -> int:
    """The command line, in this process. Returns the exit code."""

    def run() -> int:
        options, overrides = parse(with_ensemble(arguments))
        if options.videos:
            predict_folder(options, overrides)
            return 0
        from livetrain.inference.predictor import load_model

        model = load_model(options.checkpoint, *overrides)
        missing = [str(path) for path in options.files if not path.is_file()]
        if missing:
            raise UserError(f"livetrain predict: {', '.join(missing)}: no such file")
        found = [as_json(asdict(item), model) for item in model.predict(options.files)]
        text = json.dumps(found[0] if len(found) == 1 else found, indent=2)
        if options.json:
            write_text(options.json, text + "\n")
        print(text)
        return 0

    return entrypoint.run(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
