"""OULU-NPU: 4950 videos of 55 people with six phones; protocols 1 to 4.

    {Train,Dev,Test}_files/Phone_Session_User_File.avi, such as 1_1_01_1.avi
    Phone 1-6   Session 1-3   User 1-20 train, 21-35 dev, 36-55 test
    File 1 live, 2 print by printer 1, 3 print by printer 2, 4 replay on display 1, 5 replay on display 2

--protocol 1    another environment: session 3 is tested, sessions 1 and 2 are trained (default)
--protocol 2    other attack instruments: printer 2 and display 2 are tested, printer 1 and display 1 are trained
--protocol 3    another camera: --fold N, phone N is tested, the five others are trained
--protocol 4    all three at once, --fold N
--protocol all  everything, by people alone

Where Protocols/Protocol_<n>/{Train,Dev,Test}[_<fold>].txt (lines such as "+1,1_1_01_1") are there, they decide; else
the rules above do, which give as many videos as published. Videos outside of a protocol get the split "unused".
Source: Boulkenafet et al., "OULU-NPU: a mobile face presentation attack database with real-world variations", FG 2017.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from livetrain.core.errors import UserError
from shards.importers.layout import UNUSED, Options, Row, attack, matching, only_protocols, read_text

OPTIONS = ("protocol", "fold")
PROTOCOLS = ("1", "2", "3", "4", "all")
FOLDS = range(1, 7)
SPECIES = {1: "live", 2: "print_1", 3: "print_2", 4: "replay_1", 5: "replay_2"}
SPLITS = ("train", "dev", "test")


def rows(root: Path, options: Options) -> Iterator[Row]:
    protocol = only_protocols(options, PROTOCOLS)
    if (protocol in ("3", "4")) != (options.fold in FOLDS):
        raise UserError(
            f"--protocol {protocol} {'needs --fold 1 to 6' if protocol in ('3', '4') else 'takes no --fold'}"
        )
    official = _official(root, protocol, options.fold)
    for video, found in matching(root, r"(([1-6])_([1-3])_(\d+)_([1-5]))\.\w+", "Train_files/1_1_01_1.avi"):
        name, phone, session, user, file = found[1], *map(int, found.groups()[1:])
        split = official.get(name, UNUSED) if official else split_of(protocol, options.fold, phone, session, user, file)
        yield Row(
            video, float(file == 1), f"{user:02d}", attack(file == 1, SPECIES[file]), str(session), str(phone), split
        )


def split_of(protocol: str, fold: int, phone: int, session: int, user: int, file: int) -> str:
    """The split of a video by the published rules of a protocol."""
    split = "train" if user <= 20 else "dev" if user <= 35 else "test"
    tested = split == "test"
    if protocol in ("1", "4") and (session == 3) != tested:
        return UNUSED
    if protocol in ("2", "4") and file != 1 and (file in (3, 5)) != tested:
        return UNUSED
    if protocol in ("3", "4") and (phone == fold) != tested:
        return UNUSED
    return split


def _official(root: Path, protocol: str, fold: int) -> dict[str, str]:
    """The split of each video name by the lists of the distribution; empty where there are none."""
    folders = sorted(root.rglob(f"Protocol_{protocol}"))
    if not folders:
        return {}
    found: dict[str, str] = {}
    for split in SPLITS:
        path = folders[0] / f"{split.capitalize()}{f'_{fold}' if fold else ''}.txt"
        for line in read_text(path).split():
            sign, _, name = line.partition(",")
            if not re.fullmatch(r"[+-]?\d", sign) or not name:
                raise UserError(f"{path}: {line!r} is not a line of a protocol, such as +1,1_1_01_1; correct it")
            found[name.removesuffix(".avi")] = split
    return found
