"""Importers: one small file for each layout of a data set, all of them `rows(root, options) -> Iterator[Row]`.

    python -m shards import LAYOUT ROOT --out label.csv     the label file that `shards build` reads

The data sets other than NUAA are not here: their importers follow the published layouts, and are tested on generated
trees of those layouts.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import ModuleType

from livetrain.core.errors import UserError
from livetrain.core.files import write_text
from shards.importers import (
    casia_fasd,
    casia_surf,
    celeba_spoof,
    class_folders,
    hifimask,
    msu_mfsd,
    nuaa_raw,
    oulu_npu,
    replay_attack,
    rose_youtu,
    siw,
    siw_mv2,
    table,
    wmca,
    zalo,
)
from shards.importers.layout import Options, Row
from shards.videos import find_videos

LAYOUTS: dict[str, ModuleType] = {
    "zalo": zalo,
    "class_folders": class_folders,
    "table": table,
    "nuaa_raw": nuaa_raw,
    "replay_attack": replay_attack,
    "oulu_npu": oulu_npu,
    "casia_fasd": casia_fasd,
    "msu_mfsd": msu_mfsd,
    "siw": siw,
    "siw_mv2": siw_mv2,
    "rose_youtu": rose_youtu,
    "casia_surf": casia_surf,
    "celeba_spoof": celeba_spoof,
    "hifimask": hifimask,
    "wmca": wmca,
}
OFFICIAL = ("replay_attack", "oulu_npu", "casia_fasd", "msu_mfsd", "siw")  # layouts whose folders or lists are splits
SPLIT_FOLDER = re.compile(r"(train|dev|devel|test|val|valid)(_.*)?", re.IGNORECASE)
GENERIC = ("class_folders", "table")  # layouts of no data set in particular: they give no domain
COLUMNS = {"video": "fname", "label": "liveness_score"} | {
    item.name: item.name for item in fields(Row) if item.name not in ("video", "label")
}


def read(layout: str, root: Path, options: Options, domain: str = "") -> list[Row]:
    """The rows of a data set sorted by video; `domain` names it, the layout's own name where it is empty.

    Raises UserError for what does not fit the layout, and for options that it does not read.
    """
    module = LAYOUTS[layout]
    given = [item.name for item in fields(Options) if getattr(options, item.name) != getattr(Options(), item.name)]
    for name in given:
        if name not in module.OPTIONS:
            raise UserError(f"--{name.replace('_', '-')} has no effect with {layout}; leave it out")
    name = domain or ("" if layout in GENERIC else layout.removesuffix("_raw"))
    rows = sorted(
        (replace(row, domain=name or row.domain) for row in module.rows(root, options)), key=lambda row: row.video
    )
    folders = sorted({part for row in rows for part in row.video.split("/")[:-1] if SPLIT_FOLDER.fullmatch(part)})
    if layout in OFFICIAL and folders and not any(row.split for row in rows):
        raise UserError(
            f"ROOT {root}: it has folders of official splits ({', '.join(folders)}), and no video of them got a split; "
            "is it laid out otherwise than published?"
        )
    return rows


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the label file, with the columns that any row has a value for."""
    records = [{**asdict(row), "label": f"{row.label:g}"} for row in rows]
    used = [name for name in COLUMNS if any(record[name] for record in records)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([COLUMNS[name] for name in used])
    writer.writerows([record[name] for name in used] for record in records)
    write_text(path, out.getvalue())


def without_row(root: Path, rows: Sequence[Row]) -> list[str]:
    """The videos below `root` that no row is about (test sets without labels, enrolment videos)."""
    known = {row.video for row in rows}
    stems = {video.rpartition(".")[0] for video in known} | known
    return [v for v in find_videos(root, "ROOT") if v not in known and v.rpartition(".")[0] not in stems]


def summary(rows: Sequence[Row]) -> str:
    """A line for each attack type, people and splits, for the terminal."""
    kinds = Counter(row.attack_type or ("live" if row.label >= 0.5 else "attack") for row in rows)
    people = {(row.domain, row.subject) for row in rows if row.subject}
    splits = Counter(row.split for row in rows if row.split)
    unknown = sum(not row.subject for row in rows)
    message = [f"{len(rows):,} videos of {len(people) or 'unknown'} people"]
    if people and unknown:
        message[0] += f"; of {unknown:,} videos the person is not known"
    message.append("; ".join(f"{name} {count:,}" for name, count in sorted(kinds.items())))
    message.append(
        "splits: " + (", ".join(f"{name} {count:,}" for name, count in sorted(splits.items())) or "none yet")
    )
    return "\n".join(message)
