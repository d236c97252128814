"""SiW, Spoof in the Wild: 4478 videos of 165 people.

90 people train, 75 test, and no dev: `shards split DIR --protocol carve_dev` makes one.

    {Train,Test}/{live,spoof}/<person>/SubjectID-SensorID-TypeID-MediumID-SessionID.{mov,mp4}, such as 001-1-1-1-1.mov
    Sensor 1 Canon EOS T6, 2 Logitech C920    Type 1 live, 2 print, 3 replay    Medium: which print, which screen

Every medium is an attack type of its own (print_1, replay_3), so the protocols of the paper are splits: protocol 2 is
`shards split DIR --protocol leave_one_attack_out --attack replay_1`, protocol 3 names all replays, or all prints.
Source: Liu, Jourabloo, Liu, "Learning deep models for face anti-spoofing", CVPR 2018, and the data set's web page,
which writes the names with underscores; both signs are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shards.importers.layout import Options, Row, attack, matching

OPTIONS = ()
TYPES = {1: "live", 2: "print", 3: "replay"}
SENSORS = {1: "canon_eos_t6", 2: "logitech_c920"}


def rows(root: Path, options: Options) -> Iterator[Row]:
    pattern = r"(?:(train|test)/(?:.*/)?)?(\d+)[-_]([12])[-_]([123])[-_](\d)[-_](\d)\.\w+"
    for video, found in matching(root, pattern, "Train/live/003/003-1-1-1-1.mov"):
        split, person = found[1], found[2]
        sensor, kind, medium, session = (int(found[i]) for i in range(3, 7))
        species = attack(kind == 1, f"{TYPES[kind]}_{medium}")
        yield Row(video, float(kind == 1), person, species, str(session), SENSORS[sensor], (split or "").lower())
