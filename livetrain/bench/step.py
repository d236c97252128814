"""`livetrain bench step`: training as it is against what stops it, and against loops that others would write.

    livetrain            `Trainer.train` on real shards: loader, updates, log lines
    cached batch         the same updates on one batch that is there already: what the loader costs
    plain PyTorch        forward, backward, AdamW on that batch, nothing else: what livetrain costs
    Lightning            the same in a LightningModule
    timm's train.py      the same in its loop, in its order, with its optimizer, scheduler, clipping, meters (the script
                         is not part of the package: written after it, timm 1.0)
    loader alone         livetrain's loader, nobody training; from it and the cached batch `livetrain plan` predicts

All of them train the same network with the same arithmetic. Rates are of updates in the middle of a run. Ratios are of
equal work: livetrain over its own cached batch, and the cached batch over the loops of others, which load nothing.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from livetrain.bench.corpus import clip_sets, make_task
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import Measured, race, ratio
from livetrain.config import Config, load_config
from livetrain.core.world import World
from livetrain.data import Batch, Dataset, train_loader
from livetrain.planner.formulas import lifted_by

OURS, CACHED, PLAIN, LIGHTNING = "livetrain", "livetrain, one cached batch", "plain PyTorch loop", "Lightning"
TIMM, LOADER = "timm's train.py, its loop", "livetrain's loader alone"
LARGE = (
    ("tf_efficientnet_b4", 380),
    ("convnext_large", 224),
    ("swin_large_patch4_window7_224", 224),
    ("vit_large_patch16_224", 224),
    ("eva02_large_patch14_448", 448),
)
QUICK_LARGE = (("convnext_base", 224),)
SMALL = (("resnet18", 96), ("efficientnet_b0", 96))
TINY = "test_resnet"
PEERS = (CACHED, PLAIN, LIGHTNING, TIMM)
QUICK_SIDES = (OURS, CACHED, TIMM)
SKIPPED = 4  # updates before the measured ones
TIMM_LOG_INTERVAL = 50  # updates: its default


@dataclass(frozen=True)
class Work:
    """What a side trains. updates: measured ones. keys: `key=value` of the configuration besides."""

    shards: Path
    backbone: str
    image_size: int
    global_batch: int
    precision: str
    compile: bool
    updates: int
    device: str
    keys: tuple[str, ...] = ()

    def config(self, run_dir: str) -> Config:
        """Its configuration."""
        keys = {
            "data.shards": self.shards, "run_dir": run_dir, "model.backbone": self.backbone,
            "data.image_size": self.image_size, "data.num_frames": 8, "train.global_batch": self.global_batch,
            "train.precision": self.precision, "model.compile": self.compile, "train.log_every": 2,
            "train.max_steps": SKIPPED + self.updates, "train.eval_every_epochs": 0, "train.save_every_steps": 0,
            "tracking.wandb": "disabled", "data.dev_split": "dev", "data.test_split": "test",
        }  # fmt: skip
        given = [f"{name}={value}" for name, value in keys.items()]
        return load_config([], [*given, *self.keys], warn=lambda line: None)


def run(options: Options) -> Report:
    """A table of networks, eager and (on a GPU) compiled."""
    on_gpu = options.device != "cpu"
    num_frames = 2 if options.quick else 8
    shards = make_task(clip_sets(options)[0], options, "resize").shards
    table = Table(
        f"Clips of {num_frames} frames; {'bf16' if on_gpu else 'fp32'}. Ratios, medians of the rounds: livetrain over "
        "its cached batch and its loader; the cached batch over each of the other loops, which train on that batch. "
        "Data wait: share of the time that training waited for clips.",
        ("network", "side", "ratio", "clips/s", "data wait, %", "MFU, %", "GPU memory, GiB", "remark"),
    )
    ratios: dict[str, float] = {}
    measurements: list[dict[str, Any]] = []
    limits: list[str] = []
    large, small = (QUICK_LARGE, SMALL[:1]) if options.quick else (LARGE, SMALL)
    for backbone, image_size in large if on_gpu else small:
        for compiled in (False, True) if on_gpu and not options.quick else (False,):
            work = Work(
                shards, backbone, image_size, 32 if on_gpu else 4, "bf16" if on_gpu else "fp32", compiled,
                24 if on_gpu and not options.quick else 8, options.device, (f"data.num_frames={num_frames}",),
            )  # fmt: skip
            sides = {
                OURS: livetrain,
                CACHED: cached,
                PLAIN: plain,
                LIGHTNING: lightning,
                TIMM: timm_loop,
                LOADER: loader,
            }
            if options.quick:
                sides = {side: sides[side] for side in QUICK_SIDES}
            found = race(sides, [work], rounds=options.rounds, title=f"step {backbone}", warm_up=not options.quick)
            name = f"{backbone}@{image_size}{' compiled' if compiled else ''}"
            _add(table, name, found)
            if ratio(found[OURS], found[CACHED]) < 0.95:
                wait = found[OURS].facts["data_wait_percent"]
                why = "decoding is the limit" if on_gpu else "loading takes its share of the cores"
                limits.append(
                    f" {name}: {why}, training waited {wait:.0f} % of the time for clips; what lifts it: "
                    f"{lifted_by('original')}."
                )
            if all(side in found and found[side].rates for side in (OURS, CACHED, LOADER)):
                parts = {"compute_rate": found[CACHED].rate, "loader_rate": found[LOADER].rate}
                measurements.append({"kind": "training", "name": name, "measured": found[OURS].rate,
                                     "inputs": parts | {"shares_cores": not on_gpu}})  # fmt: skip
            for side in (side for side in PEERS if side in found):
                ratios[f"step {name} over {side}"] = at_equal_work(found, side)
    tiny = Work(
        shards, TINY, 64, 1, "fp32", False, 50 if options.quick else 200, options.device, ("data.num_frames=1",)
    )  # fmt: skip
    found = race(
        {CACHED: cached, PLAIN: plain}, [tiny], rounds=options.rounds, title=f"step {TINY}", warm_up=not options.quick
    )
    overhead = Table(
        f"Where Python shows: {TINY}, one frame of 64 x 64, a clip an update, the batch there already.",
        ("side", "livetrain's ratio", "µs an update"),
    )
    overhead.rows += [(name, ratio(found[CACHED], side), 1e6 / side.rate) for name, side in found.items()]
    ratios[f"step overhead over {PLAIN}"] = ratio(found[CACHED], found[PLAIN])
    peers = QUICK_SIDES[1:] if options.quick else PEERS
    worst = {side: min(v for n, v in ratios.items() if n.endswith(side) and "@" in n) for side in peers}
    summary = f"At worst, livetrain trains at {worst.pop(CACHED):.2f} x its cached batch, and the cached batch at "
    summary += ", ".join(f"{value:.2f} x {side}" for side, value in worst.items()) + "."
    summary += "".join(limits)
    summary += f" With {TINY} an update takes {1 / ratio(found[CACHED], found[PLAIN]):.2f} x the plain loop's time."
    return Report("Training", summary, [table, overhead], ratios, ("accelerate", "lightning"), measurements)


def at_equal_work(found: Mapping[str, Measured], side: str) -> float:
    """Livetrain's rate over the side's: the cached batch's for a loop that has its batch, like it."""
    return ratio(found[CACHED if side in (PLAIN, LIGHTNING, TIMM) else OURS], found[side])


