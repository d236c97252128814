"""The plan of a run, before it costs anything: samples, steps, size of the model, FLOPs, memory, decoders, speed."""

from __future__ import annotations

import numpy as np
from accelerate import Accelerator

from livetrain.config import Config
from livetrain.core.world import World
from livetrain.data import Dataset, num_train_steps, region
from livetrain.data.graph import depth
from livetrain.data.plan import Samples, micro_batch_size
from livetrain.distributed.oom import advice_for_training, oom_advice
from livetrain.model import LivenessModel, build_loss, count_flops, count_parameters, estimate_memory_bytes
from livetrain.planner import formulas, inputs
from livetrain.planner.shard_costs import routes

CPU_FLOP = 4e11  # a measured pass on a CPU takes no more: about ten seconds


def describe(config: Config, dataset: Dataset, model: LivenessModel, accelerator: Accelerator) -> str:
    """The plan as text, a line a figure. Trains a few random clips and loads a few real ones, to time them."""
    world, device = accelerator.num_processes, accelerator.device
    lines = [
        f"shards       {source.root}: {source.manifest['num_samples']} clips in {len(source.manifest['shards'])} shards"
        for source in dataset.shard_sets
    ]
    for name in (config.data.train_split, config.data.dev_split, config.data.test_split):
        rows = dataset.rows(name)
        live = int((dataset.column("label")[rows] >= 0.5).sum())
        people = dataset.num_subjects(rows)
        rejected = len(dataset.rejected(name))
        lines.append(
            f"{name:<12} {len(rows)} clips: {live} live, {len(rows) - live} attack, {people or 'unknown'} people, "
            f"{rejected} rejected"
        )
        domains, words = dataset.codes("domain")
        if len(dataset.domains) > 1:
            counts = zip(words, np.bincount(domains[rows], minlength=len(words)), strict=True)
            lines.append(f"{'':<12} {', '.join(f'{word} {count}' for word, count in counts if count)}")
    if config.data.leave_out:
        lines.append(f"left out     {config.data.leave_out}: in test alone")
    num_samples = len(dataset.rows(config.data.train_split))
    steps = num_train_steps(num_samples, config)
    micro = micro_batch_size(config, world)
    side = config.data.image_size
    clip = (config.data.num_frames, 3, side, side)
    total, trainable = count_parameters(model)
    flops = count_flops(model, clip)
    memory = estimate_memory_bytes(model, config, micro)
    num_clips = steps * config.train.global_batch
    epochs = num_clips / num_samples
    return "\n".join(
        [
            *lines,
            f"steps        {steps} updates of {config.train.global_batch} clips = {epochs:.2f} epochs",
            f"processes    {world} x {config.train.accumulation} micro-batches x {micro} clips",
            f"clip         {config.data.num_frames} frames of {side} x {side}, {np.prod(clip) / 1e6:.1f} M values",
            f"picture      {_picture(config, dataset)}",
            f"model        {config.model.backbone}: {total / 1e6:.2f} M parameters, {trainable / 1e6:.2f} M trained",
            f"FLOPs        {flops / 1e9:.2f} G a clip forward, {3 * flops * num_clips:.3g} in all",
            f"memory       about {memory / 2**30:.2f} GiB a process (estimate)",
            f"decoders     {_decoders(config, dataset, on_gpu=device.type == 'cuda')}",
            *_decoding(config, dataset, micro, depth(device)),
            *_speed(config, dataset, model, accelerator, 3 * flops, num_clips),
        ]
    )


def _picture(config: Config, dataset: Dataset) -> str:
    """How frames become square, and what that does to those of the training split."""
    if config.data.crop == "face":
        return "data.crop=face: a square around the face of each frame"
    samples = Samples.of(dataset, config.data.train_split, config)
    height, width = region.upright_size(samples.facts(np.arange(len(samples))), config)
    ratio = np.maximum(height, width) / np.minimum(height, width)
    if config.data.fit == "stretch":
        typical, most = (f"{value:.2f}" for value in (np.median(ratio), ratio.max()))
        return f"data.fit=stretch: {typical} times as wide or high as the frame at the median, {most} at most"
    typical, most = (f"{1 - 1 / value:.0%}" for value in (np.median(ratio), ratio.max()))
    what = "of the frame is cut away" if config.data.fit == "center" else "of the picture is black bars"
    return f"data.fit={config.data.fit}: {typical} {what} at the median, {most} at most"


def _decoders(config: Config, dataset: Dataset, *, on_gpu: bool) -> str:
    on_gpu = on_gpu and config.data.decoder != "cpu"
    parts = []
    for way in routes(dataset, config.data.num_frames, on_gpu=on_gpu):
        because = f" ({way.why})" if way.why else ""
        parts.append(f"{way.decoder} {way.num_clips / len(dataset):.0%}: {way.codec}{because}")
    return "; ".join(parts)


def _decoding(config: Config, dataset: Dataset, micro: int, rounds_at_once: int) -> list[str]:
    """Memory of pictures that DALI decodes, which is beside torch's: its pool keeps the most that it has needed."""
    rows = dataset.rows(config.data.train_split)
    pixels = (dataset.column("coded_width")[rows].astype(np.int64) * dataset.column("coded_height")[rows]).max()
    needed = 3 * int(pixels) * config.data.num_frames * micro / 1e6
    budget = config.data.decode_memory_mb
    needed_at_once = needed * rounds_at_once
    rounds = f": {-(-needed_at_once // budget):.0f} rounds a batch" if needed_at_once > budget else ""
    return [
        f"decoding     up to {needed:,.0f} MB a batch before its pictures are resized; "
        f"data.decode_memory_mb={budget}{rounds}"
    ]


def _speed(
    config: Config,
    dataset: Dataset,
    model: LivenessModel,
    accelerator: Accelerator,
    flop_a_clip: float,
    num_clips: int,
) -> list[str]:
    """What is expected of one process by what its parts do here, times the processes: all-reduce is not in it."""
    world, device = accelerator.num_processes, accelerator.device
    on_cpu = device.type == "cpu"
    loading = inputs.loader_rate(config, dataset, model, device, World.of(accelerator).local_size)
    message = f"speed        loading {loading * world:,.1f} clips/s, measured on a few clips"
    micro = micro_batch_size(config, world)
    measured = min(micro, int(CPU_FLOP / flop_a_clip)) if on_cpu else micro
    if not measured:
        return [f"{message}; the model is too large to be timed here: `livetrain plan` predicts it for GPUs"]
    with oom_advice("dry_run", advice_for_training(config)):
        computing = inputs.compute_rate(model, build_loss(config.loss), config, measured, device)
    rate = formulas.training_rate(computing, loading, shares_cores=on_cpu) * world
    is_loading = loading < computing
    limit = f"loading; what lifts it: {formulas.lifted_by(dataset.manifest['store'])}" if is_loading else "the model"
    return [
        f"{message}; the model {computing * world:,.1f}, on {measured} random clips",
        f"expected     {rate:,.1f} clips/s, {num_clips / rate / 3600:.2f} h in all; limited by {limit}",
    ]
