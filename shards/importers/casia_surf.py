"""CASIA-SURF, the colour pictures of the CVPR 2019 challenge: sequences of 1000 people, written as clips first.

    Training/real_part/<person>/real.rssdk/color/<n>.jpg              live
    Training/fake_part/<person>/<attack>.rssdk/color/<n>.jpg          such as 01_e_s, 04_en_b, 05_enm_s

Attacks are printed faces with the eyes (e), and the nose (en), and the mouth (enm) cut out; flat (s) or bent (b).
Validation and test pictures of the challenge (Val, Testing) have neither names nor sequences, so they are left out:
split Training by people. depth/ and ir/ beside color/ are not read.

--clips DIR        where the clips go; build the shards with --videos DIR

Source: Zhang et al., "A dataset and benchmark for large-scale multi-modal face anti-spoofing", CVPR 2019, and the
challenge's lists.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from livetrain.core.errors import UserError
from livetrain.core.progress import progress
from shards.importers.layout import Options, Row, attack
from shards.importers.picture_clips import clips_folder, write_clip

OPTIONS = ("clips",)
FRAMES_PER_SECOND = 10
NAME = re.compile(r"(real|fake)_part/([^/]+)/([^/]+?)(?:\.rssdk)?/color/(\d+)\.jpe?g", re.IGNORECASE)


def rows(root: Path, options: Options) -> Iterator[Row]:
    folder = clips_folder(options, "casia_surf")
    sequences = find_sequences(root)
    with progress("clips", len(sequences), "sequences") as advance:
        for (part, person, take), pictures in sorted(sequences.items()):
            is_live = part == "real"
            name = f"{part}_{person}_{take}.avi"
            write_clip(folder / name, pictures, FRAMES_PER_SECOND)
            yield Row(name, float(is_live), person, attack(is_live, f"print_{take.lower().partition('_')[2] or take}"))
            advance(1, name)


def find_sequences(root: Path) -> dict[tuple[str, str, str], list[Path]]:
    """(real or fake, person, take) → its colour pictures in order. Raises UserError without any."""
    found: dict[tuple[str, str, str], list[tuple[int, Path]]] = defaultdict(list)
    for path in root.rglob("color/*"):
        if match := NAME.search(path.relative_to(root).as_posix()):
            found[match[1].lower(), match[2], match[3]].append((int(match[4]), path))
    if {part for part, _, _ in found} != {"real", "fake"}:
        raise UserError(
            f"ROOT {root}: has no Training/real_part/<person>/real.rssdk/color/1.jpg …, or no Training/fake_part/…"
        )
    return {key: [path for _, path in sorted(pictures)] for key, pictures in found.items()}
