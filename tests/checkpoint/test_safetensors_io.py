"""Tensors of a checkpoint: out of nested values and back, shared out, in shards of any number of processes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

from livetrain.checkpoint import host_copy, safetensors_io


def test_tensors_are_taken_out_and_put_back() -> None:
    value = {"a": [torch.ones(2), 3, {"b": torch.zeros(1)}], 7: (None, torch.tensor(5.0)), "text": "tensor"}
    outline, tensors = safetensors_io.take_out(value, "state")
    assert sorted(tensors) == ["state/7/1", "state/a/0", "state/a/2/b"]
    assert outline[7] == (None, "tensor:state/7/1") and outline["text"] == "tensor"
    assert safetensors_io.names_in(outline) == ["state/a/0", "state/a/2/b", "state/7/1"]
    again = safetensors_io.put_back(outline, tensors.__getitem__)
    assert again["a"][0] is value["a"][0] and again[7][1] is value[7][1]  # type: ignore[index]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shares_are_whole_disjoint_and_about_alike(world: int) -> None:
    num_bytes = {f"w{i}": 100 + 7 * i for i in range(40)} | {"statistics": 50}
    shares = safetensors_io.share(num_bytes, ["statistics"], world)
    assert len(shares) == world and "statistics" in shares[0]
    assert sorted(name for mine in shares for name in mine) == sorted(num_bytes)
    loads = [sum(num_bytes[name] for name in mine) for mine in shares]
    assert max(loads) - min(loads) <= max(num_bytes.values())
    assert shares == safetensors_io.share(dict(reversed(num_bytes.items())), ["statistics"], world), (
        "on all processes alike"
    )


def test_large_tensors_go_into_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_io, "FILE_BYTES", 1000)
    tensors = {f"w{i}": torch.full((100,), float(i)) for i in range(5)}
    files = safetensors_io.write(tmp_path, tensors, rank=2)
    assert [path.name for path in files] == [f"shard-00003-model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    stored = safetensors_io.Stored(tmp_path)
    assert stored.shapes["w3"] == (100,) and stored.dtypes["w3"] == torch.float32
    assert {name: float(t[0]) for name, t in stored.read(["w4", "w0"]).items()} == {"w4": 4.0, "w0": 0.0}


WHOLE = {"odd": (7, 3), "one row": (1, 5), "vector": (8,)}


def make_whole() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in WHOLE.items()}


def in_shards(rank: int, world: int, folder: Path, store: Path, message: Any) -> None:
    """A process that writes its shards of `WHOLE` with what is in the folder already read into shards first."""
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    whole = make_whole()
    shards = {name: distribute_tensor(tensor, mesh, [Shard(0)]) for name, tensor in whole.items()}
    right = True
    if any(folder.glob("*.safetensors")):
        into: dict[str, torch.Tensor] = {name: torch.zeros_like(shard) for name, shard in shards.items()}
        read = safetensors_io.Stored(folder).read(list(WHOLE), into)
        right = all(isinstance(t, DTensor) for t in read.values())
        right &= all(torch.equal(into[n].to_local(), shards[n].to_local()) for n in WHOLE)  # type: ignore[attr-defined]
    distributed.barrier()
    copied = host_copy.snapshot(shards, {})
    for shard in shards.values():
        shard.to_local().zero_()
    safetensors_io.write(folder, copied, rank)
    distributed.barrier()
    message.put(right)
    distributed.destroy_process_group()


def test_shards_of_three_processes_are_read_by_two_and_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "tensors"
    folder.mkdir()
    context = multiprocessing.get_context("forkserver")
    for world in (3, 2):
        message = context.Queue()
        arguments = (world, folder, tmp_path / f"store-{world}", message)
        processes = [context.Process(target=in_shards, args=(rank, *arguments)) for rank in range(world)]
        for process in processes:
            process.start()
        assert [message.get(timeout=50) for _ in range(world)] == [True] * world
        for process in processes:
            process.join(10)
        found = safetensors_io.Stored(folder).read(list(WHOLE))
        assert all(torch.equal(found[name], tensor) for name, tensor in make_whole().items())
        if world == 3:
            continue  # the next two processes read the shards of three, and write their own over them
        assert len(list(folder.iterdir())) == 3


def test_joined_tensors_are_read_by_the_library(tmp_path: Path) -> None:
    """All types, no numbers at all, and sizes that leave an int64 after them at an odd place."""
    tensors = {
        "a": torch.tensor([1.5]), "b": torch.tensor(7), "c": torch.arange(3, dtype=torch.bfloat16),
        "d": torch.tensor([True]), "e": torch.randn(3), "f": torch.tensor([2**40]), "g": torch.zeros(0, 4),
    }  # fmt: skip
    (tmp_path / "parts").mkdir()
    safetensors_io.write(tmp_path / "parts", tensors, 0)
    stored = safetensors_io.Stored(tmp_path / "parts")
    safetensors_io.join(stored, {f"x.{name}": name for name in sorted(stored.shapes)}, tmp_path / "joined.safetensors")
    found = load_file(tmp_path / "joined.safetensors")
    assert found.keys() == {f"x.{name}" for name in tensors}
    assert all(torch.equal(found[f"x.{name}"], value) for name, value in tensors.items())
