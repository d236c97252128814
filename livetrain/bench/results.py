"""A benchmark's result as Markdown and JSON.

Ratios first, then what was measured, then command, versions and hardware.
"""

from __future__ import annotations

import datetime
import math
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from livetrain.core.files import write_json, write_text
from livetrain.core.machine import num_cores
from livetrain.core.tables import markdown

PACKAGES = ("torch", "timm", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "av", "numpy", "webdataset")


@dataclass
class Table:
    """A caption and rows of cells under `header`."""

    caption: str
    header: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)


@dataclass
class Report:
    """Everything a bench found. ratios: name → number that does not depend on the machine's speed (for the guard).

    measurements: what `livetrain plan` is checked against, in the JSON alone (their form: livetrain.planner.check).
    """

    title: str
    summary: str
    tables: list[Table]
    ratios: dict[str, float] = field(default_factory=dict)
    packages: Sequence[str] = ()
    measurements: Sequence[dict[str, Any]] = ()

    def text(self, command: Sequence[str] | None = None) -> str:
        """The report as Markdown."""
        command = command or ["livetrain", *sys.argv[1:]]
        parts = [f"# {self.title}", self.summary]
        parts += [f"{table.caption}\n\n{markdown(table.header, table.rows)}" for table in self.tables]
        parts.append(
            f"Made by `{shlex.join(command)}` on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}.\n\n"
            f"Hardware: {hardware()}.\n\nVersions: {versions([*PACKAGES, *self.packages])}."
        )
        return "\n\n".join(parts) + "\n"

    def to_dict(self, command: Sequence[str]) -> dict[str, Any]:
        """The report for programs; numbers that are not finite are None."""
        return {
            "title": self.title,
            "command": shlex.join(command),
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
            "hardware": hardware(),
            "versions": versions([*PACKAGES, *self.packages]),
            "tables": [
                {"caption": table.caption, "header": list(table.header), "rows": [list(row) for row in table.rows]}
                for table in self.tables
            ],
            "ratios": self.ratios,
            "measurements": list(self.measurements),
        }

    def write(self, path: Path, command: Sequence[str] | None = None) -> None:
        """Write the report, atomically, and beside it NAME.json."""
        command = command or ["livetrain", *sys.argv[1:]]
        write_text(path, self.text(command))
        write_json(path.with_suffix(".json"), _finite(self.to_dict(command)))


def hardware() -> str:
    """Processor, cores this process may use, memory, and GPUs if there are any."""
    name = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    text = f"{num_cores()} cores of {name}, {psutil.virtual_memory().total / 2**30:.0f} GiB"
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"{text}, {', '.join(names)}"
    return f"{text}, no GPU"


def versions(packages: Sequence[str]) -> str:
    """Python's and the installed packages' versions."""
    found = [f"Python {platform.python_version()}"]
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
