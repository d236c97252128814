"""Checkpoints: folders that are whole or absent, checked when loaded, and free of pickled code.

    checkpoints/step-00001500/   tensors/shard-RANK-….safetensors (safetensors_io.py), state.pt, checkpoint.json
    checkpoints/best-00001000/   model.safetensors (what evaluation scored), checkpoint.json, threshold.json?

checkpoint.json has the SHA-256 of the others. state.pt is what tensors are not: numbers, and where each tensor stands.
threshold.json comes later, from the verdict (livetrain.verdict.threshold), so it has no checksum there.

A folder is written aside, fsynced, and renamed into place; only then are older ones pruned. `step` counts finished
updates. livetrain.checkpoint.async_writer does this in the background. Each of several processes writes its share, and
the first one makes a checkpoint of it when all have: the folder must be the same one for all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from livetrain.checkpoint import safetensors_io
from livetrain.checkpoint.barrier import RankBarrier
from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256, fsync_folder, save_tensors, write_json

MANIFEST = "checkpoint.json"
MODEL, STATE, TENSORS = "model.safetensors", "state.pt", "tensors"
SECONDS_TO_BE_SEEN = 60.0  # network file systems show other machines' files late


@dataclass(frozen=True)
class Checkpoint:
    """What a run resumes from.

    `state`: optimizer, scaler and counters, tensors and plain numbers only. An outline of one has names instead of
    tensors (see `share_of`).
    """

    step: int
    model: dict[str, Any]
    ema: dict[str, Any] | None
    state: dict[str, Any]


@dataclass(frozen=True)
class CheckpointReader:
    """A checkpoint on the disk, found whole. Its tensors are read when asked for."""

    path: Path
    step: int
    outline: dict[str, Any]  # of a Checkpoint's fields, with names instead of tensors
    stored: safetensors_io.Stored

    def part(self, *keys: str, into: Mapping[str, torch.Tensor] | None = None) -> Any:
        """A field of the checkpoint or a part of one, `part("state", "optimizer")`.

        Whole tensors on the CPU, or those in `into` (see safetensors_io.Stored.read).
        """
        value: Any = self.outline
        for key in keys:
            value = value[key]
        return safetensors_io.put_back(value, self.stored.read(safetensors_io.names_in(value), into).__getitem__)

    def blank(self, *keys: str) -> Any:
        """As `part`, but nothing is read: tensors of the right shape and type that hold anything."""
        value: Any = self.outline
        for key in keys:
            value = value[key]
        shapes, dtypes = self.stored.shapes, self.stored.dtypes
        return safetensors_io.put_back(value, lambda name: torch.empty(shapes[name], dtype=dtypes[name]))


def share_of(
    checkpoint: Checkpoint, alike: Callable[[str], bool], team: RankBarrier
) -> tuple[Checkpoint, dict[str, Any]]:
    """(an outline of the checkpoint, the tensors that this process is to write, by name).

    alike: whether all processes hold the same under a name. Shards are everyone's own; what is neither is the first
    process's.
    """
    fields = {"model": checkpoint.model, "ema": checkpoint.ema, "state": checkpoint.state}
    outline, tensors = safetensors_io.take_out(fields)
    num_bytes = {
        name: tensor.numel() * tensor.element_size()
        for name, tensor in tensors.items()
        if not isinstance(tensor, DTensor)
    }
    mine = safetensors_io.share(num_bytes, [name for name in num_bytes if not alike(name)], team.world)[team.rank]
    share = {
        name: tensor
        for name, tensor in tensors.items()
        if (_is_first_copy(tensor) if isinstance(tensor, DTensor) else name in mine)
    }
    return Checkpoint(checkpoint.step, **outline), share


def own_share(tensors: Mapping[str, torch.Tensor], team: RankBarrier) -> dict[str, torch.Tensor]:
    """Of weights in shards, what this process is to write: its shards, and on the first one what is in none."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if (_is_first_copy(tensor) if isinstance(tensor, DTensor) else team.is_first)
    }


def _is_first_copy(tensor: DTensor) -> bool:
    """Whether of the processes with this shard (HSDP has several) this one is the first."""
    place = tensor.device_mesh.get_coordinate() or ()
    return all(at == 0 for at, placement in zip(place, tensor.placements, strict=True) if placement.is_replicate())


