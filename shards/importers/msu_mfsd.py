"""MSU-MFSD: 280 videos of 35 people.

Official splits train and test by lists of people, and no dev: `shards split DIR --protocol carve_dev` makes one.

    scene01/real/real_client001_{android,laptop}_SD_scene01.{mp4,mov}
    scene01/attack/attack_client001_{android,laptop}_SD_{ipad_video,iphone_video,printed_photo}_scene01.{mp4,mov}
    train_sub_list.txt, test_sub_list.txt: the people's numbers (01, 02 …)

Source: Wen, Han, Jain, "Face spoof detection with image distortion analysis", TIFS 2015.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from livetrain.core.errors import UserError
from shards.importers.layout import UNUSED, Options, Row, attack, matching, read_list

OPTIONS = ()
REAL, ATTACK = r"real_client(\d+)_(android|laptop)_SD", r"attack_client(\d+)_(android|laptop)_SD_(\w+)"


def rows(root: Path, options: Options) -> Iterator[Row]:
    split_of: dict[int, str] = {}
    for split in ("train", "test"):
        found = read_list(root, [f"{split}_sub_list.txt"])
        if found is None:
            raise UserError(f"ROOT {root}: has no {split}_sub_list.txt; it comes with the data set")
        path, people = found
        for person in people:
            number = re.fullmatch(r"(?:client)?(\d+)", person, re.IGNORECASE)
            if number is None:
                raise UserError(f"{path}: {person!r} is not a person's number, such as 01; correct the line")
            split_of[int(number[1])] = split
    example = "scene01/real/real_client001_android_SD_scene01.mp4"
    for video, match in matching(root, rf"(?:{REAL}|{ATTACK})_scene01\.\w+", example):
        client, camera, attacked, attack_camera, kind = match.groups()
        person = client or attacked
        yield Row(
            video,
            float(client is not None),
            person,
            attack(client is not None, kind or ""),
            "scene01",
            camera or attack_camera,
            split_of.get(int(person), UNUSED),
        )
