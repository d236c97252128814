"""The tensors of a checkpoint in safetensors files, written and read by torch.distributed.checkpoint.

Every process writes a share into files of its own, independently: its shards where the model is in
shards (FSDP2), else a part of the tensors that all hold alike, so that neither the copy nor the disk waits for one
process. What is read back knows nothing of who wrote it: whole tensors, or any other cut into shards. torch's own
`FileSystemWriter` is not used, since its metadata are a pickle.

A tensor is named by its place in what was saved, as in `optimizer/state/0/exp_avg`.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import math
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import (
    DefaultSavePlanner,
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
    Metadata,
    SavePlan,
    load,
    save,
)
from torch.distributed.checkpoint.api import CheckpointException

FILE_BYTES = 2**28  # a file is made in memory before it is written
MARK = "tensor:"
DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

# What `no_dist` asks for.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


def take_out(value: Any, path: str = "") -> tuple[Any, dict[str, torch.Tensor]]:
    """Nested dicts, lists and tuples with a text instead of each tensor, and the tensors by name."""
    tensors: dict[str, torch.Tensor] = {}

    def walk(item: Any, at: str) -> Any:
        if isinstance(item, torch.Tensor):
            tensors[at] = item
            return MARK + at
        if isinstance(item, Mapping):
            return {key: walk(inner, f"{at}/{key}" if at else str(key)) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return type(item)(walk(inner, f"{at}/{number}") for number, inner in enumerate(item))
        return item

    return walk(value, path), tensors


def put_back(value: Any, tensor_of: Callable[[str], torch.Tensor]) -> Any:
    """What `take_out` took the tensors out of, with `tensor_of(name)` in their places."""
    if isinstance(value, str) and value.startswith(MARK):
        return tensor_of(value.removeprefix(MARK))
    if isinstance(value, Mapping):
        return {key: put_back(item, tensor_of) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(put_back(item, tensor_of) for item in value)
    return value


def names_in(value: Any) -> list[str]:
    """The names of the tensors that were taken out of `value`, in order."""
    names: list[str] = []

    def note(name: str) -> torch.Tensor:
        names.append(name)
        return torch.empty(0)

    put_back(value, note)
    return names


def share(num_bytes: Mapping[str, int], first: Collection[str], world: int) -> list[set[str]]:
    """Which process writes which tensors, about as many bytes each; those in `first` are the first process's.

    num_bytes: of each tensor, the same on all processes.
    """
    shares: list[set[str]] = [set(first)] + [set() for _ in range(world - 1)]
    loads = [(sum(num_bytes[name] for name in mine), rank) for rank, mine in enumerate(shares)]
    heapq.heapify(loads)
    for name in sorted(num_bytes.keys() - set(first), key=lambda name: (-num_bytes[name], name)):
        load_so_far, rank = loads[0]
        shares[rank].add(name)
        heapq.heapreplace(loads, (load_so_far + num_bytes[name], rank))
    return shares


def write(folder: Path, tensors: Mapping[str, torch.Tensor], rank: int) -> list[Path]:
    """Write this process's tensors into files of its own in `folder`, which exists.

    Dense and on the CPU; DTensors where they are in shards. Returns the files. Raises OSError, RuntimeError.
    """
    own = f"shard-{rank + 1:05d}-*.safetensors"
    for stale in folder.glob(own):  # of an attempt that was killed
        stale.unlink()
    if not tensors:
        return []
    writer = _Writer(folder, rank, _files(tensors))
    try:
        save(dict(tensors), storage_writer=writer, planner=_OwnShare(flatten_state_dict=False), no_dist=True)
    except CheckpointException as error:  # a BaseException
        raise _first(error) from None
    return sorted(folder.glob(own))


class Stored:
    """The tensors in a folder, whoever wrote them. shapes, dtypes: by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found: dict[str, Any] = {}
        if any(folder.glob("*.safetensors")):
            found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
        self.shapes = {name: tuple(item.size) for name, item in found.items()}
        self.dtypes: dict[str, torch.dtype] = {name: item.properties.dtype for name, item in found.items()}

    def read(self, names: Collection[str], into: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """The tensors called `names`, whole and on the CPU.

        Those in `into` are read into what it has for them, which may be a DTensor: then no more is read than this
        process's shard. Raises KeyError, RuntimeError.
        """
        into = into or {}
        found = {
            name: into[name] if name in into else torch.empty(self.shapes[name], dtype=self.dtypes[name])
            for name in names
        }
        if found:
            try:
                load(dict(found), storage_reader=HuggingFaceStorageReader(str(self._folder)), no_dist=True)
            except CheckpointException as error:
                raise _first(error) from None
        return found


def join(stored: Stored, names: Mapping[str, str], out: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as one safetensors file.

    No more than FILE_BYTES of them, or one, are in memory at a time (the library takes all at once). names: in the file
    → in `stored`. The layout: https://github.com/huggingface/safetensors#format.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    groups: list[list[str]] = [[]]
    at = filled = 0
    for name, source in names.items():
        shape, dtype = stored.shapes[source], stored.dtypes[source]
        size = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
        if filled and filled + size > FILE_BYTES:
            groups, filled = [*groups, []], 0
        groups[-1].append(source)
        filled += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with out.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for group in groups:
            found = stored.read(group)
            for source in group:
                file.write(found.pop(source).contiguous().reshape(-1).view(torch.uint8).numpy().data)


class _Writer(HuggingFaceStorageWriter):
    """Files named by the process: it plans by itself, so its number is not its place among the plans."""

    def __init__(self, folder: Path, rank: int, files: dict[str, int]) -> None:
        super().__init__(str(folder), fqn_to_index_mapping=files, save_distributed=True)
        self._rank = rank

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        number = {"shard_index": self._rank + 1}
        return [
            dataclasses.replace(plan, storage_data={**plan.storage_data, **number})
            for plan in super().prepare_global_plan(plans)
        ]


class _OwnShare(DefaultSavePlanner):
    """A plan that does not ask whether the shards of this process make whole tensors. The files say where they lie."""

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        return all_plans, Metadata(state_dict_metadata={})


def _files(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """The number of the file of each tensor, from 1, so that no file is much larger than FILE_BYTES."""
    files, number, filled = {}, 1, 0
    for name, tensor in tensors.items():
        size = math.prod(tensor.shape) * tensor.element_size()
        if filled and filled + size > FILE_BYTES:
            number, filled = number + 1, 0
        files[name] = number
        filled += size
    return files


def _first(error: CheckpointException) -> Exception:
    """What went wrong, without torch's wrapping."""
    cause = next(iter(error.failures.values()))[0]
    return cause if isinstance(cause, OSError | RuntimeError) else RuntimeError(f"{type(cause).__name__}: {cause}")