def save(
    folder: Path,
    checkpoint: Checkpoint,
    *,
    keep_last: int,
    keep_every: int = 0,
    share: Mapping[str, torch.Tensor] | None = None,
    team: RankBarrier | None = None,
) -> Path:
    """Write `folder`/step-NNNNNNNN, then prune all but the `keep_last` newest and every `keep_every`-th step (0: none).

    Alone, or on every process of `team` with `checkpoint` and `share` as `share_of` gives them; only the first returns
    when the folder is there. Tensors must be dense, on the CPU, and share no memory (see `snapshot`). Raises UserError
    when it cannot be written (disk full); the checkpoints before it are untouched.
    """
    team = team or RankBarrier()
    if share is None:
        checkpoint, share = share_of(checkpoint, lambda name: True, team)

    def write(temporary: Path) -> list[Path]:
        (temporary / TENSORS).mkdir(exist_ok=True)
        files = safetensors_io.write(temporary / TENSORS, share, team.rank)
        if team.is_first:
            outline = {"model": checkpoint.model, "ema": checkpoint.ema, "state": checkpoint.state}
            torch.save(outline, temporary / STATE)
            files.append(temporary / STATE)
        return files

    target = _write_folder(folder / f"step-{checkpoint.step:08d}", checkpoint.step, {}, write, team)
    if team.is_first:
        for old in list_steps(folder)[:-keep_last]:
            if not keep_every or step_of(old) % keep_every:
                _prune(old)
    return target


def save_best(
    folder: Path, step: int, model: Mapping[str, torch.Tensor], figures: dict[str, Any], team: RankBarrier | None = None
) -> Path:
    """Write `folder`/best-NNNNNNNN with the weights that were scored, then remove the best one before.

    Call it on one process, or on every one of `team` with its share of the weights: the first one joins them, a tensor
    at a time. Tensors and errors are as in `save`.
    """
    team = team or RankBarrier()

    def write(temporary: Path) -> list[Path]:
        if team.world == 1:
            save_tensors(model, temporary / MODEL)
            return [temporary / MODEL]
        (temporary / TENSORS).mkdir(exist_ok=True)
        return safetensors_io.write(temporary / TENSORS, model, team.rank)

    def join(temporary: Path) -> list[Path]:
        stored = safetensors_io.Stored(temporary / TENSORS)
        safetensors_io.join(stored, {name: name for name in sorted(stored.shapes)}, temporary / MODEL)
        shutil.rmtree(temporary / TENSORS)
        return [temporary / MODEL]

    target = folder / f"best-{step:08d}"
    _write_folder(target, step, figures, write, team, join if team.world > 1 else None)
    if team.is_first:
        for old in folder.glob("best-*"):
            if old != target:
                _prune(old)
    return target


def load(path: Path) -> CheckpointReader:
    """Open a step folder. Raises UserError when it is incomplete, damaged or of another kind."""
    return _open(path, check(path))


def open_checked(path: Path) -> CheckpointReader:
    """`load` of a folder that another process has checked: its files are not read through."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a complete checkpoint ({type(error).__name__}: {error})") from None
    return _open(path, manifest)


def _open(path: Path, manifest: dict[str, Any]) -> CheckpointReader:
    if not (path / STATE).exists():
        raise UserError(f"{path} holds weights to evaluate, no state to resume from; choose a step-* folder")
    try:
        outline = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path / STATE} holds more than tensors and numbers; livetrain did not write it") from None
    if not (path / TENSORS).is_dir() or "model" not in outline:
        raise UserError(f"{path} was written by an older version of livetrain, which has to resume from it")
    return CheckpointReader(path, manifest["step"], outline, safetensors_io.Stored(path / TENSORS))


def load_weights(path: Path, *, averaged: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(weights, manifest) of a folder of either kind.

    averaged: the moving average, where the folder has one beside the weights. Raises UserError as `load` does.
    """
    return read_weights(path, check(path), averaged=averaged)


