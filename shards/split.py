"""Splits into train, dev and test: no person in two of them, the classes and attack types shared out evenly.

scikit-learn's StratifiedGroupKFold cuts the groups into equal folds; the folds are then dealt to the splits in the way
that comes closest to the wanted fraction of every class. The same labels, fractions and seed give the same splits.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from livetrain.errors import UserError
from shards.labels import Label, Labels

SPLITS = ("train", "dev", "test")
UNUSED = "unused"  # the split of what a protocol leaves out
MAX_FOLDS = 12  # dealing 12 folds to three splits: at most 34,650 ways, tried one by one


def parse_fractions(text: str) -> dict[str, float]:
    """ "0.6,0.2,0.2" -> {"train": 0.6, "dev": 0.2, "test": 0.2}; a split with fraction 0 is left out."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != len(SPLITS) or not (min(values) >= 0 and abs(sum(values) - 1) <= 1e-6):
        raise UserError(f"--fractions {text}: give three numbers for {', '.join(SPLITS)} that add up to 1")
    return {split: value for split, value in zip(SPLITS, values, strict=True) if value > 0}


def fold_fractions(count: int) -> dict[str, float]:
    """Equal shares for the splits fold0 … fold<count-1> of a cross-validation. Raises UserError for less than 3."""
    if count < 3:
        raise UserError(f"--folds {count}: give 3 or more, so that one can be dev, one test, and the rest train")
    return {f"fold{index}": 1 / count for index in range(count)}


def assign(labels: Labels, fractions: dict[str, float], seed: int, *, allow_leak: bool = False) -> list[str]:
    """The split of each of `labels.rows`.

    The label file's own split column is honoured and checked: UserError when a group is in two of its splits,
    unless `allow_leak`.
    UserError when there are fewer groups (or clips) than splits.
    """
    rows = labels.rows
    if labels.split_column:
        if not allow_leak:
            _refuse_leaks(rows, labels)
        return [row.split for row in rows]
    groups = ["\n".join(row.person) for row in rows] if labels.group_column else [str(i) for i in range(len(rows))]
    num_groups = len(set(groups))
    if num_groups < len(fractions):
        what = f"groups in column {labels.group_column!r}" if labels.group_column else "clips"
        raise UserError(
            f"{num_groups} {what} cannot be shared out to {len(fractions)} splits; "
            "add data, or change --fractions or --folds"
        )
    # Attack types of each domain are strata of their own, so that a rare one is not left to one split by chance.
    strata = np.unique([f"{row.domain}\n{row.attack_type}" for row in rows], return_inverse=True)[1]
    if set(fractions) != set(SPLITS) & set(fractions):
        names = list(fractions)  # of a cross-validation: each is one fold
        return [names[f] for f in _folds(strata, groups, len(names), seed, has_groups=bool(labels.group_column))]
    counts = fold_counts(fractions, num_groups)
    fold = _folds(strata, groups, sum(counts.values()), seed, has_groups=bool(labels.group_column))
    split_of_fold = _deal(fold, strata, counts, fractions)
    return [split_of_fold[f] for f in fold]


def leave_attack_out(labels: Labels, attacks: Sequence[str], fractions: dict[str, float], seed: int) -> list[str]:
    """The split of each row such that `attacks` are seen in test alone, and people are in one split.

    Test holds live people and these attacks; what cannot be used without breaking either rule (these attacks of people
    in train or dev, other attacks of people in test) is "unused". UserError for an attack that is not there, or when
    no other is left.
    """
    rows = labels.rows
    kinds = {row.attack_type for row in rows if not row.is_live}
    _refuse_unknown("--attack", attacks, kinds)
    if not kinds - set(attacks):
        raise UserError(f"--attack {','.join(attacks)}: leaves no attack to train with")
    held = [not row.is_live and row.attack_type in attacks for row in rows]
    who: list[object] = [row.person if labels.group_column else number for number, row in enumerate(rows)]
    others = {person for person, is_held in zip(who, held, strict=True) if not is_held}
    rest = tuple(row for row, person in zip(rows, who, strict=True) if person in others)
    dealt = iter(assign(Labels(rest, labels.group_column, ""), fractions, seed))
    splits = []
    for row, person, is_held in zip(rows, who, held, strict=True):
        split = next(dealt) if person in others else "test"  # people of whom there are these attacks alone
        fits = row.is_live or is_held == (split == "test")
        splits.append(split if fits else UNUSED)
    return splits


def leave_domain_out(labels: Labels, domains: Sequence[str], fractions: dict[str, float], seed: int) -> list[str]:
    """The split of each row: `domains` are test, all of them; the rest is train and dev, in the proportion of their
    fractions. UserError for a domain that is not there, or when no other is left."""
    known = {row.domain for row in labels.rows}
    _refuse_unknown("--domain", domains, known)
    if not known - set(domains):
        raise UserError(f"--domain {','.join(domains)}: leaves no domain to train with")
    rest = tuple(row for row in labels.rows if row.domain not in domains)
    wanted = {split: share for split, share in fractions.items() if split != "test"}
    wanted = {split: share / sum(wanted.values()) for split, share in wanted.items()}
    dealt = iter(assign(Labels(rest, labels.group_column, ""), wanted, seed))
    return ["test" if row.domain in domains else next(dealt) for row in labels.rows]


