"""Cores that a process may use: its affinity, and the quota of its control groups."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from livetrain.core.machine import num_cores, status_bytes


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))


def groups(folder: Path, own: str, files: dict[str, str]) -> int:
    for name, text in files.items():
        (folder / "cg" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cg" / name).write_text(text)
    (folder / "own").write_text(own)
    return num_cores(folder / "cg", folder / "own")


V1 = "cpu/a/cpu.cfs_"


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/pod/job\n", {"pod/cpu.max": "300000 100000\n", "pod/job/cpu.max": "max 100000\n"}, 3),
        ("0::/host/path\n", {"cpu.max": "50000 100000\n"}, 1),
        (
            "4:cpu,cpuacct:/a\n3:memory:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000"},
            4,
        ),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 8),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 8),
    ],
)
def test_quotas(own: str, files: dict[str, str], wanted: int, tmp_path: Path) -> None:
    assert groups(tmp_path, own, files) == wanted


def test_without_control_groups_it_is_the_affinity(tmp_path: Path) -> None:
    assert num_cores(tmp_path, tmp_path / "absent") == 8


def test_memory_of_this_process() -> None:
    before = status_bytes("RssAnon")
    # Pages of its own: what malloc gives may be memory that an earlier test freed and the process still holds.
    with mmap.mmap(-1, 40_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(b"x" * len(held))
        assert 30e6 < status_bytes("RssAnon") - before < 200e6
    assert status_bytes("VmHWM") >= status_bytes("VmRSS") > status_bytes("RssAnon")
    with pytest.raises(StopIteration):
        status_bytes("Vm")
