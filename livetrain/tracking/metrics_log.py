"""metrics.jsonl, the source of truth of a run: one JSON object a line, in order, never rewritten.

A run that resumes from a checkpoint repeats some steps; they have the same figures, and are not written twice.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from livetrain.core.errors import MachineFault


class MetricsLog:
    """Appends to metrics.jsonl; each (kind, step) once."""

    def __init__(self, path: Path, *, is_new: bool) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_new:
            path.unlink(missing_ok=True)
        self.last_step: dict[str, int] = {}
        for record in read_metrics(path):
            kind = record["kind"]
            self.last_step[kind] = max(self.last_step.get(kind, -1), record["step"])
        _cut_torn_line(path)

    def write(self, record: dict[str, Any]) -> bool:
        """Append a record (`kind`, `step`, figures); non-finite figures become null. False when it is there already."""
        kind, step = record["kind"], record["step"]
        if step <= self.last_step.get(kind, -1):
            return False
        line = json.dumps({key: _finite(value) for key, value in record.items()}, allow_nan=False)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise MachineFault(f"cannot write {self.path}: {error.strerror}; free some space or set run_dir") from error
        self.last_step[kind] = step
        return True


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a torn last line (a run killed while writing) is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "kind" in record and "step" in record:
            records.append(record)
    return records


def _cut_torn_line(path: Path) -> None:
    if path.exists() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(data.rfind(b"\n") + 1)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
