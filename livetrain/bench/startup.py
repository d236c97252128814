"""`livetrain bench startup`: from nothing to the first batch, against the imports that every such program has.

Each pass is a process of its own, timed from outside, with the files it reads in the page cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from livetrain.bench.clips import ClipSet
from livetrain.bench.corpus import make_task
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import Measured, race, ratio

IMPORTS, TRAIN, EVALUATE, PREDICT = (
    "import torch, timm, accelerate", "train, first batch", "evaluate, first batch", "predict one clip",
)  # fmt: skip
PARTS = ("imports", "data set, model, optimizer", "pipelines, first decode")

# The program up to its first batch; when the imports were done and when the loader was made goes to stdout.
FIRST_BATCH = """
import importlib, json, os, sys, time
started = time.perf_counter()
script, arguments = sys.argv[1], sys.argv[2:]
entry = importlib.import_module(f"livetrain.{script}")
from livetrain.data import loader
from livetrain.evaluation import final
if script == "train":
    from livetrain.training import trainer
marks = [time.perf_counter() - started]
make, iterate = loader.Loader.__init__, loader.Loader.__iter__

def made(self, *given, **named):
    marks.append(time.perf_counter() - started)
    make(self, *given, **named)

def first(self):
    for batch in iterate(self):
        print(json.dumps([*marks[:2], time.perf_counter() - started]), flush=True)
        os._exit(0)

loader.Loader.__init__, loader.Loader.__iter__ = made, first
sys.exit(entry.main(arguments))
"""


@dataclass(frozen=True)
class Work:
    """shards: to train on. run: of a finished training. video: to predict."""

    shards: Path
    run: Path
    video: Path


def run(options: Options) -> Report:
    """Seconds of each program, and what the first batch of training takes by part."""
    task = make_task(ClipSet(320, 240, num_clips=8), options, "resize")
    with tempfile.TemporaryDirectory(prefix="livetrain-bench-") as folder:
        work = Work(task.shards, Path(folder) / "run", task.videos[0])
        _train_once(work)
        sides = {IMPORTS: imports, TRAIN: train, EVALUATE: evaluate, PREDICT: predict}
        found = race(sides, [work], rounds=options.rounds, title="start-up", warm_up=not options.quick)
    for side in found.values():
        if side.error:
            raise RuntimeError(side.error)
    table = Table(
        "Seconds from the start of the process, median; ratio: over the imports, median of the rounds.",
        ("program", "seconds", "ratio"),
    )
    for name, side in found.items():
        table.rows.append((name, 1 / side.rate, ratio(found[IMPORTS], side)))
    parts = Table("The first batch of training by part, last round.", ("part", "seconds"))
    parts.rows += list(zip(PARTS, _parts(found[TRAIN]), strict=True))
    ratios = {f"start-up: imports over {name}": ratio(side, found[IMPORTS]) for name, side in found.items()}
    ratios.pop(f"start-up: imports over {IMPORTS}")
    summary = "; ".join(f"{name}: {1 / value:.2f} x the imports" for name, value in ratios.items())
    return Report("Start-up", summary.replace("start-up: imports over ", ""), [table, parts], ratios)


def _parts(side: Measured) -> list[float]:
    marks = side.facts["marks"]
    return [marks[0], marks[1] - marks[0], marks[2] - marks[1]]


def _keys(work: Work) -> list[str]:
    keys = [f"data.shards={work.shards}", f"run_dir={work.run}", "model.backbone=test_resnet"]
    return [*keys, "train.max_steps=1", "train.global_batch=2", "data.image_size=112", "tracking.wandb=disabled"]


def _train_once(work: Work) -> None:
    command = [sys.executable, "-m", "livetrain.train", *_keys(work)]
    subprocess.run(command, check=True, capture_output=True)


def imports(work: Work) -> float:
    """What every training script imports."""
    return _timed([sys.executable, "-c", IMPORTS])[0]


def train(work: Work) -> tuple[float, dict[str, list[float]]]:
    """`livetrain/train.py` in a new run's folder."""
    with tempfile.TemporaryDirectory(prefix="livetrain-bench-") as folder:
        keys = [*_keys(work), f"run_dir={folder}/run"]
        rate, printed = _timed([sys.executable, "-c", FIRST_BATCH, "train", *keys])
    return rate, {"marks": json.loads(printed)}


def evaluate(work: Work) -> float:
    """`livetrain/evaluate.py` of the finished run."""
    return _timed([sys.executable, "-c", FIRST_BATCH, "evaluate", str(work.run)])[0]


def predict(work: Work) -> float:
    """`livetrain predict` of one clip, to its end."""
    return _timed([sys.executable, "-m", "livetrain.predict", "--checkpoint", str(work.run), str(work.video)])[0]


def _timed(command: list[str]) -> tuple[float, str]:
    """(one over the seconds of a process, what it printed)."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    return 1 / seconds, done.stdout
