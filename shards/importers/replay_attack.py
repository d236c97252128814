"""Idiap Replay-Attack: 1200 videos of 50 people, official splits train, devel and test, which share nobody.

    {train,devel,test}/real/client001_session01_webcam_authenticate_{adverse,controlled}_1.mov
    {train,devel,test}/attack/{fixed,hand}/attack_print_client001_session01_highdef_photo_{adverse,controlled}.mov
    {train,devel,test}/attack/{fixed,hand}/attack_{mobile,highdef}_client001_session01_{mobile,highdef}_{photo,video}_….mov

Source: Chingovska, Anjos, Marcel, "On the effectiveness of local binary patterns in face anti-spoofing", BIOSIG 2012;
names as in Idiap's bob.db.replay. The enrolment videos (enroll/) are not presentations and are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shards.importers.layout import Options, Row, attack, matching

OPTIONS = ()
SPLITS = {"train": "train", "devel": "dev", "test": "test"}
REAL = r"real/client(\d+)_session\d+_webcam_authenticate_(adverse|controlled)_\d+"
ATTACK = (
    r"attack/(fixed|hand)/attack_(print|mobile|highdef)_client(\d+)_session\d+_\w+?_(photo|video)_(adverse|controlled)"
)
EXAMPLE = "train/real/client001_session01_webcam_authenticate_adverse_1.mov"


def rows(root: Path, options: Options) -> Iterator[Row]:
    for video, found in matching(root, rf"(train|devel|test)/(?:{REAL}|{ATTACK})\.\w+", EXAMPLE):
        split, client, light, support, medium, attacked, kind, attack_light = found.groups()
        species = "print" if medium == "print" else f"{medium}_{kind}"
        yield Row(
            video,
            float(client is not None),
            client or attacked,
            attack(client is not None, species),
            light or f"{attack_light}-{support}",
            "webcam",
            SPLITS[split.lower()],
        )
