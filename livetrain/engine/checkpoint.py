"""Checkpoints: folders that are whole or absent, checked when loaded, and free of pickled code.

    checkpoints/step-00001500/   model.safetensors, ema.safetensors?, state.pt, checkpoint.json (SHA-256 of the others)
    checkpoints/best-00001000/   model.safetensors (what evaluation scored), checkpoint.json, threshold.json?

threshold.json comes later, from the verdict (livetrain.verdict.threshold), so it has no checksum in checkpoint.json.

A folder is written aside, fsynced, and renamed into place; only then are older ones pruned. `step` counts finished
updates. livetrain.engine.writer does this in the background.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from livetrain.errors import UserError
from livetrain.fileio import file_sha256, fsync_folder, write_json

MANIFEST = "checkpoint.json"
MODEL, EMA, STATE = "model.safetensors", "ema.safetensors", "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from. `state`: optimizer, scaler and counters, tensors and plain numbers only."""

    step: int
    model: dict[str, torch.Tensor]
    ema: dict[str, torch.Tensor] | None
    state: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, keep_last: int, keep_every: int = 0) -> Path:
    """Write `folder`/step-NNNNNNNN, then prune all but the `keep_last` newest and every `keep_every`-th step (0: none).

    Call it on one process. Tensors must be dense and share no memory (see `snapshot`). Raises UserError when it cannot
    be written (disk full); the checkpoints before it are untouched.
    """

    def write(temporary: Path) -> None:
        save_file(checkpoint.model, temporary / MODEL)
        if checkpoint.ema is not None:
            save_file(checkpoint.ema, temporary / EMA)
        torch.save(checkpoint.state, temporary / STATE)

    target = _write_folder(folder / f"step-{checkpoint.step:08d}", checkpoint.step, {}, write)
    for old in list_steps(folder)[:-keep_last]:
        if not keep_every or step_of(old) % keep_every:
            _remove(old)
    return target


def save_best(folder: Path, step: int, model: dict[str, torch.Tensor], figures: dict[str, Any]) -> Path:
    """Write `folder`/best-NNNNNNNN with the weights that were scored, then remove the best one before.

    Tensors and errors are as in `save`.
    """
    target = _write_folder(
        folder / f"best-{step:08d}", step, figures, lambda temporary: save_file(model, temporary / MODEL)
    )
    for old in folder.glob("best-*"):
        if old != target:
            _remove(old)
    return target


def load(path: Path) -> Checkpoint:
    """Load a step folder. Raises UserError when it is incomplete, damaged or of another kind."""
    manifest = check(path)
    if not (path / STATE).exists():
        raise UserError(f"{path} holds weights to evaluate, no state to go on from; choose a step-* folder")
    try:
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path / STATE} holds more than tensors and numbers; livetrain did not write it") from None
    ema = path / EMA
    return Checkpoint(manifest["step"], load_file(path / MODEL), load_file(ema) if ema.exists() else None, state)


def load_best(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """(weights, its manifest) of the best checkpoint in `folder`, or None when there is none yet."""
    found = best_folder(folder)
    if found is None:
        return None
    manifest = check(found)
    return load_file(found / MODEL), manifest


def best_folder(folder: Path) -> Path | None:
    """The folder of the best checkpoint in `folder`, or None when there is none yet."""
    return max(folder.glob("best-*"), default=None)


def newest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint in `folder` that is whole, or None; damaged ones are passed over with a warning."""
    for path in reversed(list_steps(folder)):
        try:
            return load(path)
        except UserError as error:
            warn(f"warning: {error}; trying the one before")
    return None


def list_steps(folder: Path) -> list[Path]:
    """The step folders in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def step_of(path: Path) -> int:
    """The number of finished updates in a checkpoint folder's name."""
    return int(path.name.rpartition("-")[2])


def snapshot(value: Any, buffers: dict[str, torch.Tensor], path: str = "") -> Any:
    """A copy of nested dicts, lists and tuples in which each tensor is a dense one in memory of its own, on the CPU.

    `buffers` holds that memory from call to call (pinned where the tensor is on CUDA, and then the copy is under way
    until the device is synchronised): the copy before must be done with.
    """
    if isinstance(value, torch.Tensor):
        buffer = buffers.get(path)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            buffer = buffers[path] = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
        buffer.copy_(value.detach(), non_blocking=True)
        return buffer
    if isinstance(value, Mapping):
        return {key: snapshot(item, buffers, f"{path}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item, buffers, f"{path}/{number}") for number, item in enumerate(value))
    return value


def _write_folder(target: Path, step: int, figures: dict[str, Any], write: Callable[[Path], None]) -> Path:
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        files = sorted(temporary.iterdir())
        for path in files:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        sums = {path.name: file_sha256(path) for path in files}
        write_json(temporary / MANIFEST, {"step": step, "sha256": sums, **figures})
        if target.exists():
            _remove(target)  # a damaged one of the same step: a run goes on from the newest that is whole
        temporary.rename(target)
        fsync_folder(target.parent)
    except (OSError, RuntimeError) as error:  # torch.save and safetensors raise RuntimeError for a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"cannot write checkpoint {target}: {error}; free some space or set run_dir") from error
    return target


def check(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are what was written. Raises UserError otherwise."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        damaged = [name for name, digest in manifest["sha256"].items() if file_sha256(path / name) != digest]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no whole checkpoint ({type(error).__name__}: {error})") from None
    if damaged:
        raise UserError(f"{path} is damaged: {', '.join(damaged)} is not what was written")
    return manifest


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that no half of it is left under its name by a kill."""
    condemned = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(condemned, ignore_errors=True)
    folder.rename(condemned)
    shutil.rmtree(condemned, ignore_errors=True)
