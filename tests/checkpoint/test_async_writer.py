"""Checkpoints in the background: a copy of the moment, reported failures, and whole after kills."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from livetrain.checkpoint import folders, host_copy
from livetrain.checkpoint.async_writer import CheckpointWriter
from livetrain.checkpoint.barrier import RankBarrier
from livetrain.checkpoint.folders import Checkpoint
from livetrain.core.errors import UserError

REPO = Path(__file__).parents[2]


def make_writer(folder: Path, lines: list[str], keep_every: int = 0) -> CheckpointWriter:
    return CheckpointWriter(folder, keep_last=2, keep_every=keep_every, tell=lines.append)


def whole(step: int, weights: torch.Tensor) -> Checkpoint:
    return Checkpoint(step, {"w": weights}, None, {"optimizer": {"moment": weights * 2}})


def test_what_is_saved_is_what_was_there_at_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training changes the weights while the write is under way."""
    gate = threading.Event()
    real = folders.save

    def slow(*arguments: object, **options: object) -> Path:
        gate.wait()
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(folders, "save", slow)
    weights = torch.zeros(3)
    lines: list[str] = []
    with make_writer(tmp_path, lines) as writer:
        writer.save(whole(1, weights))
        weights += 1
        assert not lines and not list(tmp_path.iterdir()), "the call does not wait for the disk"
        gate.set()
        writer.wait()
        assert lines == [f"saved {tmp_path / 'step-00000001'}"]
        writer.save(whole(2, weights))
    assert lines[1:] == [f"saved {tmp_path / 'step-00000002'}"], "leaving waits for what was begun"
    for step, value in ((1, 0.0), (2, 1.0)):
        found = folders.load(tmp_path / f"step-{step:08d}")
        assert torch.equal(found.part("model")["w"], torch.full((3,), value))
        assert torch.equal(found.part("state", "optimizer")["moment"], torch.full((3,), 2 * value))


def test_some_are_kept_for_good(tmp_path: Path) -> None:
    with make_writer(tmp_path, [], keep_every=4) as writer:
        for step in range(1, 11):
            writer.save(whole(step, torch.ones(1)))
    assert [folders.step_of(path) for path in folders.list_steps(tmp_path)] == [4, 8, 9, 10]


def test_a_full_disk_is_told_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = folders.save
    lines: list[str] = []

    def full_at_two(folder: Path, item: Checkpoint, **options: Any) -> Path:
        if item.step == 2:
            raise UserError(f"cannot write checkpoint step-{item.step}: No space left on device")
        return real(folder, item, **options)

    monkeypatch.setattr(folders, "save", full_at_two)
    with make_writer(tmp_path, lines) as writer:
        for step in (1, 2, 3):
            writer.save(whole(step, torch.ones(1)))
    assert writer.num_failed == 1
    assert [line.split()[0] for line in lines] == ["saved", "warning:", "saved"]
    assert [folders.step_of(path) for path in folders.list_steps(tmp_path)] == [1, 3]


def test_a_process_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    """A collective fails when another process was killed; that one's part never comes."""
    lines: list[str] = []
    started = time.monotonic()
    team = RankBarrier(0, 2, HashStore(), patience_seconds=50)
    with (
        pytest.raises(RuntimeError, match="closed by peer"),
        CheckpointWriter(tmp_path, keep_last=2, keep_every=0, tell=lines.append, team=team) as writer,
    ):
        writer.save(whole(1, torch.ones(1)))
        time.sleep(0.2)
        raise RuntimeError("Connection closed by peer")
    assert time.monotonic() - started < 10
    assert len(lines) == 1 and "rank 1 did not write its part: it is gone" in lines[0]
    assert not list(tmp_path.iterdir())


def test_snapshot_is_dense_separate_and_reuses_its_memory() -> None:
    base = torch.arange(24.0).reshape(1, 2, 3, 4)
    tied = {"a": base, "b": base, "c": base.to(memory_format=torch.channels_last), "n": (1, [base[0, 0]])}
    buffers: dict[str, torch.Tensor] = {}
    first = host_copy.snapshot(tied, buffers)
    assert all(torch.equal(first[key], tied[key]) and first[key].is_contiguous() for key in "abc")
    assert len({first[key].data_ptr() for key in "abc"}) == 3 and isinstance(first["n"], tuple)
    pointers = {key: buffer.data_ptr() for key, buffer in buffers.items()}
    base += 1
    again = host_copy.snapshot(tied, buffers)
    assert {key: buffer.data_ptr() for key, buffer in buffers.items()} == pointers
    assert torch.equal(again["n"][1][0], base[0, 0])


@pytest.mark.parametrize("num_kills", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_a_kill_leaves_the_last_announced_checkpoint_or_a_newer_one(num_kills: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.checkpoint.killed_while_saving", str(tmp_path / "c"), str(num_kills)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=600)
    assert done.returncode == 0, done.stderr
    kills, hit = map(int, done.stdout.split())
    print(f"{kills} kills, {hit} of them in the middle of a write")
    assert kills == num_kills and hit >= num_kills / 5, "most kills must hit a write, or they prove nothing"
