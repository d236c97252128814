"""No person and no file may be in two splits of a run.

Checked when the shards are opened, before training.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from livetrain.config import Config
from livetrain.config.split_spec import Selection
from livetrain.core.errors import UserError
from livetrain.data.dataset import Dataset


@dataclass(frozen=True)
class Leak:
    """People, or files, who are in two splits: how many, and one of them."""

    one: str
    other: str
    num: int
    example: str
    what: str = "people"

    def __str__(self) -> str:
        return f"{self.num:,} {self.what} are in {self.one} and {self.other} (such as {self.example})"


def find_copies(dataset: Dataset, splits: Mapping[str, str]) -> list[Leak]:
    """Files that are in two of `splits`, under any names.

    By the first 64 bits of their SHA-256, and then by all of it. Twelve seconds and 240 MB for ten million samples.
    """
    found = []
    rows = {name: dataset.rows(split) for name, split in splits.items()}
    contents = {name: dataset.contents(here) for name, here in rows.items()}
    for one, other in itertools.combinations(rows, 2):
        _, here, there = np.intersect1d(contents[one], contents[other], return_indices=True)
        pairs = zip(rows[one][here].tolist(), rows[other][there].tolist(), strict=True)
        # A sample that both splits take (train@a and all, say) is a leak too, and a file of its own.
        same = [(a, b) for a, b in pairs if dataset.text("sha256", a) == dataset.text("sha256", b)]
        if same:
            example = " and ".join(dict.fromkeys(dataset.text("video", row) for row in same[0]))
            found.append(Leak(one, other, len(same), example, "files"))
    return found


def find_leaks(dataset: Dataset, splits: Mapping[str, str]) -> list[Leak]:
    """People in two of `splits` (name → what `Dataset.rows` takes); those whose subject is not known are left out.

    A person is a subject within a domain. One pass over the columns' codes a split and domain: a second for ten million
    samples.
    """
    (subject, subjects), (domain, domains) = dataset.codes("subject"), dataset.codes("domain")
    rows = {name: dataset.rows(split) for name, split in splits.items()}
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    counts: dict[tuple[str, str], int] = {}
    for place, place_name in enumerate(domains):
        seen = {}
        for name, here in rows.items():
            seen[name] = np.zeros(len(subjects), bool)
            members = subject[here] if len(domains) == 1 else subject[here[domain[here] == place]]
            seen[name][members] = True
            seen[name] &= subjects != ""
        names = list(rows)
        for number, one in enumerate(names):
            for other in names[number + 1 :]:
                both = np.flatnonzero(seen[one] & seen[other])
                if len(both):
                    counts[one, other] = counts.get((one, other), 0) + len(both)
                    found.setdefault((one, other), []).append((str(place_name), str(subjects[both[0]])))
    message = {pair: next("/".join(filter(None, person)) for person in people) for pair, people in found.items()}
    return [Leak(one, other, counts[one, other], message[one, other]) for one, other in found]


def check(dataset: Dataset, config: Config) -> list[str]:
    """Notices for the verdict about leaks that `data.allow_leak` allowed. Without it, a leak raises UserError.

    Splits that the shards do not have are skipped (a test set scored alone); reading one is an error elsewhere.
    """
    names = {"train": config.data.train_split, "dev": config.data.dev_split, "test": config.data.test_split}
    words = dataset.codes("split")[1]
    present = {name: split for name, split in names.items() if Selection.parse(split).which(words, "split").any()}
    leaks = [*find_leaks(dataset, present), *find_copies(dataset, present)]
    if not leaks:
        return []
    message = "; ".join(map(str, leaks))
    if not config.data.allow_leak:
        raise UserError(
            f"{message}: the test would measure memory of faces. Split {dataset.root} again (python -m shards split), "
            "or set data.allow_leak=true and have the verdict say so"
        )
    return [f"LEAK: {message}; these figures are too good for people the model has not seen (data.allow_leak=true)"]
