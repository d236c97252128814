"""CelebA-Spoof: 625,537 pictures of 10,177 people; each becomes a clip of one frame.

    Data/{train,test}/<person>/{live,spoof}/<n>.{jpg,png}
    metas/intra_test/{train,test}_label.json: 43 numbers a picture
    number 40: 0 live, 1 photo, 2 poster, 3 A4, 4 face mask, 5 upper body mask, 6 region mask, 7 PC, 8 pad, 9 phone,
    10 3D mask        41: illumination, 42: environment

--clips DIR        where the clips go; build the shards with --videos DIR

Where there are no lists (parts of the data set are passed on without), the attack type is not known. There is no dev
split: `shards split DIR --protocol carve_dev` makes one. Train with data.num_frames=1 eval.num_frames=1.
Source: Zhang et al., "CelebA-Spoof: large-scale face anti-spoofing dataset with rich annotations", ECCV 2020.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from livetrain.core.errors import UserError
from livetrain.core.progress import progress
from shards.importers.layout import Options, Row, attack, read_text
from shards.importers.picture_clips import clips_folder, write_clip
from shards.labels import UNKNOWN_ATTACK

OPTIONS = ("clips",)
NAME = re.compile(r"(?:^|/)(Data/(train|test)/([^/]+)/(live|spoof)/([^/]+)\.(?:jpe?g|png))$", re.IGNORECASE)
KINDS = (
    "live", "photo", "poster", "a4", "mask_face", "mask_upper_body", "mask_region", "replay_pc", "replay_pad",
    "replay_phone", "mask_3d",
)  # fmt: skip
TYPE, ILLUMINATION, ENVIRONMENT = 40, 41, 42  # places of the numbers of a picture


def rows(root: Path, options: Options) -> Iterator[Row]:
    folder = clips_folder(options, "celeba_spoof")
    found = [(path, match) for path in sorted(root.rglob("Data/*/*/*/*")) if (match := NAME.search(path.as_posix()))]
    if not found:
        raise UserError(f"ROOT {root}: has no Data/train/<person>/live/<n>.jpg …; is it another layout?")
    labels = _labels(root)
    with progress("clips", len(found), "pictures") as advance:
        for path, match in found:
            split, person, part = match[2].lower(), match[3], match[4].lower()
            numbers = labels.get(match[1])
            is_live = part == "live"
            kind = UNKNOWN_ATTACK if numbers is None else KINDS[numbers[TYPE]]
            session = "" if numbers is None else f"light{numbers[ILLUMINATION]}-place{numbers[ENVIRONMENT]}"
            name = f"{split}_{person}_{part}_{match[5]}.avi"
            write_clip(folder / name, [path], 1)
            yield Row(name, float(is_live), person, attack(is_live, kind), session, split=split)
            advance(1, name)


def _labels(root: Path) -> dict[str, list[int]]:
    """Path of a picture, from Data/ on → its numbers; nothing without lists. Raises UserError for a damaged one."""
    found: dict[str, list[int]] = {}
    for name in ("train_label.json", "test_label.json"):
        for path in sorted(root.rglob(f"metas/intra_test/{name}")):
            try:
                for picture, numbers in json.loads(read_text(path)).items():
                    if len(numbers) <= ENVIRONMENT or not 0 <= int(numbers[TYPE]) < len(KINDS):
                        raise ValueError(f"{picture}: no list of 43 numbers with a type at place {TYPE}")
                    found[picture] = [int(number) for number in numbers]
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError(f"{path}: damaged ({error}); download it again") from None
    return found
