"""Batches as a pure function of (dataset, seed, step): plan ─▶ fetch ─▶ decode ─▶ graph ─▶ loader.

Names are imported when they are used: torch and DALI take seconds, and a process that decodes needs neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from livetrain.data import download_cost, face_tracks, leaks, targets
    from livetrain.data.batch import Batch, Failure
    from livetrain.data.clip_plan import PADDING
    from livetrain.data.dataset import Dataset, FetchError
    from livetrain.data.decode import DecodeError
    from livetrain.data.faceless import face_notices
    from livetrain.data.loader import Loader
    from livetrain.data.loaders import eval_loader, files_loader, train_loader
    from livetrain.data.plan import epoch_of_step, num_train_steps
    from livetrain.data.video_files import VideoFiles

__all__ = [
    "PADDING",
    "Batch",
    "Dataset",
    "DecodeError",
    "Failure",
    "FetchError",
    "Loader",
    "VideoFiles",
    "download_cost",
    "epoch_of_step",
    "eval_loader",
    "face_notices",
    "face_tracks",
    "files_loader",
    "leaks",
    "num_train_steps",
    "targets",
    "train_loader",
]

_MODULES = {
    "clip_plan": ("PADDING",),
    "dataset": ("Dataset", "FetchError"),
    "decode": ("DecodeError",),
    "video_files": ("VideoFiles",),
    "faceless": ("face_notices",),
    "batch": ("Batch", "Failure"),
    "loader": ("Loader",),
    "loaders": ("eval_loader", "files_loader", "train_loader"),
    "plan": ("epoch_of_step", "num_train_steps"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in ("targets", "face_tracks", "leaks", "download_cost"):
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