def read_weights(
    path: Path, manifest: dict[str, Any], *, averaged: bool
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """`load_weights` of a folder whose manifest was checked."""
    if (path / MODEL).exists():
        return load_file(path / MODEL), manifest
    saved = _open(path, manifest)
    return saved.part("ema" if averaged and saved.outline["ema"] is not None else "model"), manifest


def stored_weights(path: Path, manifest: dict[str, Any], *, averaged: bool) -> tuple[safetensors_io.Stored, str]:
    """What `read_weights` reads, unread.

    (the tensors of a folder whose manifest was checked, the prefix of the weights' names there).
    """
    if (path / MODEL).exists():
        return safetensors_io.Stored(path), ""
    saved = _open(path, manifest)
    return saved.stored, "ema/" if averaged and saved.outline["ema"] is not None else "model/"


def newest(folder: Path, warn: Callable[[str], None]) -> CheckpointReader | None:
    """The newest checkpoint in `folder` that is whole, or None; damaged ones are passed over with a warning."""
    for path in reversed(list_steps(folder)):
        try:
            return load(path)
        except UserError as error:
            warn(f"warning: {error}; trying the one before")
    return None


def weights_sha256(path: Path) -> str:
    """SHA-256 of the tensors in a checkpoint's folder, from its manifest.

    Of model.safetensors, or of the digests of all files of a step-* folder by name. "" where there is no manifest.
    """
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return ""
    return str(sums[MODEL]) if MODEL in sums else hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def list_steps(folder: Path) -> list[Path]:
    """The step folders in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def step_of(path: Path) -> int:
    """The number of finished updates in a checkpoint folder's name."""
    return int(path.name.rpartition("-")[2])


def _write_folder(
    target: Path,
    step: int,
    figures: dict[str, Any],
    write: Callable[[Path], list[Path]],
    team: RankBarrier,
    join: Callable[[Path], list[Path]] | None = None,
) -> Path:
    """Write a folder aside on every process and make it `target` on the first.

    `write(aside)` returns its files. join: what the first process makes of all files before, with its own in their
    place.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    own = _write_part(temporary, write, team)
    if not team.is_first:
        try:
            team.report(target.name, own)
        except RuntimeError:
            own = {"error": "rank 0 is gone"}
        if "error" in own:
            raise UserError(f"cannot write checkpoint {target}: {own['error']}")
        return target
    try:
        parts = [own, *team.reports(target.name)]
        errors = [part["error"] for part in parts if "error" in part]
        if errors:
            raise OSError("; ".join(errors))
        sums = {name: digest for part in parts for name, digest in part["sha256"].items()}
        _keep_only(temporary, sums)
        if join is not None:
            sums = _sums_of(temporary, join(temporary))
        write_json(temporary / MANIFEST, {"step": step, "sha256": sums, **figures})
        if target.exists():
            _remove(target)  # a damaged one of the same step: a run resumes from the newest that is whole
        temporary.rename(target)
        fsync_folder(target.parent)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"cannot write checkpoint {target}: {error}; free some space or set run_dir") from error
    return target


def _write_part(temporary: Path, write: Callable[[Path], list[Path]], team: RankBarrier) -> dict[str, Any]:
    """{"sha256": of each file written} or {"error": why not}."""
    try:
        if team.world == 1:
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True, exist_ok=True)
        return {"sha256": _sums_of(temporary, write(temporary))}
    except (OSError, RuntimeError) as error:  # torch.save and safetensors raise RuntimeError for a full disk
        return {"error": str(error) if team.world == 1 else f"rank {team.rank}: {error}"}


def _sums_of(temporary: Path, files: list[Path]) -> dict[str, str]:
    """SHA-256 of each file by its name in the folder, when they are on the disk."""
    for path in files:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    for folder in {path.parent for path in files} - {temporary}:
        fsync_folder(folder)
    return {str(path.relative_to(temporary)): file_sha256(path) for path in files}


def _keep_only(folder: Path, names: Collection[str]) -> None:
    """Remove what a killed attempt left in a folder. Raises OSError when one of `names` is not there."""
    patience = time.monotonic() + SECONDS_TO_BE_SEEN
    while True:
        found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        missing = sorted(set(names) - found.keys())
        if not missing:
            break
        if time.monotonic() > patience:
            raise OSError(f"{missing[0]} is not to be seen by rank 0; run_dir must be one folder for all machines")
        time.sleep(0.5)
    for name in found.keys() - set(names):
        found[name].unlink()


def check(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are what was written. Raises UserError otherwise."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        damaged = [name for name, digest in manifest["sha256"].items() if file_sha256(path / name) != digest]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a complete checkpoint ({type(error).__name__}: {error})") from None
    if damaged:
        raise UserError(f"{path} is damaged: {', '.join(damaged)} is not what was written")
    return manifest


def _prune(folder: Path) -> None:
    """Remove an older checkpoint. Where that fails (a file in use on NFS) the run continues; the next save tries it."""
    try:
        _remove(folder)
    except OSError as error:
        print(f"warning: cannot remove {folder}: {error.strerror or error}", file=sys.stderr, flush=True)


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that no half of it is left under its name by a kill."""
    condemned = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(condemned, ignore_errors=True)
    folder.rename(condemned)
    shutil.rmtree(condemned, ignore_errors=True)
