"""What tests/distributed/test_fsdp.py runs on each of several ranks: the same updates with DDP and in shards.

    main([mode, folder, keys ...])          compare updates; what differs goes into FOLDER/MODE.json
    main([script, replicas, arguments ...])  livetrain.train or livetrain.evaluate, launched with shards

modes: `matrix` has precisions, ways to clip, frozen parts, accumulation and compiled blocks, those that match one of
the keys, as "bf16 agc *"; `optimizers` those of timm's that are named; `replicas` two copies of the shards (HSDP) on
four ranks.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch._dynamo.utils
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from livetrain.config import Config, load_config
from livetrain.core.errors import UserError
from livetrain.data import Batch
from livetrain.distributed import fsdp
from livetrain.model import Ema, build_loss, build_optimizer, build_schedule, prepare_model
from livetrain.training import setup
from livetrain.training.step import Updater
from tests.runs import forget_accelerator

STEPS, SIDE, FRAMES = 3, 64, 2
CLIPS = 2  # of a process and micro-batch


def configuration(folder: Path, *keys: str) -> Config:
    fixed = [
        "data.shards=none", f"run_dir={folder}", "model.backbone=test_vit", f"data.image_size={SIDE}",
        f"data.num_frames={FRAMES}", "optim.lr=1e-3", "optim.warmup_steps=0", "train.max_steps=10", "model.dropout=0.2",
    ]  # fmt: skip
    world = int(os.environ["WORLD_SIZE"])
    batch = next((int(key.partition("=")[2]) for key in keys if key.startswith("train.accumulation=")), 1)
    return load_config([], [*fixed, f"train.global_batch={world * CLIPS * batch}", *keys], warn=lambda line: None)


@contextlib.contextmanager
def accelerator_of(config: Config, *, in_shards: bool, half: bool) -> Iterator[Accelerator]:
    """half: float16 with a gradient scaler, on the CPU: Accelerate has that for GPUs alone."""
    forget_accelerator()
    os.environ |= fsdp.ENVIRONMENT | {"ACCELERATE_USE_FSDP": str(in_shards).lower()}
    accelerator = setup.make_accelerator(config)
    if not half:
        yield accelerator
        return
    # What Accelerate takes on CUDA for either kind (get_fsdp2_grad_scaler, get_grad_scaler).
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    cast = torch.autocast("cpu", torch.float16)
    with mock.patch.object(accelerator, "autocast", lambda: cast):
        yield accelerator


def updates(config: Config, *, in_shards: bool, half: bool, backend: str = "aot_eager") -> dict[str, Any]:
    """Losses and norms of a few updates on made-up clips; weights and their average afterwards."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with accelerator_of(config, in_shards=in_shards, half=half) as accelerator:
        model = setup.make_model(config, accelerator)
        blocks = fsdp.units(model.backbone) if in_shards else None
        prepare_model(
            model, config.model, accelerator.device, accelerator.num_processes, backend=backend, blocks=blocks
        )
        numbers = fsdp.to_meta(model) if in_shards else {}
        ema = Ema(model, 0.9)
        for module in (model, ema.module) if in_shards else ():
            fsdp.shard(module, accelerator, config)
            fsdp.spread(module, numbers)
        optimizer: Any = build_optimizer(model, config.optim)
        schedule = build_schedule(optimizer, config.optim, 10)
        assert accelerator.is_fsdp2 == in_shards
        wrapped, optimizer = setup.prepare(accelerator, model, optimizer)
        updater = Updater(accelerator, config, wrapped, build_loss(config.loss), optimizer, schedule, ema)
        found: dict[str, Any] = {"losses": [], "norms": []}
        for step in range(STEPS):
            result = updater.update(step, batches(config, accelerator, step))
            found["losses"].append(result.figures().loss)
            found["norms"].append(result.figures().grad_norm)
        found["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for name, module in (("weights", model), ("average", ema.module)):
            found[name] = {key: whole(value) for key, value in module.state_dict().items()}
        if in_shards:
            held = sum(value.to_local().numel() for value in model.parameters() if isinstance(value, DTensor))
            found["share"] = held / sum(value.numel() for value in model.parameters())
    return found


def whole(value: torch.Tensor) -> torch.Tensor:
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().float().clone()


def batches(config: Config, accelerator: Accelerator, step: int) -> list[Batch]:
    made = []
    for micro in range(config.train.accumulation):
        seed = (step * 10 + micro) * accelerator.num_processes + accelerator.process_index
        generator = torch.Generator().manual_seed(seed)
        clips = torch.randn(CLIPS, FRAMES, 3, SIDE, SIDE, generator=generator)
        made.append(Batch.made(clips, torch.tensor([0.0, 1.0])))
    return made


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Between two results of `updates`: of losses and norms relative, of weights and averages relative to what the
    updates changed at most (the learning rate times their number).
    """
    relative = {
        name: max(abs(a - b) / abs(a) for a, b in zip(one[name], other[name], strict=True))
        for name in ("losses", "norms")
    }
    for name in ("weights", "average"):
        apart = torch.cat([(one[name][key] - other[name][key]).abs().flatten() for key in one[name]])
        relative[name] = float(apart.mean()) / (STEPS * 1e-3)
    return relative


def matrix(folder: Path, keys: list[str]) -> dict[str, Any]:
    found = {}
    clipping = {"norm": "optim.clip_grad_norm=0.5", "value": "optim.clip_grad_value=0.01", "agc": "optim.clip_agc=0.01"}
    frozen = {"all": [], "frozen": ["model.freeze=[patch_embed,blocks.0]"]}
    for precision, clip, part, micro, compiled in itertools.product(
        ("bf16", "fp16"), clipping, frozen, (1, 2), (False, True)
    ):
        name = f"{precision} {clip} {part} x{micro}{' compiled' if compiled else ''}"
        if not any(fnmatch(name, key) for key in keys):
            continue
        options = [clipping[clip], *frozen[part], f"train.accumulation={micro}", f"model.compile={compiled}"]
        config = configuration(folder, f"train.precision={'bf16' if precision == 'bf16' else 'fp32'}", *options)
        half = precision == "fp16"
        one, other = (updates(config, in_shards=in_shards, half=half) for in_shards in (False, True))
        found[name] = {
            **difference(one, other),
            "share": other["share"],
            "graphs": other["graphs"],
            "finite": all(map(np.isfinite, one["norms"])),
        }
    return found


def optimizers(folder: Path, keys: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in keys:
        config = configuration(folder, f"optim.name={name}", "train.precision=fp32")
        try:
            one, other = (updates(config, in_shards=in_shards, half=False) for in_shards in (False, True))
        except (UserError, NotImplementedError, RuntimeError) as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:200]}
            continue
        found[name] = difference(one, other)
    return found


def replicas(folder: Path, keys: list[str]) -> dict[str, Any]:
    os.environ |= hybrid(2)
    config = configuration(folder, "train.precision=fp32", "optim.clip_agc=0.01", *keys)
    one, other = (updates(config, in_shards=in_shards, half=False) for in_shards in (False, True))
    return {"two": {**difference(one, other), "share": other["share"]}}


def hybrid(number: int) -> dict[str, str]:
    shards = int(os.environ["WORLD_SIZE"]) // number
    prefix = "PARALLELISM_CONFIG_DP_"
    sizes = {f"{prefix}REPLICATE_SIZE": str(number), f"{prefix}SHARD_SIZE": str(shards)}
    return {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", **sizes}


def main(arguments: list[str]) -> int:
    if arguments[0].startswith("livetrain."):
        script, number, *rest = arguments
        os.environ |= fsdp.ENVIRONMENT | (hybrid(int(number)) if int(number) > 1 else {})
        code: int = importlib.import_module(script).main(rest)
        return code
    mode, folder, *keys = arguments
    found = {"matrix": matrix, "optimizers": optimizers, "replicas": replicas}[mode](Path(folder), keys)
    if os.environ["RANK"] == "0":
        (Path(folder) / f"{mode}.json").write_text(json.dumps(found, indent=1))
    torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
