"""`livetrain bench gpu`: rates on a GPU, in one command of a few minutes that continues where it stopped.

    video   NVDEC through the loader, of original and remuxed shards, against torchcodec's and PyNvVideoCodec's decoders
            on the GPU (those that are installed), at 480p and 1080p
    jpeg    frames shards through the loader against nvJPEG alone (torchvision.io.decode_jpeg) on the same bytes
    step    training that is fed from shards against training on one cached batch, compiled
    shards  the same updates with whole weights and in shards (FSDP2), by one process

Each part that is finished is kept in --data; a second call measures those that are missing. With --device cpu the same
code runs without a GPU (DALI decodes JPEGs there, PyAV videos).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from livetrain.bench import gpu_peers, peers, step
from livetrain.bench.corpus import build_shards, clip_sets, make_task
from livetrain.bench.group import Group
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import Measured, race, ratio
from livetrain.bench.step import Work
from livetrain.config import load_config
from livetrain.core.files import write_json

OURS = "livetrain"
NETWORKS, QUICK_NETWORKS = (("convnext_base", 224), ("vit_large_patch16_224", 224)), (("test_vit", 160),)

Part = tuple[list[Table], dict[str, float]]


def run(options: Options) -> Report:
    """The tables of all parts, in order."""
    parts: dict[str, Callable[[Options], Part]] = {"video": video, "jpeg": jpeg, "step": fed, "shards": in_shards}
    tables: list[Table] = []
    ratios: dict[str, float] = {}
    for name, measure in parts.items():
        found = _kept(options, name) or _measured(options, name, measure)
        tables += found[0]
        ratios |= found[1]
    lines = "\n".join(f"- {name}: {value:.2f}" for name, value in ratios.items())
    return Report("On a GPU", lines, tables, ratios, ("accelerate", "torchvision", "torchcodec", "PyNvVideoCodec"))


def video(options: Options) -> Part:
    """Wanted frames a second, resized and normalised."""
    tables, ratios = [], {}
    for what in clip_sets(options):
        task = make_task(what, options, "resize")
        remuxed = dataclasses.replace(task, shards=build_shards(options, what, "remux"))
        sides: dict[str, Callable[..., Any]] = {OURS: peers.livetrain, **gpu_peers.VIDEO}
        found = race(sides, [task], rounds=options.rounds, title=f"video {what.name}", warm_up=not options.quick)
        again = race({"livetrain, remuxed": peers.livetrain}, [remuxed], rounds=options.rounds, title="remuxed")
        tables.append(
            _rates(f"**Videos, {what.height}p**: decoded, resized to 224, normalised; frames/s.", found | again)
        )
        for name in gpu_peers.VIDEO:
            ratios[f"gpu video {what.height}p over {name}"] = ratio(found[OURS], found[name])
    return tables, ratios


def jpeg(options: Options) -> Part:
    """Wanted frames a second of JPEGs."""
    what = clip_sets(options)[0]
    task = make_task(what, options, "resize", frames=True)
    sides: dict[str, Callable[..., Any]] = {OURS: peers.livetrain_frames, "nvJPEG alone": gpu_peers.jpegs_alone}
    found = race(sides, [task], rounds=options.rounds, title=f"jpeg {what.name}")
    table = _rates(f"**Frames shards, {what.height}p**; nvJPEG alone decodes and does nothing more; frames/s.", found)
    sides = {"the loader's host side": gpu_peers.host_side, "memcpy of the same bytes": gpu_peers.copied}
    host = race(sides, [task], rounds=options.rounds, title="host side")
    one, other = host.values()
    ratios = {"gpu jpeg over nvJPEG alone": ratio(found[OURS], found["nvJPEG alone"])}
    ratios["gpu jpeg, host side over memcpy"] = ratio(one, other)
    return [table, _rates("**The host side of JPEGs**, one thread: bytes and inputs; frames/s.", host)], ratios


def fed(options: Options) -> Part:
    """Clips a second of training."""
    shards = make_task(clip_sets(options)[0], options, "resize", frames=True).frame_shards
    on_gpu = options.device != "cpu"
    tables, ratios = [], {}
    for backbone, size in QUICK_NETWORKS if options.quick or not on_gpu else NETWORKS:
        work = Work(
            shards, backbone, size, 32 if on_gpu else 4, "bf16" if on_gpu else "fp32", on_gpu, 24 if on_gpu else 4,
            options.device,
        )  # fmt: skip
        sides = {"fed": step.livetrain, "cached batch": step.cached}
        found = race(sides, [work], rounds=options.rounds, title=f"step {backbone}")
        tables.append(_rates(f"**Training {backbone}**, frames shards, compiled on a GPU; clips/s.", found))
        ratios[f"gpu step {backbone}, fed over cached"] = ratio(found["fed"], found["cached batch"])
    return tables, ratios


def in_shards(options: Options) -> Part:
    """Losses of three updates, by one process on a GPU; by two on the CPU, where Accelerate has no FSDP for one."""
    world = 2 if options.device == "cpu" else 1
    table = Table(f"**Weights in shards**: losses of three updates, {world} processes.", ("weights", "1", "2", "3"))
    losses = {}
    for name, sharded in (("whole", False), ("in shards (FSDP2)", True)):
        with Group(world, three_updates, on_cpu=options.device == "cpu") as group:
            losses[name] = group.call(sharded)["losses"]
        table.rows.append((name, *(f"{loss:.6f}" for loss in losses[name])))
    one, other = losses.values()
    apart = max(abs(a - b) for a, b in zip(one, other, strict=True))
    return [table], {"gpu losses in shards, 1 - largest difference": 1 - apart}


def _rates(caption: str, found: Mapping[str, Measured]) -> Table:
    table = Table(caption, ("side", "rate", "remark"))
    for name, side in found.items():
        table.rows.append((name, side.rate, side.error))
    return table


# --- parts that are there ---------------------------------------------------------------------------------------------


def _file(options: Options, name: str) -> Path:
    """Of a part: another one for another device, form or number of rounds."""
    device = torch.cuda.get_device_name() if options.device != "cpu" else "cpu"
    digest = hashlib.sha256(f"{device} {options.quick} {options.rounds} {options.height}".encode()).hexdigest()[:8]
    return options.data / f"gpu-{name}-{digest}.json"


def _kept(options: Options, name: str) -> Part | None:
    try:
        found = json.loads(_file(options, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    tables = [
        Table(item["caption"], tuple(item["header"]), [tuple(map(_number, row)) for row in item["rows"]])
        for item in found["tables"]
    ]
    return tables, {name: _number(value) for name, value in found["ratios"].items()}


def _measured(options: Options, name: str, measure: Callable[[Options], Part]) -> Part:
    tables, ratios = measure(options)
    kept = [{"caption": table.caption, "header": table.header, "rows": _plain(table.rows)} for table in tables]
    write_json(_file(options, name), {"tables": kept, "ratios": _plain(ratios)})
    return tables, ratios


def _number(value: Any) -> Any:
    return float("nan") if value is None else value


def _plain(value: Any) -> Any:
    """As JSON takes it: no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value


