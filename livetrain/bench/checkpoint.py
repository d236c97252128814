"""`livetrain bench checkpoint`: how long a checkpoint keeps training waiting, in the background and on the spot.

Real updates of a model and AdamW, and real checkpoints of it (weights and two moments), in one process.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import race
from livetrain.checkpoint import folders, host_copy
from livetrain.checkpoint.async_writer import CheckpointWriter
from livetrain.checkpoint.folders import Checkpoint
from livetrain.config import LossConfig, ModelConfig, OptimConfig
from livetrain.model import build_loss, build_model, build_optimizer

BACKBONE, QUICK_BACKBONE = "vit_large_patch16_224", "vit_tiny_patch16_224"
IMAGE_SIZE = 224


def run(options: Options) -> Report:
    """Stalls in shares of an update, of the large model on a GPU or the CPU."""
    backbone = QUICK_BACKBONE if options.quick else BACKBONE
    num_clips = 16 if options.device == "cpu" else 64
    found = race({backbone: stalls}, [backbone, num_clips, options], rounds=1, title="checkpoint", warm_up=False)[
        backbone
    ]
    if found.error:
        raise RuntimeError(found.error)
    facts = found.facts
    update = facts["update"]
    table = Table(
        f"{backbone}, {facts['parameters'] / 1e6:.0f} M parameters, checkpoint {facts['bytes'] / 1e9:.2f} GB, "
        f"updates of {num_clips} frames in {update:.2f} s; medians.",
        ("", "seconds", "% of an update"),
    )
    for name in (
        "stall, on the spot",
        "stall, background, first",
        "stall, background, later",
        "update beside it, more",
    ):
        table.rows.append((name, facts[name], 100 * facts[name] / update))
    later, spot = facts["stall, background, later"], facts["stall, on the spot"]
    summary = (
        f"A checkpoint of {facts['parameters'] / 1e6:.0f} M parameters keeps training waiting {later:.2f} s, "
        f"{later / update:.1%} of an update; written on the spot, {spot:.2f} s, {spot / update:.1%}."
    )
    return Report(
        "Checkpoints", summary, [table], {"checkpoint: stall on the spot over in the background": spot / later}
    )


def stalls(backbone: str, num_clips: int, options: Options) -> tuple[float, dict[str, Any]]:
    """Updates a second, and the stalls, medians in seconds."""
    device = torch.device(options.device)
    model = build_model(ModelConfig(backbone=backbone), LossConfig(), IMAGE_SIZE).to(device)
    optimizer, loss = build_optimizer(model, OptimConfig(name="adamw")), build_loss(LossConfig())
    clips = torch.randn(num_clips, 1, 3, IMAGE_SIZE, IMAGE_SIZE, device=device)
    labels = torch.ones(num_clips, device=device)

    def update() -> float:
        started = time.perf_counter()
        loss(model(clips), labels).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def on_the_spot(step: int) -> float:
        started = time.perf_counter()
        value = host_copy.snapshot({"model": model.state_dict(), "state": {"optimizer": optimizer.state_dict()}}, {})
        folders.save(folder / "spot", Checkpoint(step, value["model"], None, value["state"]), keep_last=1)
        return time.perf_counter() - started

    options.data.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="checkpoint-", dir=options.data))
    try:
        update()
        plain = [update() for _ in range(options.rounds)]
        spot = [on_the_spot(step) for step in range(options.rounds)]
        shutil.rmtree(folder / "spot")
        waits, beside = [], []
        with CheckpointWriter(folder / "background", keep_last=1, keep_every=0, tell=lambda line: None) as writer:
            for step in range(options.rounds + 1):
                before = writer.stall_seconds
                writer.save(Checkpoint(step, model.state_dict(), None, {"optimizer": optimizer.state_dict()}))
                waits.append(writer.stall_seconds - before)
                beside.append(update())
                writer.wait()
        num_bytes = sum(path.stat().st_size for path in (folder / "background").rglob("*") if path.is_file())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    base = statistics.median(plain)
    return 1 / base, {
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": num_bytes,
        "update": base,
        "stall, on the spot": statistics.median(spot),
        "stall, background, first": waits[0],
        "stall, background, later": statistics.median(waits[1:]),
        "update beside it, more": statistics.median(beside[1:]) - base,
    }