def _add(table: Table, name: str, found: dict[str, Measured]) -> None:
    missing = float("nan")
    for side, measured in found.items():
        facts = [measured.facts.get(key, missing) for key in ("data_wait_percent", "mfu_percent", "gpu_memory_gib")]
        table.rows.append((name, side, at_equal_work(found, side), measured.rate, *facts, measured.error))


def livetrain(work: Work) -> tuple[float, dict[str, float]]:
    """`Trainer.train`, as a run does it; figures from its own log lines."""
    from livetrain.distributed.preemption import StopRequest
    from livetrain.training.trainer import Trainer

    with _prepared(work) as (config, accelerator, dataset, parts), StopRequest() as stop:
        with Trainer(config, accelerator, dataset, parts, None, lambda line: None, stop) as trainer:
            trainer.train()
        lines = (Path(config.run_dir) / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "train" and record["step"] > SKIPPED]
    figures = ("samples_per_second", "data_wait_percent", "mfu_percent", "gpu_memory_gib")
    medians = {name: statistics.median(r[name] for r in records) for name in figures if name in records[0]}
    return medians.pop("samples_per_second"), medians


def cached(work: Work) -> float:
    """The same updates, again and again on the run's first batch."""
    with _prepared(work) as (config, accelerator, dataset, parts):
        batch = _first_batch(config, dataset, parts.model, accelerator.device)
        batches = [batch] * config.train.accumulation
        pending: list[Any] = []

        def update(step: int) -> None:
            result = parts.updater.update(step, batches)
            for before in pending:
                parts.updater.check(before)
            pending[:] = [result]

        return _rate(work, update)


def plain(work: Work) -> float:
    """What one would write without livetrain, in a page."""
    with _prepared(work) as (config, accelerator, dataset, parts):
        device, model, loss = accelerator.device, parts.model, parts.loss
        batch = _first_batch(config, dataset, model, device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=device.type == "cuda")
        network = torch.compile(model) if work.compile else model

        def update(step: int) -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bf16"):
                logits = network(batch.clips)
            loss(logits.float(), batch.labels).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        model.train()
        return _rate(work, update)


