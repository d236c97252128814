"""`livetrain bench ddp`: what averaging the gradients costs an update, and what each option of `ddp.*` changes.

Real updates (livetrain.training.step) of a network on one batch that is there already, by 1, 2 and 4 gloo processes of
one thread each. Clips a process are the same for every number of processes.

    no all-reduce       each process alone with its gradients: what the rest of the update takes
    one bucket          the all-reduce begins when the backward pass has ended: nothing is hidden
    other loops         DDP as a page of PyTorch, timm's loop and Lightning have it: see ddp_peers.py
    the others          options of `ddp.*`; hidden = (one bucket - this) / (one bucket - no all-reduce)

On a machine with as few cores as processes the sums themselves take the cores that the backward pass needs: there is
nothing to hide behind, and four processes on two cores take turns. The model for GPUs is `livetrain plan`.
"""

from __future__ import annotations

import importlib.util
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from livetrain.bench import ddp_peers
from livetrain.bench.group import Group
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import Measured, ratio
from livetrain.core.machine import num_cores
from livetrain.core.progress import progress

ALONE, ONE_BUCKET, DEFAULT = "no all-reduce", "one bucket, after the backward pass", "DDP as by default (25 MiB, views)"
FSDP = "FSDP2 (shards of weights, gradients, moments)"
WHOLE = "ddp.bucket_mb=100000"
SIDES: dict[str, tuple[str, ...]] = {
    ALONE: (),
    ONE_BUCKET: (WHOLE,),
    DEFAULT: (),
    "buckets of 1 MiB": ("ddp.bucket_mb=1",),
    "buckets of 5 MiB": ("ddp.bucket_mb=5",),
    "buckets of 100 MiB": ("ddp.bucket_mb=100",),
    "ddp.bucket_view=false": ("ddp.bucket_view=false",),
    "ddp.static_graph=true": ("ddp.static_graph=true",),
    "ddp.compression=bf16": ("ddp.compression=bf16",),
    "two micro-batches an update": ("train.accumulation=2",),
    FSDP: (),
} | dict.fromkeys(ddp_peers.PEERS, ())
QUICK_SIDES = (ALONE, ONE_BUCKET, DEFAULT, "ddp.compression=bf16")
BACKBONE, IMAGE_SIZE, NUM_FRAMES = "resnet18", 96, 2
WARM_UP, UPDATES = 2, 6  # DDP rebuilds its buckets after the first update
SMALL_BYTES = 4096


def run(options: Options) -> Report:
    """A table for each number of processes; what the planner is checked against."""
    names = QUICK_SIDES if options.quick else tuple(SIDES)
    if importlib.util.find_spec("lightning") is None:  # extra: bench
        names = tuple(name for name in names if name != ddp_peers.LIGHTNING)
    worlds = (2,) if options.quick else (2, 4)
    ratios: dict[str, float] = {}
    tables: list[Table] = []
    measurements: list[dict[str, Any]] = []
    lines = []
    with Group(1, measure) as group:
        one = statistics.median(group.call(ALONE, 1)["seconds"] for _ in range(options.rounds))
    for world in worlds:
        found, network = _race(world, names, options.rounds)
        table = _table(world, found, network, one)
        tables.append(table)
        if world <= num_cores():  # the planner's processes do not take turns on a core
            measurements += _measurements(world, found, network)
        for name in names:
            if name in ddp_peers.PEERS:
                ratios[f"ddp {world} processes over {name}"] = ratio(found[DEFAULT], found[name])
            elif name not in (ALONE, ONE_BUCKET):
                ratios[f"ddp {world} processes, {name} over no all-reduce"] = ratio(found[name], found[ALONE])
        beside = ", ".join(
            f"{ratio(found[DEFAULT], found[name]):.2f} x {name}" for name in names if name in ddp_peers.PEERS
        )
        lines += [f"- {world} processes: {beside}."] if beside else []
        lines.append(
            f"- {world} processes: the all-reduce of {network['gradient_bytes'] / 1e6:.0f} MB takes "
            f"{network['reduce_seconds'] * 1e3:.0f} ms when nothing else runs "
            f"({network['bandwidth'] / 1e9:.2f} GB/s bus bandwidth); an update is "
            f"{1 / ratio(found[DEFAULT], found[ALONE]):.2f} x as long as without it, of which "
            f"{max(0.0, _hidden(found, DEFAULT)):.0%} is hidden behind the backward pass."
        )
    note = (
        f"{BACKBONE}, {NUM_FRAMES} frames of {IMAGE_SIZE} x {IMAGE_SIZE} a process and micro-batch, AdamW, one thread "
        f"a process on {num_cores()} cores: more processes than cores take turns. Updates in seconds, "
        "median of the rounds; the ratio is its time over that without all-reduce, median of the rounds. Traffic: "
        "bytes over the loopback device an update and process. What is hidden can be below zero where the "
        "sums compete with the backward pass for the cores."
    )
    return Report(
        "Averaging gradients", "\n".join([*lines, "", note]), tables, ratios, ("accelerate",), tuple(measurements)
    )


