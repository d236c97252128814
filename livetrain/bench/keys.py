"""`livetrain bench keys`: what an option of training costs or saves in time and in memory, each against none of them.

The same updates on one cached batch, each option in a process of its own. What several processes need (ddp.*, FSDP2) is
in `livetrain bench ddp`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
from pathlib import Path

import torch

from livetrain.bench.corpus import clip_sets, make_task
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import Measured, race, ratio
from livetrain.bench.step import Work, cached
from livetrain.core.machine import status_bytes

BASE = "none of them"
KEYS = (
    "train.precision=bf16",
    "model.channels_last=false",
    "model.grad_checkpointing=true",
    "model.compile=true",
    "train.accumulation=2",
    "train.ema_decay=0.999",
    "train.on_non_finite=skip",
    "optim.clip_grad_norm=1",
    "optim.clip_grad_value=0.1",
    "optim.clip_agc=0.01",
    "optim.layer_decay=0.8",
    "optim.name=momentum",
    "model.drop_path=0.1",
    "model.pool=attention",
    "model.pool=transformer",
    "model.pool=difference",
    "model.pool=thumbnail",
    "model.freeze_backbone=true",
    "loss.attack_types=[print,replay]",
)
QUICK_KEYS = KEYS[:3]
NETWORKS = (("convnext_atto", 160),)
LARGE = (("convnext_large", 224), ("vit_large_patch16_224", 224))


def run(options: Options) -> Report:
    """A table a network: time of an update and most memory, with each option."""
    on_gpu = options.device != "cpu"
    shards = make_task(clip_sets(options)[0], options, "resize").shards
    networks = LARGE if on_gpu else NETWORKS
    tables: list[Table] = []
    ratios: dict[str, float] = {}
    for backbone, image_size in networks[:1] if options.quick else networks:
        work = Work(
            shards, backbone, image_size, 32 if on_gpu else 4, "bf16" if on_gpu else "fp32", False,
            24 if on_gpu else 4, options.device,
        )  # fmt: skip
        keys = [key for key in (QUICK_KEYS if options.quick else KEYS) if not (on_gpu and key.endswith("=bf16"))]
        sides = {key: functools.partial(measure, option=key) for key in (BASE, *keys)}
        found = race(sides, [work], rounds=options.rounds, title=f"keys {backbone}", warm_up=False)
        tables.append(_table(f"**{backbone}** at {image_size}", found, work))
        ratios |= {f"keys {backbone} {key}": ratio(found[key], found[BASE]) for key in keys}
    note = (
        "Time of an update over that with none of the options, median of the rounds. Memory: the most that an update "
        + ("takes of the GPU." if on_gpu else "adds to what the process held before the model was made.")
        + " Differences below a tenth are noise."
    )
    return Report("Options of training", note, tables, ratios, ("accelerate",))


def _table(title: str, found: dict[str, Measured], work: Work) -> Table:
    table = Table(
        f"{title}; updates of {work.global_batch} clips of 8 frames, {work.precision}.",
        ("option", "time", "seconds", "memory, MiB", "memory", "remark"),
    )
    base = found[BASE]
    for key, side in found.items():
        seconds = work.global_batch / side.rate
        memory = side.facts.get("memory", float("nan"))
        times, more = 1 / ratio(side, base), memory / base.facts.get("memory", float("nan"))
        table.rows.append((key, times, seconds, memory / 2**20, more, side.error))
    return table


def measure(work: Work, *, option: str) -> tuple[float, dict[str, float]]:
    """(clips/s, {memory: bytes}) of updates with an option."""
    with_it = dataclasses.replace(work, keys=() if option == BASE else (option,))
    if work.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        rate = cached(with_it)
        return rate, {"memory": float(torch.cuda.max_memory_allocated())}
    ctypes.CDLL(None).malloc_trim(0)  # what the pass before has freed is the system's again
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts over here: proc(5)
    rate = cached(with_it)
    return rate, {"memory": float(status_bytes("VmHWM") - before)}