# --- in the process ---------------------------------------------------------------------------------------------------


def three_updates(sharded_weights: bool) -> dict[str, Any]:
    """Losses of three updates of a small transformer on made-up clips."""
    import os
    import tempfile

    from livetrain.data import Batch
    from livetrain.distributed import fsdp
    from livetrain.model import build_loss, build_optimizer, build_schedule
    from livetrain.training import setup
    from livetrain.training.step import Updater

    os.environ |= fsdp.ENVIRONMENT | {"ACCELERATE_USE_FSDP": str(sharded_weights).lower()}
    with tempfile.TemporaryDirectory(prefix="livetrain-bench-") as folder:
        batch_size = 4 * int(os.environ["WORLD_SIZE"])
        keys = [
            "data.shards=none", f"run_dir={folder}", "model.backbone=test_vit", "data.image_size=160",
            "data.num_frames=2", f"train.global_batch={batch_size}", "optim.warmup_steps=0", "train.precision=bf16",
        ]  # fmt: skip
        config = load_config([], keys, warn=lambda line: None)
        accelerator = setup.make_accelerator(config)
        model = setup.make_model(config, accelerator)
        if sharded_weights:
            fsdp.cut(model, accelerator, config)
        optimizer: Any = build_optimizer(model, config.optim)
        schedule = build_schedule(optimizer, config.optim, 10)
        wrapped, optimizer = setup.prepare(accelerator, model, optimizer)
        updater = Updater(accelerator, config, wrapped, build_loss(config.loss), optimizer, schedule, None)
        device = accelerator.device
        generator = torch.Generator().manual_seed(0)
        clips = torch.randn(4, 2, 3, 160, 160, generator=generator).to(device)
        labels = torch.tensor([0.0, 1.0, 0.0, 1.0], device=device)
        batch = Batch.made(clips, labels)
        return {"losses": [updater.update(number, [batch]).figures().loss for number in range(3)]}