def _race(world: int, names: tuple[str, ...], rounds: int) -> tuple[dict[str, Measured], dict[str, float]]:
    """(each side's rates and facts, what the all-reduce alone takes), the sides in turn, round after round."""
    found = {name: Measured() for name in names}
    networks = []
    with Group(world, measure) as group, progress(f"ddp, {world} processes", rounds * len(names), "passes") as advance:
        group.call(ALONE, 1)
        for number in range(rounds):
            networks.append(group.call("network", 0))
            for name in names[number % len(names) :] + names[: number % len(names)]:
                facts = group.call(name, UPDATES)
                found[name].rates.append(1 / facts["seconds"])
                found[name].facts = facts
                advance(note=name)
    return found, {key: statistics.median(network[key] for network in networks) for key in networks[0]}


def _hidden(found: dict[str, Measured], name: str) -> float:
    """Share of the all-reduce's cost that the side hides: (one bucket - side) / (one bucket - none), seconds."""
    none, whole, this = (1 / found[side].rate for side in (ALONE, ONE_BUCKET, name))
    return (whole - this) / (whole - none) if whole > none else float("nan")


def _table(world: int, found: dict[str, Measured], network: dict[str, float], one: float) -> Table:
    table = Table(
        f"**{world} processes**; one process alone: {one:.3f} s an update. An all-reduce of "
        f"{network['gradient_bytes'] / 1e6:.1f} MB alone: {network['reduce_seconds'] * 1e3:.1f} ms; of 4 KiB: "
        f"{network['latency'] * 1e3:.2f} ms.",
        ("side", "seconds", "over no all-reduce", "hidden, %", "traffic, MB"),
    )
    for name, side in found.items():
        times = 1 / ratio(side, found[ALONE])
        no_option = (ALONE, FSDP, "two micro-batches an update", *ddp_peers.PEERS)
        hidden = float("nan") if name in no_option else 100 * _hidden(found, name)
        table.rows.append((name, 1 / side.rate, times, hidden, side.facts["traffic"] / 1e6))
    return table


def _measurements(world: int, found: dict[str, Measured], network: dict[str, float]) -> list[dict[str, Any]]:
    """What `livetrain.planner.check` recomputes: an update's seconds from its parts."""
    buckets = {"buckets of 1 MiB": 1.0, "buckets of 5 MiB": 5.0, "buckets of 100 MiB": 100.0, ONE_BUCKET: 1e5}
    sides = {name: buckets.get(name, 25.0) for name in found if name in buckets or name == DEFAULT}
    return [
        {
            "kind": "update",
            "name": f"{world} processes, {name}",
            "measured": 1 / found[name].rate,
            "inputs": {
                "compute_seconds": 1 / found[ALONE].rate,
                "gradient_bytes": network["gradient_bytes"],
                "bucket_bytes": bucket * 2**20,
                "world": world,
                "bandwidth": network["bandwidth"],
                "latency": network["latency"],
                "overlaps": False,
            },
        }  # fmt: skip
        for name, bucket in sides.items()
    ]


# --- in the processes -------------------------------------------------------------------------------------------------


