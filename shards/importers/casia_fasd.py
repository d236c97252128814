"""CASIA-FASD: 600 videos of 50 people.

Official splits train and test, and no dev: `shards split DIR --protocol carve_dev` makes one.

    {train,test}_release/<person>/{1 … 8,HR_1 … HR_4}.avi
    1, 2, HR_1 live    3, 4, HR_2 warped photo    5, 6, HR_3 photo with eyes cut out    7, 8, HR_4 video on a tablet
    odd numbers: the low-quality camera; even ones: the normal one; HR_: the high-resolution one

Source: Zhang et al., "A face antispoofing database with diverse attacks", ICB 2012. People are numbered again in each
folder: person 1 of train and person 1 of test are two people.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shards.importers.layout import Options, Row, attack, matching

OPTIONS = ()
SPECIES = ("live", "warped_photo", "cut_photo", "video")


def rows(root: Path, options: Options) -> Iterator[Row]:
    pattern = r"(train|test)_release/(\d+)/(?:HR_([1-4])|([1-8]))\.\w+"
    for video, found in matching(root, pattern, "train_release/1/HR_1.avi"):
        split, person, high, number = found.groups()
        kind = int(high) - 1 if high else (int(number) - 1) // 2
        camera = "high" if high else "low" if int(number) % 2 else "normal"
        split = split.lower()
        yield Row(video, float(kind == 0), f"{split}-{person}", attack(kind == 0, SPECIES[kind]), "", camera, split)
