"""Training clips that failed to load: a table of the run, and an error when there are too many.

A clip that fails once may load the next time. Lost is what failed the last time it was requested, by any process.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from accelerate.utils import gather_object

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.core.files import write_text
from livetrain.data import PADDING, Batch, Dataset

FILE_NAME = "lost.csv"  # in the run directory
COLUMNS = ("shard", "key", "video", "label", "attack_type", "subject", "step", "reason")
NEVER = -1


class LostClips:
    """What failed and what loaded, of this process until `agree` joins all of them."""

    def __init__(self, num_rows: int, before: Mapping[str, tuple[int, str]]) -> None:
        """num_rows: of the index. before: what `state` gave, of the attempts before this one."""
        self.failed = {int(row): (int(step), str(reason)) for row, (step, reason) in before.items()}
        self._arrived = np.full(num_rows, NEVER, np.int32)  # in which update, by row
        self._is_new = False

    def add(self, step: int, batches: Iterable[Batch]) -> None:
        """The micro-batches of an update."""
        for batch in batches:
            bad = {failure.row: failure.reason for failure in batch.failures}
            self.failed |= {row: (step, reason) for row, reason in bad.items()}
            rows = batch.rows[batch.rows != PADDING]
            self._arrived[rows[~np.isin(rows, list(bad))] if bad else rows] = step

    def agree(self) -> None:
        """Join what all processes know; each of them calls it."""
        found: dict[int, tuple[int, str]] = {}
        for failed in gather_object([self.failed]):
            for row, what in failed.items():
                found[row] = max(found.get(row, what), what)
        rows = np.array(sorted(found), np.int64)
        arrived = np.max(gather_object([self._arrived[rows]]), axis=0)
        self.failed = {
            row: found[row] for row, step in zip(rows.tolist(), arrived.tolist(), strict=True) if found[row][0] > step
        }

    def state(self) -> dict[str, tuple[int, str]]:
        """As a checkpoint holds it; of what all processes agreed on."""
        return {str(row): what for row, what in sorted(self.failed.items())}

    def check(self, config: Config, dataset: Dataset, num_wanted: int) -> None:
        """Raises UserError where more than data.max_lost_percent of `num_wanted` clips are lost."""
        percent = 100 * len(self.failed) / num_wanted
        if percent > config.data.max_lost_percent:
            row, (_, reason) = min(self.failed.items())
            raise UserError(
                f"{len(self.failed):,} of {num_wanted:,} training clips ({percent:.3g} %) failed to load the last time "
                f"they were requested (such as {dataset.text('key', row)} in {dataset.shard_path(row)}: {reason}), "
                f"more than data.max_lost_percent={config.data.max_lost_percent:g}; all are in "
                f"{Path(config.run_dir) / FILE_NAME}. Repair the shards (livetrain shards verify), or allow more"
            )

    def write(self, run_dir: Path, dataset: Dataset) -> None:
        """The table of them, where there are any; none is left of before."""
        path = run_dir / FILE_NAME
        if not self.failed:
            path.unlink(missing_ok=True)
            return
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row, (step, reason) in sorted(self.failed.items()):
            texts = [dataset.text(name, row) for name in ("key", "video")]
            label = f"{dataset.column('label')[row]:g}"
            about = [dataset.text(name, row) for name in ("attack_type", "subject")]
            writer.writerow([dataset.shard_name(row), *texts, label, *about, step, reason])
        write_text(path, buffer.getvalue())


def notices(run_dir: Path) -> list[str]:
    """For the verdict: how many clips a run has lost, if any."""
    path = run_dir / FILE_NAME
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        num = sum(1 for _ in csv.DictReader(file))
    return [f"LOST: {num:,} training clips failed to load the last time they were requested: {FILE_NAME}"]