def lightning(work: Work) -> float:
    """The same network, loss and batch in a LightningModule, logging and checkpoints off."""
    import lightning as L

    with _prepared(work) as (config, accelerator, dataset, parts):
        device, model, loss = accelerator.device, parts.model, parts.loss
        batch = _first_batch(config, dataset, model, device)
        clock: list[float] = []

        class Module(L.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.model = torch.compile(model) if work.compile else model

            def training_step(self, batch: Any, index: int) -> torch.Tensor:
                if index in (SKIPPED, SKIPPED + work.updates):  # not at each step: the device would run dry
                    _synchronise(device)
                    clock.append(time.perf_counter())
                return loss(self.model(batch[0]).float(), batch[1]).mean()

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.AdamW(self.parameters(), lr=1e-4, weight_decay=0.05, fused=device.type == "cuda")

        batches = [(batch.clips, batch.labels)] * (SKIPPED + work.updates + 1)
        trainer = L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, max_epochs=1, logger=False,
            precision="bf16-mixed" if work.precision == "bf16" else "32-true", gradient_clip_val=1.0,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, barebones=False,
        )  # fmt: skip
        trainer.fit(Module(), torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
        return work.updates * work.global_batch / (clock[1] - clock[0])


def timm_loop(work: Work) -> float:
    """Timm's train.py, train_one_epoch: forward, backward, clipping, step, meters, scheduler, in its order."""
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter, dispatch_clip_grad

    with _prepared(work) as (config, accelerator, dataset, parts):
        device, model, loss = accelerator.device, parts.model, parts.loss
        batch = _first_batch(config, dataset, model, device)
        optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-4, weight_decay=0.05)
        schedule, _ = create_scheduler_v2(
            optimizer, sched="cosine", num_epochs=2, step_on_epochs=False, updates_per_epoch=SKIPPED + work.updates
        )
        assert schedule is not None
        network = torch.compile(model) if work.compile else model
        meter = AverageMeter()

        def update(step: int) -> None:
            clips, labels = batch.clips.to(device), batch.labels.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bf16"):
                value = loss(network(clips).float(), labels).mean()
            value.backward()
            dispatch_clip_grad(model.parameters(), 1.0, mode="norm")
            optimizer.step()
            if step % TIMM_LOG_INTERVAL == 0:  # as it does: it waits for the device where it logs
                meter.update(value.item(), len(clips))
            optimizer.zero_grad()
            schedule.step_update(num_updates=step + 1, metric=meter.avg)

        model.train()
        return _rate(work, update)


def loader(work: Work) -> float:
    """Clips a second of the run's loader with nothing but a look at each batch."""
    with _prepared(work) as (config, accelerator, dataset, parts):
        device = accelerator.device
        num_steps = SKIPPED + work.updates + 4  # the loader's end is not part of the time
        batches = train_loader(
            dataset, config, world=World(device), mean=parts.model.mean, std=parts.model.std,
            num_steps=num_steps,
        )  # fmt: skip
        with batches:
            iterator = iter(batches)

            def look(step: int) -> None:
                next(iterator)

            return _rate(work, look)


@contextlib.contextmanager
def _prepared(work: Work) -> Iterator[Any]:
    """(config, accelerator, dataset, parts) in a temporary run directory; Accelerate's state is reset each time."""
    from accelerate.state import AcceleratorState, GradientState

    from livetrain.training import setup

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    with tempfile.TemporaryDirectory(prefix="livetrain-bench-") as folder:
        config = work.config(folder)
        accelerator = setup.make_accelerator(config)
        dataset = Dataset.open(config.data.shards, config.data)
        model = setup.make_model(config, accelerator)
        parts = setup.make_objects(config, accelerator, dataset, model, None)
        yield config, accelerator, dataset, parts
        dataset.close()


def _first_batch(config: Config, dataset: Dataset, model: Any, device: torch.device) -> Batch:
    loader = train_loader(dataset, config, world=World(device), mean=model.mean, std=model.std, num_steps=1)
    with loader:
        return next(iter(loader))


def _rate(work: Work, update: Callable[[int], None]) -> float:
    """Clips a second of `work.updates` updates after the first ones."""
    device = torch.device(work.device)
    for step in range(SKIPPED):
        update(step)
    _synchronise(device)
    started = time.perf_counter()
    for step in range(SKIPPED, SKIPPED + work.updates):
        update(step)
    _synchronise(device)
    return work.updates * work.global_batch / (time.perf_counter() - started)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
