"""`livetrain plan DIR`: which way the clips of a shard folder take to a GPU, why, and what each is expected to cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from livetrain.config import DataConfig
from livetrain.data import Dataset
from livetrain.data.decoders import facts_of, source_of, why_not_nvdec
from livetrain.planner.rates import frames_per_second

LANES = {"video": "nvdec", "frames": "cpu", "jpeg": "image"}
COLUMNS = (
    "store", "codec", "pixel_format", "is_interlaced", "is_regular", "is_range_coded", "coded_width", "coded_height",
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """Clips that take one lane for one reason: how many, and seconds of a GPU (of a core, in the lane `cpu`) for the
    wanted frames of one, on average."""

    store: str
    codec: str
    lane: str
    why: str
    num_clips: int
    seconds: float


def ways(dataset: Dataset, num_frames: int, *, on_gpu: bool = True) -> list[Way]:
    """The ways of all clips, for `num_frames` wanted of each; the most frequent first. on_gpu: with NVDEC."""
    # Clips alike in everything that is asked of them are asked about once: few kinds, be there millions of clips.
    columns = dataset.columns.select(list(COLUMNS)).append_column("row", pa.array(np.arange(len(dataset))))
    kinds = columns.group_by(list(COLUMNS)).aggregate([("row", "min"), ("row", "count")])
    found: dict[tuple[str, str, str, str], list[tuple[int, float]]] = defaultdict(list)
    for row, count in zip(kinds["row_min"].to_pylist(), kinds["row_count"].to_pylist(), strict=True):
        facts = facts_of(dataset, row)
        store, codec = facts.pop("store"), facts["codec"]
        source = source_of(store, **facts, on_gpu=on_gpu)
        size = facts["width"], facts["height"]
        why = why_not_nvdec(**facts) if source == "frames" and on_gpu else ""
        if source == "video" and (size[0] % 16 or size[1] % 16):
            why = "coded size is not the shown one: a decoder for every clip; --store remux cures it"
        rate = frames_per_second(source, codec, *size)
        found[store, codec, LANES[source], why].append((count, num_frames / rate))
    table = []
    for key, parts in found.items():
        total = sum(count for count, _ in parts)
        table.append(Way(*key, total, sum(count * seconds for count, seconds in parts) / total))
    return sorted(table, key=lambda way: (-way.num_clips, way.store, way.codec, way.why))


def wide_colours(dataset: Dataset) -> list[str]:
    """A line for each kind of colours that is converted, but not tone-mapped: duller than a player shows them."""
    found = []
    for column, names in (("matrix", {"bt2020": "BT.2020"}), ("transfer", {"pq": "PQ", "hlg": "HLG"})):
        codes, words = dataset.codes(column)
        counts = dict(zip(words.tolist(), np.bincount(codes, minlength=len(words)).tolist(), strict=True))
        found += [f"{counts[word]:,} clips are {name}" for word, name in names.items() if counts.get(word)]
    return [f"{', '.join(found)}: not tone-mapped, so duller than on a screen made for them"] if found else []


def describe(where: str, num_frames: int) -> str:
    """The table of a shard folder. Raises UserError when it is none."""
    dataset = Dataset.open(where, DataConfig())
    lines = [f"{'store':<10} {'codec':<10} {'lane':<6} {'clips':>10} {'share':>7}  {'a clip':<20} why"]
    for way in ways(dataset, num_frames):
        cost = f"{way.seconds * 1e3:,.1f} ms of a {'core' if way.lane == 'cpu' else 'GPU'}"
        share = f"{way.num_clips / len(dataset):.1%}"
        line = f"{way.store:<10} {way.codec:<10} {way.lane:<6} {way.num_clips:>10,} {share:>7}  {cost:<20} {way.why}"
        lines.append(line.rstrip())
    lines += wide_colours(dataset)
    lines.append(f"{num_frames} frames of each; as measured on an H100 and on CPU cores (livetrain/planner/rates.py)")
    return "\n".join(lines)
