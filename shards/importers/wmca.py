"""WMCA, wide multi channel presentation attacks: 1679 recordings of 72 people, of which the colour frames are read.

    WMCA/face-station/<DD.MM.YY>/<client>_<session>_<presenter>_<type>_<instrument>.hdf5     such as 514_01_035_1_05

Each file holds the frames as Frame_0/array, Frame_1/array, …: RGB of 8 bits, channels first or last (128 x 128 pixels
in WMCA_preprocessed_RGB). They are written as clips first. Kinds of attack come from type and instrument: glasses, wig,
fake_head, paper_mask, rigid_mask, flexible_mask, print, replay (pictures on a screen too), makeup. The subject is the
client; of glasses, wigs and makeup the presenter, whose face it is. Lists of the official protocols are not read: split
by people.

--clips DIR        where the clips go; build the shards with --videos DIR

Needs h5py (extra: wmca). Source: George et al., "Biometric face presentation attack detection with multi-channel
convolutional neural network", IEEE TIFS 2019, and public programs that read its files; not tried on the data itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from livetrain.core.progress import progress
from shards.importers.layout import Options, Row, attack
from shards.importers.picture_clips import clips_folder, write_frames

OPTIONS = ("clips",)
FRAMES_PER_SECOND = 10
NAME = re.compile(r"(\d+)_(\d+)_(\d+)_(\d)_(\d+)\.(?:hdf5|h5)", re.IGNORECASE)
NOBODY = "000"
ON_THE_OWN_FACE = ("glasses", "wig", "makeup")


def rows(root: Path, options: Options) -> Iterator[Row]:
    folder = clips_folder(options, "wmca")
    found = sorted((match, path) for path in root.rglob("*") if (match := _parts(path)))
    if not found:
        raise UserError(f"ROOT {root}: has no file like face-station/31.01.18/514_01_035_1_05.hdf5")
    with progress("clips", len(found), "recordings") as advance:
        for (client, session, presenter, kind, instrument), path in found:
            is_live = kind == "0"
            name = f"{path.parent.name}_{path.stem}.avi"
            write_frames(folder / name, read_frames(path), FRAMES_PER_SECOND)
            what = "" if is_live else kind_of(int(kind), int(instrument), path)
            subject = presenter if what in ON_THE_OWN_FACE and presenter != NOBODY else client
            yield Row(name, float(is_live), subject, attack(is_live, what), session=session)
            advance(1, name)


def kind_of(kind: int, instrument: int, path: Path) -> str:
    """The attack type of a recording: its type says the family, its instrument which of them. Raises UserError."""
    if kind == 1:
        return "rigid_mask" if instrument in (2, 13, 14) else "wig" if 8 <= instrument <= 12 else "glasses"
    if kind == 2:
        last = ((7, "fake_head"), (11, "paper_mask"), (17, "rigid_mask"), (99, "flexible_mask"))
        return next(name for number, name in last if instrument <= number)
    if kind == 3:
        return "replay" if instrument in (5, 10, 15) else "print"
    if kind in (4, 5):
        return {4: "replay", 5: "makeup"}[kind]
    raise UserError(f"{path}: of type {kind}; WMCA has 0 to 5")


def read_frames(path: Path) -> list[NDArray[np.uint8]]:
    """The frames of a recording in order, uint8 RGB [height, width, 3] each. Raises UserError."""
    h5py = _library()
    try:
        with h5py.File(path, "r") as file:
            names = sorted((int(name.rpartition("_")[2]), name) for name in file if name.startswith("Frame_"))
            frames = [np.asarray(file[name]["array"]) for _, name in names]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); move it away") from None
    frames = [np.moveaxis(frame, 0, 2) if frame.ndim == 3 and frame.shape[0] == 3 else frame for frame in frames]
    if not frames or any(frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 for frame in frames):
        raise UserError(f"{path}: has no Frame_0/array of RGB in 8 bits; give the folder of the colour channel")
    return frames


def _parts(path: Path) -> tuple[str, ...] | None:
    """client, session, presenter, type and instrument of a file of the data set."""
    match = NAME.fullmatch(path.name)
    return match.groups() if match else None


def _library() -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError("wmca needs h5py: pip install 'livetrain[wmca]'") from None
    return h5py
