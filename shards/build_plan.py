"""What a build does once all videos are probed: its samples, what it rejects, and a task for each shard.

Pure: parts of a build, and one that continues, plan the same. Samples and tasks are made when they are asked for; what
is in memory is a few numbers for each video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livetrain.core.columns import Column, Lazy
from livetrain.core.files import write_text
from livetrain.core.progress import watched
from shards import build_checks, shard_plan
from shards.build_request import Request
from shards.format import rejected as rejected_
from shards.labels import Label, Labels
from shards.probing import Probed, Probes, contents
from shards.shard_plan import Sample
from shards.shard_writer import ShardTask

Rejected = tuple[Label, str, str]  # split, reason


class Tasks(Column[ShardTask]):
    """The tasks of shards: `template` with the shard's number and samples. shards: the places of the samples of each.

    numbers: of the shards that there are tasks for; the first is number `first` in the folder.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        shards: Sequence[NDArray[np.int64]],
        template: ShardTask,
        first: int = 0,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self._samples, self._shards, self._template, self._first = samples, shards, template, first
        self.numbers = range(first, first + len(shards)) if numbers is None else numbers

    @property
    def out(self) -> Path:
        return self._template.out

    def __len__(self) -> int:
        return len(self.numbers)

    def item(self, place: int) -> ShardTask:
        number = self.numbers[place]
        samples = [self._samples[int(i)] for i in self._shards[number - self._first]]
        return replace(self._template, number=number, samples=samples)

    def only(self, numbers: Sequence[int]) -> Tasks:
        """The tasks of these shards."""
        return Tasks(self._samples, self._shards, self._template, self._first, numbers)

    def num_samples(self) -> int:
        """Of all of these tasks."""
        return sum(len(self._shards[number - self._first]) for number in self.numbers)


@dataclass(frozen=True)
class Plan:
    """The labels with what is known of their files, the names of splits, samples, what is rejected, a task a shard."""

    probed: Probes
    labels: Labels
    splits: frozenset[str]
    samples: Sequence[Sample]
    rejected: Sequence[Rejected]
    tasks: Tasks

    @staticmethod
    def of(request: Request, probed: Probes) -> Plan:
        labels = replace(request.labels, contents=contents(probed))
        splits = request.assigned(labels)
        keys = shard_plan.Keys(Lazy(len(labels.rows), lambda i: labels.rows[i].video))
        samples, rejected = sort(labels, splits, request.sizes, probed, keys)
        options, bucket = request.options, request.bucket.url if request.bucket else ""
        all_of_them = watched(samples, len(samples), "plan", "samples")
        shards = shard_plan.assign_shards(all_of_them, options.media, int(options.shard_mb * 1e6), options.seed)
        template = ShardTask(0, (), request.videos, request.out, options.media, request.digest, bucket)
        names = frozenset(splits) | (frozenset() if labels.split_column else options.shares().keys())
        return Plan(probed, labels, names, samples, rejected, Tasks(samples, shards, template))

    def report(self, out: Path) -> None:
        """Write rejected.csv, and warn of what is odd. Raises UserError where nothing useful is left."""
        write_text(out / rejected_.FILE_NAME, rejected_text(self.rejected))
        facts = build_checks.facts_of(watched(self.samples, len(self.samples), "check", "samples"))
        build_checks.refuse_useless(facts, self.rejected, out)
        build_checks.warn_about_splits(facts, self.splits)
        if build_checks.num_copies(facts):
            build_checks.warn_about_joined(self.labels)
        build_checks.warn_about_duplicates(self.samples, facts)
        build_checks.suggest_audit(facts, self.labels, out)


def sort(
    labels: Labels,
    splits: Sequence[str],
    sizes: NDArray[np.int64],
    probed: Sequence[Probed],
    keys: Sequence[str],
) -> tuple[Sequence[Sample], Sequence[Rejected]]:
    """Labelled videos as samples for shards, and as rejected ones: those whose contents are not known.

    Samples have splits, sizes in bytes, what probing found and keys; rejected are (label, split, reason).
    """
    rows = labels.rows
    is_good = np.fromiter(map(bool, labels.contents), bool, len(rows))
    good, bad = np.flatnonzero(is_good), np.flatnonzero(~is_good)

    def sample(number: int) -> Sample:
        i = int(good[number])
        result = probed[i]
        assert result.facts is not None
        return Sample(keys[i], rows[i], splits[i], result.facts, int(sizes[i]), result.sha256)

    return Lazy(len(good), sample), Lazy(len(bad), lambda n: (rows[i := int(bad[n])], splits[i], probed[i].reason))


def rejected_text(rejected: Sequence[Rejected]) -> str:
    """The content of rejected.csv."""
    return rejected_.text(
        {**vars(row), "label": f"{row.label:g}", "split": name, "reason": reason} for row, name, reason in rejected
    )
