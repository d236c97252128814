"""What a build refuses or warns about once all videos are probed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from livetrain.core.errors import UserError
from shards import shard_plan, split
from shards.labels import Label, Labels


def refuse_useless(samples: Sequence[shard_plan.Sample], rejected: Sequence[tuple[Label, str, str]], out: Path) -> None:
    classes = {sample.label.is_live for sample in samples}
    if len(classes) == 2:
        return
    common = Counter(reason for *_, reason in rejected).most_common(1)[0]
    left = "no video is left" if not samples else f"only {'live videos' if True in classes else 'attacks'} are left"
    raise UserError(
        f"{left} after {len(rejected)} were rejected (most often: {common[0]}, {common[1]} times); "
        f"all reasons are in {out / 'rejected.csv'}"
    )


def warn(text: str) -> None:
    print(f"WARNING: {text}", file=sys.stderr)


def warn_without_subjects(labels: Labels, path: Path) -> None:
    if not labels.subject_column:
        warn(
            f"{path} names no people (no column subject, no --columns subject=…). Clips of one person may be "
            "in train AND test: the test result will look better than the model is. Add the column if you can."
        )


def warn_about_splits(samples: Sequence[shard_plan.Sample], names: Sequence[str]) -> None:
    """A split without one of the classes can neither train a model nor measure one."""
    for name in sorted(set(names) - {split.UNUSED}):
        classes = {sample.label.is_live for sample in samples if sample.split == name}
        if len(classes) < 2:
            lacking = "no clip" if not classes else "no attack" if True in classes else "no live clip"
            warn(f"the split {name!r} has {lacking}: add people, or change --fractions, --seed or the split column")


def warn_about_duplicates(samples: Sequence[shard_plan.Sample]) -> None:
    """The same file twice is a leak if it is in two splits, and a label error if its labels differ."""
    first: dict[str, shard_plan.Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.sha256, sample)
        if other.label.is_live != sample.label.is_live or other.split != sample.split:
            difference = "label" if other.label.is_live != sample.label.is_live else "split"
            warn(f"{other.label.video} and {sample.label.video} are the same file with a different {difference}")
