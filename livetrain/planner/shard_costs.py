"""`livetrain plan DIR`: which decoder each clip of a shard folder uses on a GPU, why, and the expected cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from livetrain.config import DataConfig
from livetrain.data import Dataset
from livetrain.data.decoders import choose_decoder, facts_of, why_not_nvdec
from livetrain.planner.rates import frames_per_second

COLUMNS = (
    "store", "codec", "pixel_format", "is_interlaced", "is_regular", "is_range_coded", "coded_width", "coded_height",
)  # fmt: skip


@dataclass(frozen=True)
class Route:
    """Clips that use one decoder for one reason.

    seconds: mean seconds of a GPU (for `cpu`: of a core) to decode the requested frames of one.
    """

    store: str
    codec: str
    decoder: str
    why: str
    num_clips: int
    seconds: float


def routes(dataset: Dataset, num_frames: int, *, on_gpu: bool = True) -> list[Route]:
    """Which decoders the clips use, for `num_frames` wanted of each; the most frequent first. on_gpu: with NVDEC."""
    # Clips alike in everything that is asked of them are asked about once: few kinds, even with millions of clips.
    columns = dataset.columns.select(list(COLUMNS)).append_column("row", pa.array(np.arange(len(dataset))))
    kinds = columns.group_by(list(COLUMNS)).aggregate([("row", "min"), ("row", "count")])
    found: dict[tuple[str, str, str, str], list[tuple[int, float]]] = defaultdict(list)
    for row, count in zip(kinds["row_min"].to_pylist(), kinds["row_count"].to_pylist(), strict=True):
        facts = facts_of(dataset, row)
        store, codec = facts.pop("store"), facts["codec"]
        decoder = choose_decoder(store, **facts, on_gpu=on_gpu)
        size = facts["width"], facts["height"]
        why = why_not_nvdec(**facts) if decoder == "cpu" and on_gpu else ""
        if decoder == "nvdec" and (size[0] % 16 or size[1] % 16):
            why = "coded size is not the shown one: a decoder for every clip; --store remux cures it"
        rate = frames_per_second(decoder, codec, *size)
        found[store, codec, decoder, why].append((count, num_frames / rate))
    table = []
    for key, parts in found.items():
        total = sum(count for count, _ in parts)
        table.append(Route(*key, total, sum(count * seconds for count, seconds in parts) / total))
    return sorted(table, key=lambda route: (-route.num_clips, route.store, route.codec, route.why))


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
    lines = [f"{'store':<10} {'codec':<10} {'decoder':<7} {'clips':>10} {'share':>7}  {'a clip':<20} why"]
    for route in routes(dataset, num_frames):
        cost = f"{route.seconds * 1e3:,.1f} ms of a {'core' if route.decoder == 'cpu' else 'GPU'}"
        share = f"{route.num_clips / len(dataset):.1%}"
        kind = f"{route.store:<10} {route.codec:<10} {route.decoder:<7} {route.num_clips:>10,}"
        lines.append(f"{kind} {share:>7}  {cost:<20} {route.why}".rstrip())
    lines += wide_colours(dataset)
    lines.append(f"{num_frames} frames of each; as measured on an H100 and on CPU cores (livetrain/planner/rates.py)")
    return "\n".join(lines)
