"""Faces of many clips with the network on a GPU: worker processes decode and shrink, this one runs batches of pictures.

What the network sees, and what becomes of its answers, is the same code as on the CPU. Clips in whose frames it sees no
face are few; they are looked at again, enlarged, by the CPU's path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from livetrain.core import worker_pool
from livetrain.core.engines import Engine
from shards.faces.blazeface import detections_of, weights_path
from shards.faces.blazeface_torch import BlazeFaceTorch
from shards.faces.find import ClipTask, Found, find_in_clip
from shards.faces.prepare import Prepared, prepare
from shards.faces.track import link, relative, smooth

PRELOAD = ("shards.faces.prepare",)
NUM_PICTURES = 256  # in a batch: 28 MB of pixels, and about 2 GiB of activations on the GPU


def find_in_clips(
    tasks: Sequence[ClipTask], engine: Engine, device: str, num_pictures: int = NUM_PICTURES
) -> Iterator[tuple[int, Found | worker_pool.WorkerDied]]:
    """Yield (index of the task, what was found) as clips are done. Raises UserError where a package is missing."""
    network = BlazeFaceTorch(weights_path(), torch.device(device))
    waiting: list[tuple[int, Prepared]] = []
    unseen: list[int] = []

    def answers() -> Iterator[tuple[int, Found]]:
        for index, found in zip(
            [index for index, _ in waiting],
            _run(network, [tasks[index] for index, _ in waiting], [prepared for _, prepared in waiting]),
            strict=True,
        ):
            if found is None:
                unseen.append(index)
            else:
                yield index, found
        waiting.clear()

    for index, prepared in engine.unordered(prepare, tasks, PRELOAD):
        if not isinstance(prepared, Prepared):
            yield index, prepared
            continue
        waiting.append((index, prepared))
        if sum(prepared.num_pictures for _, prepared in waiting) >= num_pictures:
            yield from answers()
    yield from answers()
    again = engine.unordered(find_in_clip, [tasks[index] for index in unseen], PRELOAD)
    yield from ((unseen[position], found) for position, found in again)


def _run(network: BlazeFaceTorch, tasks: Sequence[ClipTask], clips: Sequence[Prepared]) -> Iterator[Found | None]:
    """The face of each clip, None where the network sees none."""
    looks = [look for clip in clips for look in clip.looks]
    if not looks:
        return
    boxes, logits = network(np.concatenate([look.pixels for look in looks]))
    ends = np.cumsum([len(look.pixels) for look in looks])[:-1]
    answers = iter(zip(looks, np.split(boxes, ends), np.split(logits, ends), strict=True))
    for task, clip in zip(tasks, clips, strict=True):
        detections = []
        for shape in clip.shapes:
            look, raw, logit = next(answers)
            detections.append(relative(detections_of(look.places, raw, logit), shape))
        seen = link(detections)
        yield Found(smooth(seen, np.array(task.frames))) if seen else None
