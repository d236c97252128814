"""`livetrain bench evaluation`: what an evaluation costs beyond scoring: the scores of all processes joined into rows.

Four processes have scored a split of very many videos (made-up scores; the index is real, of a folder that repeats a
few clips). Measured is what follows the last batch of a dev evaluation: gathering, and one row a video on the first.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from livetrain.bench.corpus import clip_sets, make_task
from livetrain.bench.group import Group
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.synthetic import make_folder
from livetrain.config import load_config
from livetrain.core.machine import status_bytes

WORLD, BATCH = 4, 32
COUNTS, QUICK_COUNTS = (100_000, 1_000_000), (20_000,)


def run(options: Options) -> Report:
    """A row for each number of videos, medians of the rounds."""
    real = make_task(clip_sets(options)[0], options, "decode").shards
    table = Table(
        f"Joining the scores of {WORLD} processes. Memory: most of the first process, and of the one of the others "
        "that has most, above what each has with its scores; MiB. The evaluation of a test split keeps what was seen "
        "of each clip besides.",
        ("videos", "seconds", "us a video", "memory, first", "bytes a video", "memory, others"),
    )
    ratios: dict[str, float] = {}
    for count in QUICK_COUNTS if options.quick else COUNTS:
        folder = make_folder(real, options.data / f"joined-{count}", count, 4)
        with Group(WORLD, measure) as group:
            found = [group.call_all(str(folder)) for _ in range(options.rounds)]
        first = sorted((facts[0] for facts in found), key=lambda one: one["seconds"])[len(found) // 2]
        others = max(one["memory"] for facts in found for one in facts[1:])
        most = max(facts[0]["memory"] for facts in found)
        videos = int(first["videos"])
        seconds = float(first["seconds"])
        table.rows.append((videos, seconds, 1e6 * seconds / videos, most / 2**20, most / videos, others / 2**20))
    return Report("Joining an evaluation", "", [table], ratios)


# --- in the processes -------------------------------------------------------------------------------------------------


def measure(folder: str) -> dict[str, Any]:
    """Videos, seconds, and bytes of memory above what the process has with its scores."""
    import numpy as np
    from accelerate import Accelerator

    from livetrain.data import Dataset
    from livetrain.evaluation import evaluator

    accelerator = Accelerator(cpu=True)
    config = load_config([], [f"data.shards={folder}", f"run_dir={folder}/run"], warn=lambda line: None)
    dataset = Dataset.open(folder)
    rows = dataset.rows("train")
    mine = rows[accelerator.process_index :: WORLD].astype(np.int64)
    scores = np.random.default_rng(accelerator.process_index).random(len(mine))
    batches = [slice(at, at + BATCH) for at in range(0, len(mine), BATCH)]
    parts = [evaluator._Part(mine[at], scores[at], scores[at], scores[at], []) for at in batches]
    accelerator.wait_for_everyone()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
    before = status_bytes("VmRSS")
    started = time.perf_counter()
    gathered = evaluator._gathered(parts, accelerator)
    if accelerator.is_main_process:
        made = evaluator._joined(dataset, config, "train", "bench", gathered, [], with_details=False)
        assert len(made.scores) == len(rows)
    accelerator.wait_for_everyone()
    seconds = time.perf_counter() - started
    memory = status_bytes("VmHWM") - before
    dataset.close()
    return {"videos": len(rows), "seconds": seconds, "memory": memory}
