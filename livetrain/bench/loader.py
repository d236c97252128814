"""`livetrain bench loader`: a training run's loader against the decoder's limit and against what others use."""

from __future__ import annotations

import math
from collections.abc import Mapping

from livetrain.bench import limits, loader_memory, peers
from livetrain.bench.corpus import clip_sets, make_task
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import Measured, race, ratio

OURS, FRAMES, CEILING, JPEGS = "livetrain", "livetrain, frame shards", "libavcodec alone (limit)", "JPEG files + PIL"
NUM_BATCHES = 40  # until the memory of a loader grows no more
WHAT = {
    "decode": "Decode only",
    "resize": "Decode, resize to 224, normalise",
    "augment": "Decode, augment as `augment` defaults say, normalise",
}


def run(options: Options) -> Report:
    """Rates and memory of every side, for each set of clips and each level."""
    ratios: dict[str, float] = {}
    tables = []
    lines = []
    measurements = []
    for what in clip_sets(options):
        for level in peers.LEVELS if not options.quick else ("augment",):
            task = make_task(what, options, level, frames=True)
            sides = {OURS: peers.livetrain, CEILING: limits.needed_only}
            sides |= {} if options.quick else peers.VIDEO_PEERS
            sides |= {} if level == "decode" else {FRAMES: peers.livetrain_frames, JPEGS: peers.jpeg_files}
            found = race(
                sides, [task], rounds=options.rounds, title=f"loader {what.name} {level}", warm_up=not options.quick
            )
            tables.append(_table(f"**{WHAT[level]}**, {what.name}.", found))
            name = f"{level} {what.height}p"
            ratios[f"loader {name} over limit"] = ratio(found[OURS], found[CEILING])
            if found[OURS].rates and options.device == "cpu":
                inputs = {"core_seconds": found[OURS].facts["core_seconds"], "cores": options.workers}
                measurements.append({"kind": "loading", "name": name, "measured": found[OURS].rate, "inputs": inputs})
            if FRAMES in found:
                ratios[f"frames {name} over JPEG files + PIL"] = ratio(found[FRAMES], found[JPEGS])
            if level == "augment" and not options.quick and options.device == "cpu":
                caption = f"**Memory of livetrain's process by part**, augmented, {NUM_BATCHES} batches of {what.name}."
                tables.append(loader_memory.table(caption, task.keys(task.shards), NUM_BATCHES))
            best = _best(found)
            if best:
                ratios[f"loader {name} over best peer"] = ratio(found[OURS], found[best])
                lines.append(
                    f"- {WHAT[level]}, {what.height}p: {ratio(found[OURS], found[CEILING]):.0%} of the limit, "
                    f"{ratio(found[OURS], found[best]):.2f} x {best} with "
                    f"{found[OURS].memory / found[best].memory:.2f} x its memory."
                )
    note = (
        "Wanted frames per second (8 of each 4 s clip), median of the rounds; the ratio is livetrain's rate over the "
        "side's, median of the rounds. Memory is the largest sum of PSS over a side's processes. Every side has "
        f"{options.workers} workers."
    )
    return Report("Loading videos", "\n".join([*lines, "", note]), tables, ratios, tuple(peers.PACKAGES), measurements)


def _table(caption: str, found: Mapping[str, Measured]) -> Table:
    table = Table(caption, ("side", "livetrain's ratio", "frames/s", "memory, GiB", "remark"))
    for name, side in sorted(found.items(), key=lambda item: -item[1].rate if item[1].rates else math.inf):
        ours = found[FRAMES] if name in (FRAMES, JPEGS) else found[OURS]
        table.rows.append((name, ratio(ours, side), side.rate, side.memory / 2**30, side.error))
    return table


def _best(found: Mapping[str, Measured]) -> str:
    """The fastest of the video peers, empty when none ran."""
    names = [name for name in peers.VIDEO_PEERS if name in found and found[name].rates]
    return max(names, key=lambda name: found[name].rate, default="")
