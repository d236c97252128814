"""The plan of a run, before it costs anything: samples, steps, size of the model, FLOPs, memory."""

from __future__ import annotations

import numpy as np

from livetrain.config import Config
from livetrain.data import Dataset, num_train_steps
from livetrain.data.plan import micro_batch_size
from livetrain.model import LivenessModel, count_flops, count_parameters, estimate_memory_bytes


def describe(config: Config, dataset: Dataset, model: LivenessModel, world: int) -> str:
    """The plan as text, a line a figure."""
    lines = [
        f"shards       {source.root}: {source.manifest['num_samples']} clips in {len(source.manifest['shards'])} shards"
        for source in dataset.sources
    ]
    for name in (config.data.train_split, config.data.dev_split, config.data.test_split):
        rows = dataset.rows(name)
        live = int((dataset.column("label")[rows] >= 0.5).sum())
        people = dataset.num_people(rows)
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
            f"model        {config.model.backbone}: {total / 1e6:.2f} M parameters, {trainable / 1e6:.2f} M trained",
            f"FLOPs        {flops / 1e9:.2f} G a clip forward, {3 * flops * num_clips:.3g} in all",
            f"memory       about {memory / 2**30:.2f} GiB a process (estimate)",
        ]
    )