def measure(name: str, num_updates: int) -> dict[str, Any]:
    """Seconds and loopback bytes of an update of the side; name "network": of an all-reduce alone."""
    import psutil
    import torch

    with updater(name, BACKBONE, IMAGE_SIZE) as (accelerator, parts, batches):
        if name == "network":
            return _network(parts.parameters)
        if name in ddp_peers.PEERS:
            return {"seconds": ddp_peers.measure(name, parts, batches[0], WARM_UP, num_updates), "traffic": math.nan}
        for step in range(WARM_UP):
            parts.update(step, batches)
        accelerator.wait_for_everyone()
        sent = psutil.net_io_counters(pernic=True)["lo"].bytes_sent
        times = []
        for step in range(WARM_UP, WARM_UP + num_updates):
            started = time.perf_counter()
            parts.update(step, batches)  # ends with a sum over the processes: nobody is ahead
            times.append(time.perf_counter() - started)
        accelerator.wait_for_everyone()
        seconds = statistics.median(times)  # a neighbour on the machine spoils one update, not the figure
        sent = psutil.net_io_counters(pernic=True)["lo"].bytes_sent - sent
        assert all(bool(torch.isfinite(p).all()) for p in parts.parameters[:1])
        return {"seconds": seconds, "traffic": sent / num_updates / accelerator.num_processes}


def _network(parameters: list[Any]) -> dict[str, float]:
    """Median seconds of an all-reduce of all gradients, of a small one, and bytes/s.

    The rate is over the time that the large one takes longer.
    """
    import torch
    from torch import distributed

    num_bytes = 4 * sum(p.numel() for p in parameters)
    seconds = {}
    for size in (SMALL_BYTES, num_bytes):
        tensor = torch.ones(size // 4)
        times = []
        for _ in range(8):
            distributed.barrier()
            started = time.perf_counter()
            distributed.all_reduce(tensor)
            times.append(time.perf_counter() - started)
            tensor.fill_(1)
        seconds[size] = statistics.median(times[1:])
    world = distributed.get_world_size()
    moving = max(seconds[num_bytes] - seconds[SMALL_BYTES], 1e-9)
    return {
        "gradient_bytes": float(num_bytes),
        "reduce_seconds": seconds[num_bytes],
        "latency": seconds[SMALL_BYTES],
        "bandwidth": 2 * (world - 1) / world * num_bytes / moving,
    }


@contextmanager
def updater(name: str, backbone: str, image_size: int) -> Iterator[Any]:
    """(accelerator, Updater of the side, its micro-batches), the process group kept from pass to pass."""
    import torch
    from accelerate.state import AcceleratorState, GradientState

    from livetrain.config import load_config
    from livetrain.data import Batch
    from livetrain.distributed import fsdp
    from livetrain.model import build_loss, build_optimizer, build_schedule
    from livetrain.training import setup
    from livetrain.training.step import Updater

    AcceleratorState._reset_state(reset_partial_state=True)  # FSDP2 leaves its mark there; the process group stays
    GradientState._reset_state()
    os.environ |= fsdp.ENVIRONMENT | {"ACCELERATE_USE_FSDP": str(name == FSDP).lower()}
    world = int(os.environ["WORLD_SIZE"])
    options = SIDES.get(name, ())
    micro = 2 if "train.accumulation=2" in options else 1
    with tempfile.TemporaryDirectory(prefix="livetrain-bench-") as folder:
        keys = [
            "data.shards=none", f"run_dir={folder}", f"model.backbone={backbone}", f"data.image_size={image_size}",
            f"data.num_frames={NUM_FRAMES}", f"train.global_batch={world * micro}",
        ]  # fmt: skip
        config = load_config([], [*keys, *options], warn=lambda line: None)
        accelerator = setup.make_accelerator(config)
        model = setup.make_model(config, accelerator)
        if name == FSDP:
            fsdp.cut(model, accelerator, config)
        optimizer: Any = build_optimizer(model, config.optim)
        schedule = build_schedule(optimizer, config.optim, 1000)
        wrapped: Any = model
        if name not in (ALONE, "network", *ddp_peers.PEERS):
            wrapped, optimizer = setup.prepare(accelerator, model, optimizer)
        parts = Updater(accelerator, config, wrapped, build_loss(config.loss), optimizer, schedule, None)
        batch = Batch.made(torch.randn(1, NUM_FRAMES, 3, image_size, image_size), torch.ones(1))
        yield accelerator, parts, [batch] * micro
