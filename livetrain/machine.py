"""What this process may use of its machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def num_cores(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """CPU cores that this process may keep busy, at least 1: those of its affinity (taskset, SLURM), and no more than
    the quota of its control groups (containers), rounded up."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(allowed, _quota(cgroups, own))))


def _quota(cgroups: Path, own: Path) -> float:
    """Cores that control groups of version 2 or 1 allow; infinity without a limit."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / "cpu" if controllers else cgroups
        folder = root / path.lstrip("/")
        # A limit of any group above holds too; in a container the path may be that of the host.
        for place in {root, folder, *folder.parents} if folder.is_dir() else {root}:
            if place == root or root in place.parents:
                least = min(least, _limit(place))
    return least


def _limit(folder: Path) -> float:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return math.inf if quota == "max" or float(quota) <= 0 else float(quota) / float(period)
    except (OSError, ValueError):
        return math.inf
