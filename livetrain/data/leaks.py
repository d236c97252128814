"""Nobody may be in two of the splits of a run: checked when the shards are opened, before anything is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from livetrain.config import Config
from livetrain.data.dataset import Dataset
from livetrain.errors import UserError
from livetrain.selection import Selection


@dataclass(frozen=True)
class Leak:
    """People who are in two splits: how many, and one of them."""

    one: str
    other: str
    num_people: int
    example: str

    def __str__(self) -> str:
        return f"{self.num_people:,} people are in {self.one} and {self.other} (such as {self.example})"


def find_leaks(dataset: Dataset, splits: Mapping[str, str]) -> list[Leak]:
    """People in two of `splits` (name → what `Dataset.rows` takes); those whose group is not known are left out.

    A person is a group within a domain. One pass over the columns' codes a split and domain: a second for ten million
    samples.
    """
    (group, groups), (domain, domains) = dataset.codes("group"), dataset.codes("domain")
    rows = {name: dataset.rows(split) for name, split in splits.items()}
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    counts: dict[tuple[str, str], int] = {}
    for place, place_name in enumerate(domains):
        seen = {}
        for name, here in rows.items():
            seen[name] = np.zeros(len(groups), bool)
            members = group[here] if len(domains) == 1 else group[here[domain[here] == place]]
            seen[name][members] = True
            seen[name] &= groups != ""
        names = list(rows)
        for number, one in enumerate(names):
            for other in names[number + 1 :]:
                both = np.flatnonzero(seen[one] & seen[other])
                if len(both):
                    counts[one, other] = counts.get((one, other), 0) + len(both)
                    found.setdefault((one, other), []).append((str(place_name), str(groups[both[0]])))
    told = {pair: next("/".join(filter(None, person)) for person in people) for pair, people in found.items()}
    return [Leak(one, other, counts[one, other], told[one, other]) for one, other in found]


def check(dataset: Dataset, config: Config) -> list[str]:
    """Notices for the verdict: what `data.allow_leak` let through. Raises UserError for people in two splits without.

    Splits that the shards do not have (a test set alone, being scored) are left out: who needs them will say so.
    """
    names = {"train": config.data.train_split, "dev": config.data.dev_split, "test": config.data.test_split}
    words = dataset.codes("split")[1]
    present = {name: split for name, split in names.items() if Selection.parse(split).which(words, "split").any()}
    leaks = find_leaks(dataset, present)
    if not leaks:
        return []
    told = "; ".join(map(str, leaks))
    if not config.data.allow_leak:
        raise UserError(
            f"{told}: the test would measure memory of faces. Split {dataset.root} anew (python -m shards split), or "
            "set data.allow_leak=true and have the verdict say so"
        )
    return [f"LEAK: {told}; these figures are too good for people the model has not seen (data.allow_leak=true)"]
