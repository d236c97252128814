"""What accuracy costs: one model scored with more or fewer frames, views, bits and ensemble members.

    livetrain ablate RUN [--members RUN RUN …] [--frames 1,2,4,8] [--tta none,flip] [--precision fp32,bf16]
                     [--split dev] [--out FILE.csv] [key=value …]

Every combination is scored on the split (dev: the test split is looked at once, at the end). An ensemble of k is the
mean p_live of RUN and the first k - 1 of --members. Printed and written to RUN/ablate.csv: EER, AUC, milliseconds a
clip on this machine (median share of a batch's wall time, reading and decoding included; an ensemble's models are run
one after the other, each with its own decoding), and GFLOP a clip (networks alone). `*` marks the Pareto front: no
other row is at least as good in EER and milliseconds, and better in one. --frames 0 is all frames.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from livetrain.config import Config
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import write_text
from livetrain.core.tables import fitted
from livetrain.evaluation.scoring import num_views
from livetrain.inference.package import Trained, check_faces, load, open_shards
from livetrain.verdict import metrics
from livetrain.verdict.scores import Scores

FILE_NAME = "ablate.csv"
VIEWS = ("none", "flip", "five_crop", "ten_crop")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Row:
    """One combination and what it gave. eer and auc: None where a class is missing."""

    frames: int
    tta: str
    precision: str
    members: int
    eer: float | None
    auc: float | None
    milliseconds: float
    gflop: float
    num_failed: int


def pareto(rows: Sequence[Row]) -> list[bool]:
    """Which rows no other row beats: at least as good in EER and milliseconds, and better in one of them."""

    def beats(one: Row, other: Row) -> bool:
        if one.eer is None or other.eer is None:
            return False
        no_worse = one.eer <= other.eer and one.milliseconds <= other.milliseconds
        return no_worse and (one.eer < other.eer or one.milliseconds < other.milliseconds)

    return [row.eer is not None and not any(beats(other, row) for other in rows) for row in rows]


def measure(
    models: Sequence[Trained], frames: Sequence[int], ttas: Sequence[str], precisions: Sequence[str], split: str
) -> list[Row]:
    """A row for each combination and each ensemble size from 1 to len(models), cheapest settings first."""
    from accelerate import Accelerator

    accelerator = Accelerator()
    config = models[0].config
    dataset = open_shards(config, models[0].path)
    for one in models:
        check_faces(one, dataset)
    for one in models:
        one.model.to(accelerator.device)
    rows = []
    for count, tta, precision in itertools.product(frames, ttas, precisions):
        found = [_score(accelerator, dataset, one, count, tta, precision, split) for one in models]
        for size in range(1, len(models) + 1):
            rows.append(_row(found[:size], count, tta, precision))
    return rows


def _score(
    accelerator: Any, dataset: Any, one: Trained, frames: int, tta: str, precision: str, split: str
) -> tuple[Scores, float]:
    """(scores of the split, GFLOP a clip) of one model."""
    from livetrain.evaluation.evaluator import evaluate
    from livetrain.model import count_flops

    config = settings(one.config, frames, tta, precision)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    arithmetic = torch.autocast(accelerator.device.type, dtype=dtype) if dtype else contextlib.nullcontext()
    with arithmetic:
        found = evaluate(accelerator, config, dataset, split, one.model).scores
    scored = found.num_frames[found.scored]
    side = config.data.image_size
    flops = count_flops(one.model, (1, 3, side, side)) * num_views(config) * (scored.mean() if len(scored) else 0)
    return found, float(flops) / 1e9


def settings(config: Config, frames: int, tta: str, precision: str) -> Config:
    """The configuration of one combination."""
    return dataclasses.replace(
        config,
        eval=dataclasses.replace(config.eval, num_frames=frames, tta=tta),
        train=dataclasses.replace(config.train, precision=precision),
    )


def _row(found: Sequence[tuple[Scores, float]], frames: int, tta: str, precision: str) -> Row:
    from livetrain.inference.ensemble import combine

    scores = combine([one for one, _ in found], np.full(len(found), 1 / len(found)))
    figures = metrics.summary(scores)
    seconds = sum(float(np.median(one.seconds[one.scored])) for one, _ in found if one.scored.any())
    return Row(
        frames,
        tta,
        precision,
        len(found),
        figures["eer"],
        figures["auc"],
        1000 * seconds,
        sum(gflop for _, gflop in found),
        int((~scores.scored).sum()),
    )


COLUMNS = ("frames", "tta", "precision", "members", "eer_percent", "auc", "ms_per_clip", "gflop_per_clip", "failed")


def cells(row: Row) -> list[str]:
    """A row as text, in the order of COLUMNS."""
    eer = "" if row.eer is None else f"{100 * row.eer:.3f}"
    auc = "" if row.auc is None else f"{row.auc:.5f}"
    frames = str(row.frames) if row.frames else "all"
    counts = [frames, row.tta, row.precision, str(row.members)]
    return [*counts, eer, auc, f"{row.milliseconds:.2f}", f"{row.gflop:.3f}", str(row.num_failed)]


def table(rows: Sequence[Row]) -> str:
    """For a terminal: columns, `*` before the rows of the Pareto front."""
    lines = fitted(COLUMNS, [cells(row) for row in rows], 200, right=True)
    marks = [" ", *("*" if best else " " for best in pareto(rows))]
    return "\n".join(f"{mark} {line}" for mark, line in zip(marks, lines, strict=True))


def to_csv(rows: Sequence[Row]) -> str:
    """The table as CSV, with a column `pareto` of 0 and 1."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*COLUMNS, "pareto"])
    writer.writerows([*cells(row), int(best)] for row, best in zip(rows, pareto(rows), strict=True))
    return buffer.getvalue()


def parser() -> Parser:
    """The command line of `livetrain ablate`."""
    parser = Parser("ablate", __doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--members", type=Path, nargs="*", default=[])
    parser.add_argument("--frames", default="1,2,4,8")
    parser.add_argument("--tta", default="none,flip")
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--split", default="")
    parser.add_argument("--out", type=Path)
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    overrides = [item for item in arguments if "=" in item and not item.startswith("-")]
    options = parser().parse([item for item in arguments if item not in overrides])
    precisions = _words("--precision", options.precision, PRECISIONS)
    if "fp16" in precisions and not torch.cuda.is_available():
        raise UserError("--precision fp16 needs a CUDA device; fp32 and bf16 run on the CPU")
    if not all(item.isdigit() for item in options.frames.split(",")):
        raise UserError(f"--frames {options.frames} must be counts with commas between, as 1,2,4,8 (0: all frames)")
    frames = [int(item) for item in options.frames.split(",")]
    ttas = _words("--tta", options.tta, VIEWS)
    models = [load(source, overrides) for source in [options.source, *options.members]]
    rows = measure(models, frames, ttas, precisions, options.split or models[0].config.data.dev_split)
    out = options.out or options.source / FILE_NAME
    write_text(out, to_csv(rows))
    print(table(rows))
    print(out, flush=True)
    return 0


def _words(option: str, text: str, allowed: Sequence[str]) -> list[str]:
    words = text.split(",")
    unknown = [word for word in words if word not in allowed]
    if unknown:
        raise UserError(f"{option} {unknown[0]} is not one of {', '.join(allowed)}")
    return words
