"""What a build refuses or warns about once all videos are probed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy

from livetrain.core.errors import UserError
from shards import shard_plan, split
from shards.labels import Label, Labels

TELLING = 0.8  # AUC
MIN_OF_CLASS = 10  # clips


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


def suggest_audit(samples: Sequence[shard_plan.Sample], labels: Labels, out: Path) -> None:
    """One line when what is known without looking at a picture says that an audit would find something."""
    copies = len(samples) - len({sample.sha256 for sample in samples})
    signs = [f"{copies:,} video{'s are' if copies > 1 else ' is'} there a second time"] if copies else []
    signs += [f"{name} separates live clips from attacks (AUC {auc:.2f})" for name, auc in _telling(samples)]
    if signs and not labels.subject_column:
        signs.append("nobody is named")
    if signs:
        print(f"{'; '.join(signs)}: python -m shards audit {out} --out audit.html shows more", file=sys.stderr)


def _telling(samples: Sequence[shard_plan.Sample]) -> list[tuple[str, float]]:
    """Facts of the files that alone tell the classes apart: (name, AUC in either direction)."""
    live = np.array([sample.label.is_live for sample in samples], dtype=bool)
    if min(live.sum(), (~live).sum()) < MIN_OF_CLASS:
        return []
    codecs = [f"{sample.facts.codec} {sample.facts.pixel_format}" for sample in samples]
    share = {name: float(live[[codec == name for codec in codecs]].mean()) for name in set(codecs)}
    values = {
        "file size": [sample.num_bytes for sample in samples],
        "length": [sample.facts.num_frames for sample in samples],
        "frame rate": [round(sample.facts.fps, 1) for sample in samples],
        "resolution": [sample.facts.width * sample.facts.height for sample in samples],
        "codec": [share[codec] for codec in codecs],
    }
    found = []
    for name, numbers in values.items():
        ranks = scipy.stats.rankdata(numbers)
        auc = (ranks[live].sum() / live.sum() - (live.sum() + 1) / 2) / (~live).sum()
        found += [(name, float(max(auc, 1 - auc)))] if max(auc, 1 - auc) > TELLING else []
    return found


def warn_about_duplicates(samples: Sequence[shard_plan.Sample]) -> None:
    """The same file twice is a leak if it is in two splits, and a label error if its labels differ."""
    first: dict[str, shard_plan.Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.sha256, sample)
        if other.label.is_live != sample.label.is_live or other.split != sample.split:
            difference = "label" if other.label.is_live != sample.label.is_live else "split"
            warn(f"{other.label.video} and {sample.label.video} are the same file with a different {difference}")
