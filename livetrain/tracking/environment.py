"""Where a run took place: versions, machine, device, code. Written to environment.json."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from livetrain.core.machine import num_cores

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "COMMIT"  # beside the packages in a snapshot: the commit that it was made of
PACKAGES = (
    "livetrain",
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "webdataset",
    "av",
    "numpy",
    "wandb",
)


def describe(device: torch.device, world: int) -> dict[str, Any]:
    """Versions, machine, device and commit as a JSON-able dict."""
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "cpu_count": num_cores(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() + " CPU",
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "num_processes": world,
        "git_commit": code_version(),
        "command": sys.argv,
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def code_version(folder: Path = ROOT) -> str | None:
    """The commit of the code, with `+changes` where the tree differs from it.

    Of a snapshot, that of its submission, not of the repository that it happens to lie in. None where it is not known.
    """
    noted = folder / COMMIT
    if noted.exists():
        return noted.read_text(encoding="utf-8").strip() or None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder.resolve():
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None
