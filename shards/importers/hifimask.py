"""CASIA-SURF HiFiMask: 54,600 videos of 75 people, live and with transparent, plaster and resin masks.

    <name>.mp4, or a folder <name>/ of its pictures
    name        Complexion_Subject_Type_Scene_Light_Sensor, such as 1_01_3_2_1_4
    Complexion  1 yellow, 2 white, 3 black              Type   0 live, 1 transparent, 2 plaster, 3 resin
    Scene       1 white, 2 green, 3 tricolour, 4 sunshine, 5 shadow, 6 motion
    Light       0 to 6                                  Sensor 1 iPhone 11, 2 iPhone X, 3 MI 10, 4 P40, 5 S20, 6 Vivo,
                                                               7 D435, 8 HJIM
    protocol lists: …@p1_video_train.txt, …_dev.txt, …_test.txt

--clips DIR        for folders of pictures: where the clips made of them go (10 frames a second)
--protocol p1 …    official splits, from the lists below ROOT: p1, p2.1, p2.2, p2.3, p3; without it none

Source: Liu et al., "Contrastive context-aware learning for 3D high-fidelity mask face presentation attack detection",
IEEE TIFS 2022, and the authors' description of the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from livetrain.core.errors import UserError
from livetrain.core.progress import progress
from shards.importers.layout import UNUSED, Options, Row, attack, only_protocols, read_list
from shards.importers.picture_clips import clips_folder, write_clip
from shards.videos import VIDEO_SUFFIXES

OPTIONS = ("clips", "protocol")
NAME = re.compile(r"([123])_(\d\d)_([0123])_([1-6])_([0-6])_([0-8])")
KINDS = {0: "live", 1: "mask_transparent", 2: "mask_plaster", 3: "mask_resin"}
SENSORS = ("spo2", "iphone11", "iphonex", "mi10", "p40", "s20", "vivo", "d435", "hjim")
PROTOCOLS = ("none", "p1", "p2.1", "p2.2", "p2.3", "p3")
FRAMES_PER_SECOND = 10


def rows(root: Path, options: Options) -> Iterator[Row]:
    split_of = _official(root, only_protocols(options, PROTOCOLS))
    videos = sorted(p for p in root.rglob("*") if NAME.fullmatch(p.stem) and p.suffix.lower() in VIDEO_SUFFIXES)
    folders = sorted(p for p in root.rglob("*") if p.is_dir() and NAME.fullmatch(p.name))
    if not videos and not folders:
        raise UserError(f"ROOT {root}: no video or folder there has a name like 1_01_3_2_1_4; is it another layout?")
    if not videos:
        yield from _of_pictures(folders, clips_folder(options, "hifimask"), split_of)
        return
    for path in videos:
        yield _row(path.relative_to(root).as_posix(), path.stem, split_of)


def _of_pictures(folders: list[Path], out: Path, split_of: dict[str, str] | None) -> Iterator[Row]:
    with progress("clips", len(folders), "folders") as advance:
        for folder in folders:
            pictures = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
            if not pictures:
                raise UserError(f"{folder}: holds no JPEG or PNG picture; move it away")
            write_clip(out / f"{folder.name}.avi", pictures, FRAMES_PER_SECOND)
            yield _row(f"{folder.name}.avi", folder.name, split_of)
            advance(1, folder.name)


def _row(video: str, name: str, split_of: dict[str, str] | None) -> Row:
    found = NAME.fullmatch(name)
    assert found is not None
    complexion, person = found[1], found[2]
    kind, scene, light, sensor = (int(found[place]) for place in range(3, 7))
    split = "" if split_of is None else split_of.get(name, UNUSED)
    session = f"scene{scene}-light{light}"
    return Row(
        video,
        float(kind == 0),
        f"{complexion}-{person}",
        attack(kind == 0, KINDS[kind]),
        session,
        SENSORS[sensor],
        split,
    )


def _official(root: Path, protocol: str) -> dict[str, str] | None:
    """Name of a video → its split; None without a protocol."""
    if protocol == "none":
        return None
    split_of: dict[str, str] = {}
    for split in ("train", "dev", "test"):
        name = f"*@{protocol}_video_{split}.txt"
        found = read_list(root, [name])
        if found is None:
            raise UserError(f"ROOT {root}: has no {name}; leave --protocol out, or copy the authors' lists there")
        split_of |= {Path(word).stem: split for word in found[1] if NAME.fullmatch(Path(word).stem)}
    return split_of
