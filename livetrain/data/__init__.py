"""Batches as a pure function of (dataset, seed, step): plan ─▶ fetch ─▶ decode ─▶ graph ─▶ loader."""

from livetrain.data import attack_types, leaks
from livetrain.data.dataset import Dataset, FetchError
from livetrain.data.decode import DecodeError
from livetrain.data.files import VideoFiles, files_loader
from livetrain.data.loader import Batch, Failure, Loader, eval_loader, train_loader
from livetrain.data.plan import PADDING, epoch_of_step, num_train_steps

__all__ = [
    "PADDING",
    "Batch",
    "Dataset",
    "DecodeError",
    "Failure",
    "FetchError",
    "Loader",
    "VideoFiles",
    "attack_types",
    "epoch_of_step",
    "eval_loader",
    "files_loader",
    "leaks",
    "num_train_steps",
    "train_loader",
]
