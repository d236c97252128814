"""`livetrain bench memory`: what a process of a run holds at most, with whole weights (DDP) and in shards (FSDP2).

Whole runs on CPU processes, where memory is what the kernel says it is: a first one that starts, trains two updates,
evaluates and writes a checkpoint and the best weights; and one that resumes from that checkpoint. The moving average of
the weights, which is left out, adds one more copy of them, or of a process's shards. Pages that are shared with other
processes (libraries) are in both. On a GPU the same tensors lie in its memory, but for the copy that a checkpoint is
written from.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from livetrain.bench.corpus import clip_sets, make_task
from livetrain.bench.group import Group
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.config import load_config
from livetrain.core.machine import status_bytes
from livetrain.core.progress import progress
from livetrain.tracking.run_dir import RunDir

BASE, LARGE, QUICK_BACKBONE = "vit_base_patch16_224", "vit_large_patch16_224", "vit_tiny_patch16_224"
# (backbone, processes with whole weights, processes with shards): four of the large one with whole weights take 35 GB.
RUNS, QUICK = ((BASE, 4, 4), (LARGE, 2, 4)), ((QUICK_BACKBONE, 2, 2),)
STAGES = ("start", "resume")


def run(options: Options) -> Report:
    """A table with a row for each backbone, kind and stage."""
    shards = make_task(clip_sets(options)[0], options, "decode").shards
    table = Table(
        "Resident memory of the process that holds most, at most (VmHWM), and that above what it has before it makes "
        "the model; MiB. share: of what DDP takes above it. read: bytes that the first process and the one of the "
        "others with the most read from files (rchar); MB.",
        ("backbone", "weights", "processes", "stage", "most", "above", "share", "read, first", "read, others"),
    )
    ratios: dict[str, float] = {}
    wanted = QUICK if options.quick else RUNS
    with progress("memory", len(wanted) * 4, "runs") as advance:
        for backbone, num_whole, num_sharded in wanted:
            whole: dict[str, float] = {}
            for kind, world in (("whole (DDP)", num_whole), ("shards (FSDP2)", num_sharded)):
                with tempfile.TemporaryDirectory(prefix="livetrain-bench-") as folder:
                    for stage in STAGES:
                        with Group(world, measure) as group:
                            facts = group.call_all(stage, kind != "whole (DDP)", backbone, str(shards), folder)
                        above, most = max((one["most"] - one["before"], one["most"]) for one in facts)
                        whole.setdefault(stage, above)
                        share = above / whole[stage]
                        first, *others = [one["read"] / 1e6 for one in facts]
                        sizes = most / 2**20, above / 2**20
                        table.rows.append((backbone, kind, world, stage, *sizes, f"{share:.0%}", first, max(others)))
                        if kind != "whole (DDP)":
                            ratios[f"memory: DDP over FSDP2, {backbone}, {stage}"] = 1 / share
                        advance(note=f"{backbone}, {kind}, {stage}")
    lines = [f"- {name.removeprefix('memory: ')}: {value:.2f}" for name, value in ratios.items()]
    return Report("Memory of a process", "\n".join(lines), [table], ratios, ("accelerate",))


# --- in the processes -------------------------------------------------------------------------------------------------


def measure(stage: str, in_shards: bool, backbone: str, shards: str, folder: str) -> dict[str, Any]:
    """Bytes before the model is made and at most, and read from files, of a whole run."""
    import timm  # noqa: F401 - what every process imports is not part of the figure

    from livetrain import train
    from livetrain.distributed import fsdp  # noqa: F401
    from livetrain.distributed.preemption import StopRequest

    os.environ |= fsdp.ENVIRONMENT | {"ACCELERATE_USE_FSDP": str(in_shards).lower()}
    world = int(os.environ["WORLD_SIZE"])
    run_dir = Path(folder) / "run"
    if stage == "resume" and os.environ["RANK"] == "0":
        for name in ("step-00000002", "best-00000002"):
            shutil.rmtree(RunDir(run_dir).checkpoints / name, ignore_errors=True)
    config = load_config(
        [],
        [
            f"data.shards={shards}", f"run_dir={run_dir}", f"model.backbone={backbone}", "data.image_size=224",
            "data.num_frames=1", "eval.num_frames=1", "eval.batch_size=1", f"train.global_batch={world}",
            "train.max_steps=2", "train.save_every_steps=1", "train.eval_every_epochs=0",
            "optim.warmup_steps=0", "tracking.wandb=disabled", "train.keep_last=2", "train.precision=bf16",
        ],
        warn=lambda line: None,
    )  # fmt: skip
    before, read = status_bytes("VmRSS"), _read_bytes()
    with StopRequest() as stop, contextlib.redirect_stdout(io.StringIO()):
        train.train(config, stop)
    return {"before": before, "most": status_bytes("VmHWM"), "read": _read_bytes() - read}


def _read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])
