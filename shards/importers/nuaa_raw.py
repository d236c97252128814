"""NUAA Photograph Imposter Database, the raw tree: sequences of JPEG frames, written as clips first.

    ClientRaw/<person>/<person>_<glasses>_<position and light>_<session>_<picture>.jpg (0001_00_00_01_0.jpg), live
    ImposterRaw/…, the same names: printed photos      {client,imposter}_{train,test}_raw.txt: the official lists

--clips DIR        where the clips go; build the shards with --videos DIR
--clip-frames N    frames of a clip (default 16; what is left of a sequence makes a clip if it is at least half)
--protocol people  (default) no split: `shards build` splits by people
--protocol official  train: sessions 1 and 2, test: session 3, as listed. People are in both, so building, splitting and
                   training with it need --allow-leak and data.allow_leak=true.

A clip is Motion JPEG in AVI: the bytes of the pictures, untouched, at the 20 frames a second of the paper.
Source: Tan, Li, Liu, Jiang, "Face liveness detection from a single image with sparse low rank bilinear discriminative
model", ECCV 2010, and the readme of the distribution.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from livetrain.core.errors import UserError
from livetrain.core.progress import progress
from shards.importers.layout import UNUSED, Options, Row, attack, only_protocols, read_list
from shards.importers.picture_clips import clips_folder, write_clip

OPTIONS = ("clips", "clip_frames", "protocol")
FRAMES_PER_SECOND = 20
CLIP_FRAMES = 16
NAME = re.compile(r"(\d{4})_(\d\d)_(\d\d)_(\d\d)_(\d+)\.jpg", re.IGNORECASE)


def rows(root: Path, options: Options) -> Iterator[Row]:
    folder = clips_folder(options, "nuaa_raw")
    official = _official(root) if only_protocols(options, ("people", "official")) == "official" else None
    length = options.clip_frames or CLIP_FRAMES
    if length < 2:
        raise UserError(f"--clip-frames {length}: give 2 or more")
    sequences = find_sequences(root)
    with progress("clips", len(sequences), "sequences") as advance:
        for (kind, sequence), pictures in sorted(sequences.items()):
            person, _, light, session = sequence.split("_")
            is_live = kind == "client"
            for number, first in enumerate(range(0, len(pictures), length)):
                part = pictures[first : first + length]
                if len(part) < max(2, length / 2):
                    continue
                name = f"{kind}_{sequence}_{number:03d}.avi"
                write_clip(folder / name, part, FRAMES_PER_SECOND)
                split = "" if official is None else official.get((kind, part[0].name), UNUSED)
                yield Row(name, float(is_live), person, attack(is_live, "print"), session, f"light{light}", split)
            advance(1, sequence)


def find_sequences(root: Path) -> dict[tuple[str, str], list[Path]]:
    """(client or imposter, person_glasses_light_session) → its pictures in order. Raises UserError without any."""
    found: dict[tuple[str, str], list[tuple[int, Path]]] = defaultdict(list)
    for kind, folder in (("client", "ClientRaw"), ("imposter", "ImposterRaw")):
        for path in root.rglob(f"{folder}/*/*.[jJ][pP][gG]"):
            if match := NAME.fullmatch(path.name):
                found[kind, "_".join(match.groups()[:4])].append((int(match[5]), path))
    if {kind for kind, _ in found} != {"client", "imposter"}:
        raise UserError(f"ROOT {root}: has no ClientRaw/0001/0001_00_00_01_0.jpg …, or no ImposterRaw/…")
    return {key: [path for _, path in sorted(pictures)] for key, pictures in found.items()}


def _official(root: Path) -> dict[tuple[str, str], str]:
    """(client or imposter, name of a picture) → train or test."""
    split_of: dict[tuple[str, str], str] = {}
    for kind in ("client", "imposter"):
        for split in ("train", "test"):
            found = read_list(root, [f"{kind}_{split}_raw.txt"])
            if found is None:
                raise UserError(f"ROOT {root}: has no {kind}_{split}_raw.txt; --protocol people needs none")
            split_of |= {(kind, name.rpartition("/")[2]): split for name in found[1]}
    return split_of