def carve_dev(labels: Labels, fraction: float, seed: int) -> list[str]:
    """The splits that the rows have, with a `fraction` of the train split made dev. UserError when there is a dev."""
    if not 0 < fraction < 1:
        raise UserError(f"--dev-fraction {fraction:g}: give a share between 0 and 1")
    if any(row.split == "dev" for row in labels.rows):
        raise UserError("--protocol carve_dev: there is a dev split already")
    train = tuple(row for row in labels.rows if row.split == "train")
    if not train:
        raise UserError("--protocol carve_dev: there is no train split to take it from")
    dealt = iter(assign(Labels(train, labels.group_column, ""), {"train": 1 - fraction, "dev": fraction}, seed))
    return [next(dealt) if row.split == "train" else row.split for row in labels.rows]


def _refuse_unknown(option: str, names: Sequence[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(
                f"{option} {name}: there is none; there are {', '.join(sorted(known - {''})) or 'no names'}"
            )


def fold_counts(fractions: dict[str, float], num_groups: int) -> dict[str, int]:
    """How many folds each split gets: the number of folds (at most one a group) that rounds the fractions least.

    Every split gets at least one fold, so with three groups each split has one.
    """
    best: tuple[float, dict[str, int]] | None = None
    for num_folds in range(len(fractions), min(MAX_FOLDS, num_groups) + 1):
        counts = dict.fromkeys(fractions, 1)
        while sum(counts.values()) < num_folds:
            counts[max(counts, key=lambda split: fractions[split] * num_folds - counts[split])] += 1
        error = sum(abs(counts[split] / num_folds - fractions[split]) for split in fractions)
        if best is None or error < best[0] - 1e-9:
            best = (error, counts)
    assert best is not None, "assign() refuses fewer groups than splits"
    return best[1]


def _folds(strata: np.ndarray, groups: Sequence[str], num_folds: int, seed: int, *, has_groups: bool) -> np.ndarray:
    """int[num_rows]: the fold of each row; rows of a group share one."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # 3 s to import: only when splitting

    if num_folds == 1:
        return np.zeros(len(strata), dtype=np.int64)
    if np.bincount(strata).max() < num_folds:  # scikit-learn refuses: too few clips to stratify at all
        strata = np.zeros_like(strata)
    kind = StratifiedGroupKFold if has_groups else StratifiedKFold
    folder = kind(n_splits=num_folds, shuffle=True, random_state=seed)
    fold = np.full(len(strata), -1, dtype=np.int64)
    with warnings.catch_warnings():
        # "The least populated class has fewer members than n_splits": an attack type rarer than folds is fine here.
        warnings.simplefilter("ignore", UserWarning)
        for index, (_, members) in enumerate(folder.split(strata, strata, groups)):
            fold[members] = index
    return fold


def _deal(fold: np.ndarray, strata: np.ndarray, counts: dict[str, int], fractions: dict[str, float]) -> dict[int, str]:
    """Which split each fold goes to, so that every stratum's shares are as near to the fractions as they can be."""
    num_folds = sum(counts.values())
    table = np.zeros((num_folds, strata.max() + 1))  # [fold, stratum] share of the stratum's clips
    np.add.at(table, (fold, strata), 1)
    table /= table.sum(axis=0)
    best: tuple[float, dict[int, str]] | None = None
    for dealt in _ways(tuple(range(num_folds)), list(counts.items())):
        shares = {split: table[list(folds)].sum(axis=0) for split, folds in dealt.items()}
        error = sum(float(np.square(shares[split] - fractions[split]).sum()) for split in dealt)
        error += sum(float((shares[split] == 0).sum()) for split in dealt)  # a split without a stratum is worst
        if best is None or error < best[0] - 1e-9:
            best = (error, {f: split for split, folds in dealt.items() for f in folds})
    assert best is not None
    return best[1]


def _ways(folds: tuple[int, ...], counts: list[tuple[str, int]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """All ways to deal `folds` to the splits with the given counts."""
    if not counts:
        yield {}
        return
    (split, count), *rest = counts
    for chosen in itertools.combinations(folds, count):
        left = tuple(f for f in folds if f not in chosen)
        for others in _ways(left, rest):
            yield {split: chosen, **others}


def _refuse_leaks(rows: Sequence[Label], labels: Labels) -> None:
    if not labels.group_column:
        return
    splits_of: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row.split != UNUSED:
            splits_of.setdefault(row.person, set()).add(row.split)
    leaks = {group: sorted(splits) for group, splits in splits_of.items() if len(splits) > 1}
    if leaks:
        (_, group), splits = min(leaks.items())
        raise UserError(
            f"column {labels.split_column!r} puts {len(leaks)} {labels.group_column}s into several splits "
            f"(such as {group!r}: {', '.join(splits)}), so the test would measure memory of faces; correct the column, "
            "let the builder split (--columns split=), or keep it so (--allow-leak)"
        )
