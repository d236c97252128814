"""Splits into train, dev and test: no person and no file in two of them.

What must stay together is a unit: the videos of a person, and of all people who share a file. Units are dealt in one of
three ways:

    stratified   classes and attack types shared out evenly: scikit-learn's StratifiedGroupKFold cuts units into equal
                 folds, which are dealt to the splits in the way that comes closest to the wanted fraction of each class
    hash         by a hash of the unit's name: the same whoever else is there
    kept         who had a split keeps it (shards.existing), and new units go where their classes are lacking most

The same labels, fractions and seed give the same splits.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from livetrain.core.columns import Places, Words
from livetrain.core.disjoint_sets import DisjointSets
from livetrain.core.errors import UserError
from shards.existing import UNUSED, Kept
from shards.labels import Label, Labels

SPLITS = ("train", "dev", "test")
STRATIFIED, HASH = PROTOCOLS = ("stratified", "hash")
_BETWEEN = "\n"  # domain and subject of a person's name; no cell of a label file holds one
MAX_FOLDS = 12  # dealing 12 folds to three splits: at most 34,650 ways, tried one by one


def parse_fractions(text: str) -> dict[str, float]:
    """Fractions of the splits: "0.6,0.2,0.2" is train 0.6, dev 0.2, test 0.2; a split with fraction 0 is dropped."""
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


def units(labels: Labels) -> Words:
    """For each row the name of the unit that it belongs to: rows of one person, or of one content, have the same."""
    has_subjects = bool(labels.subject_column)
    people = Words.of(_BETWEEN.join(row.identity) if has_subjects else str(i) for i, row in enumerate(labels.rows))
    same: DisjointSets[str] = DisjointSets()
    first: dict[str, str] = {}
    repeated = Places(labels.contents).repeated()
    for place in map(int, repeated):
        if content := labels.contents[place]:
            same.join(people[place], first.setdefault(content, people[place]))
    return Words.of(map(same.root, people)) if first else people


def assign(
    labels: Labels,
    fractions: dict[str, float],
    seed: int,
    *,
    protocol: str = STRATIFIED,
    kept: Kept | None = None,
    allow_leak: bool = False,
) -> Words:
    """The split of each of `labels.rows`, of units that `kept` does not know by `protocol`.

    The label file's own split column is honoured and checked: UserError when a person or a file is in two of its
    splits, unless `allow_leak`. UserError when there are fewer units than splits, or `kept` has other splits.
    """
    rows = labels.rows
    if labels.split_column:
        if not allow_leak:
            _refuse_leaks(labels)
        return Words.of(row.split for row in rows)
    names = units(labels)
    had = kept.of(labels) if kept is not None else []
    if kept is not None and any(split is not None for split in had):
        return Words.of(_assign_new(labels, names, had, fractions, seed, kept.source, protocol))
    if protocol == HASH:
        return Words.of(by_hash(name, fractions, seed) for name in names)
    num_units = names.num_words
    if num_units < len(fractions):
        what = f"subjects in column {labels.subject_column!r}" if labels.subject_column else "clips"
        joined = (
            " (those who share a file counted once)"
            if num_units < units(replace(labels, contents=())).num_words
            else ""
        )
        raise UserError(
            f"{num_units} {what}{joined} cannot be shared out to {len(fractions)} splits; "
            "add data, or change --fractions or --folds"
        )
    strata, has_subjects = _strata(rows), num_units < len(rows)
    if set(fractions) != set(SPLITS) & set(fractions):
        folds = list(fractions)  # of a cross-validation: each is one fold
        return Words.of(folds[f] for f in _folds(strata, names, len(folds), seed, has_subjects=has_subjects))
    counts = fold_counts(fractions, num_units)
    fold = _folds(strata, names, sum(counts.values()), seed, has_subjects=has_subjects)
    split_of_fold = _deal(fold, strata, counts, fractions)
    return Words.of(split_of_fold[f] for f in fold)


def by_hash(unit: str, fractions: dict[str, float], seed: int) -> str:
    """The split of a unit: its hash, keyed by the seed, as a number in [0, 1) among the fractions."""
    digest = hashlib.blake2b(unit.encode(), key=str(seed).encode(), digest_size=8).digest()
    at, edge = int.from_bytes(digest, "big") / 2**64, 0.0
    for split, fraction in fractions.items():
        edge += fraction
        if at < edge:
            return split
    return list(fractions)[-1]


def _strata(rows: Sequence[Label]) -> NDArray[np.int64]:
    """int64[num_rows]: attack types of each domain, so that a rare one is not left to one split by chance."""
    return Words.of(f"{row.domain}\n{row.attack_type}" for row in rows).ranks()


def _assign_new(
    labels: Labels,
    names: Words,
    had: Sequence[str | None],
    fractions: dict[str, float],
    seed: int,
    source: str,
    protocol: str,
) -> list[str]:
    """Splits for new units, keeping those that had one.

    Units that had a split keep it, and new ones fill what the splits lack. source: where the old splits are from.
    """
    if strange := sorted({split for split in had if split is not None} - {*fractions, UNUSED}):
        raise UserError(
            f"{source} has a split {strange[0]!r}, and this command makes {', '.join(fractions)}: give --reassign "
            "to split everyone again, or the options of before"
        )
    splits, strata = list(fractions), _strata(labels.rows)
    split_of = np.full(names.num_words, -1, np.int8)  # of each unit, as a place in `splits`
    example = np.zeros(names.num_words, np.int64)  # a row of it that had a split
    for place, (unit, split) in enumerate(zip(names.codes, had, strict=True)):
        if split in (None, UNUSED):
            continue
        number = splits.index(split)
        if split_of[unit] not in (-1, number):
            before, row = labels.rows[int(example[unit])], labels.rows[place]
            raise UserError(
                f"{before.video} was in {splits[split_of[unit]]} and {row.video} in {split} ({source}), but now they "
                "are of one person or share a file: move one away, or give --reassign to split everyone again"
            )
        if split_of[unit] < 0:
            split_of[unit], example[unit] = number, place
    total = np.bincount(strata)
    sizes = np.zeros((names.num_words, len(total)), np.int32)  # clips of each unit and stratum
    np.add.at(sizes, (names.codes, strata), 1)
    filled = {split: sizes[split_of == number].sum(axis=0) for number, split in enumerate(splits)}
    new = np.flatnonzero(split_of < 0).tolist()
    # Large ones first: small ones even out what they leave. Of equal ones, by chance that the seed decides.
    for unit in sorted(new, key=lambda unit: (-sizes[unit].sum(), _chance(names.words[unit], seed))):
        lacking = {split: fractions[split] * total - filled[split] for split in fractions}
        best = max(fractions, key=lambda split: float((sizes[unit] * lacking[split] / total).sum()))
        chosen = by_hash(names.words[unit], fractions, seed) if protocol == HASH else best
        split_of[unit] = splits.index(chosen)
        filled[chosen] = filled[chosen] + sizes[unit]
    return [splits[split_of[unit]] if split is None else split for unit, split in zip(names.codes, had, strict=True)]


def _chance(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


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
    who = units(labels)
    others = {name for name, is_held in zip(who, held, strict=True) if not is_held}
    in_rest = [name in others for name in who]
    dealt = iter(assign(labels.select(in_rest), fractions, seed))
    splits = []
    for row, is_dealt, is_held in zip(rows, in_rest, held, strict=True):
        split = next(dealt) if is_dealt else "test"  # people of whom there are these attacks alone
        fits = row.is_live or is_held == (split == "test")
        splits.append(split if fits else UNUSED)
    return splits


def leave_domain_out(labels: Labels, domains: Sequence[str], fractions: dict[str, float], seed: int) -> list[str]:
    """The split of each row, with all of `domains` as test.

    The rest is train and dev, in the proportion of their fractions. UserError for a domain that is not there, or when
    no other is left.
    """
    known = {row.domain for row in labels.rows}
    _refuse_unknown("--domain", domains, known)
    if not known - set(domains):
        raise UserError(f"--domain {','.join(domains)}: leaves no domain to train with")
    held = [row.domain in domains for row in labels.rows]
    who = units(labels)
    in_test = {name for name, is_held in zip(who, held, strict=True) if is_held}
    in_rest = [name not in in_test for name in who]  # a file of the other domains that is in test too is unused
    wanted = {split: share for split, share in fractions.items() if split != "test"}
    wanted = {split: share / sum(wanted.values()) for split, share in wanted.items()}
    dealt = iter(assign(labels.select(in_rest), wanted, seed))
    return [
        "test" if is_held else next(dealt) if is_dealt else UNUSED
        for is_held, is_dealt in zip(held, in_rest, strict=True)
    ]


def carve_dev(labels: Labels, fraction: float, seed: int) -> list[str]:
    """The splits that the rows have, with a `fraction` of the train split made dev. UserError when there is a dev."""
    if not 0 < fraction < 1:
        raise UserError(f"--dev-fraction {fraction:g}: give a share between 0 and 1")
    if any(row.split == "dev" for row in labels.rows):
        raise UserError("--protocol carve_dev: there is a dev split already")
    in_train = [row.split == "train" for row in labels.rows]
    if not any(in_train):
        raise UserError("--protocol carve_dev: there is no train split to take it from")
    dealt = iter(assign(labels.select(in_train), {"train": 1 - fraction, "dev": fraction}, seed))
    return [next(dealt) if row.split == "train" else row.split for row in labels.rows]


def _refuse_unknown(option: str, names: Sequence[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(
                f"{option} {name}: there is none; there are {', '.join(sorted(known - {''})) or 'no names'}"
            )


def fold_counts(fractions: dict[str, float], num_subjects: int) -> dict[str, int]:
    """How many folds each split gets: the number of folds (at most one a subject) that rounds the fractions least.

    Every split gets at least one fold, so with three subjects each split has one.
    """
    best: tuple[float, dict[str, int]] | None = None
    for num_folds in range(len(fractions), min(MAX_FOLDS, num_subjects) + 1):
        counts = dict.fromkeys(fractions, 1)
        while sum(counts.values()) < num_folds:
            counts[max(counts, key=lambda split: fractions[split] * num_folds - counts[split])] += 1
        error = sum(abs(counts[split] / num_folds - fractions[split]) for split in fractions)
        if best is None or error < best[0] - 1e-9:
            best = (error, counts)
    assert best is not None, "assign() refuses fewer subjects than splits"
    return best[1]


def _folds(
    strata: NDArray[np.int64], subjects: Words, num_folds: int, seed: int, *, has_subjects: bool
) -> NDArray[np.int64]:
    """int[num_rows]: the fold of each row; rows of a subject share one."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # 3 s to import: only when splitting

    if num_folds == 1:
        return np.zeros(len(strata), dtype=np.int64)
    if np.bincount(strata).max() < num_folds:  # scikit-learn refuses: too few clips to stratify at all
        strata = np.zeros_like(strata)
    kind = StratifiedGroupKFold if has_subjects else StratifiedKFold
    folder = kind(n_splits=num_folds, shuffle=True, random_state=seed)
    fold = np.full(len(strata), -1, dtype=np.int64)
    with warnings.catch_warnings():
        # "The least populated class has fewer members than n_splits": an attack type rarer than folds is fine here.
        warnings.simplefilter("ignore", UserWarning)
        for index, (_, members) in enumerate(folder.split(strata, strata, subjects.ranks())):
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


def _refuse_leaks(labels: Labels) -> None:
    column = labels.split_column
    people = (_BETWEEN.join(row.identity) for row in labels.rows)
    if labels.subject_column and (leaks := _in_several(people, labels.rows)):
        person, videos = min(leaks.items())
        raise UserError(
            f"column {column!r} puts {len(leaks)} {labels.subject_column}s into several splits (such as "
            f"{person.partition(_BETWEEN)[2]!r}: {', '.join(sorted(videos))}), so the test would measure memory of "
            "faces; correct the column, let the builder split (--columns split=), or keep it so (--allow-leak)"
        )
    if labels.contents and (leaks := _in_several(labels.contents, labels.rows)):
        example = ", ".join(f"{video} in {split}" for split, video in sorted(next(iter(leaks.values())).items()))
        raise UserError(
            f"column {column!r} puts {len(leaks)} files that are there twice into several splits (such as {example}), "
            "so the test would measure memory; move one of each away, correct the column, let the builder split "
            "(--columns split=), or keep it so (--allow-leak)"
        )


def _in_several(texts: Iterable[str], rows: Sequence[Label]) -> dict[str, dict[str, str]]:
    """Name → split → a video there, of the names of rows (but "") that are in several splits."""
    names, splits = Words.of(texts), Words.of(row.split for row in rows)
    used = np.array([split != UNUSED for split in splits.words], bool)[splits.codes]
    first = np.full(names.num_words, -1, np.int32)
    places = np.flatnonzero(used)[::-1]
    first[names.codes[places]] = splits.codes[places]  # the last assignment counts: the first row's split
    others = used & (splits.codes != first[names.codes])
    wrong = set(names.codes[others].tolist())
    seen: dict[str, dict[str, str]] = {}
    for place in np.flatnonzero(used & np.isin(names.codes, list(wrong))).tolist() if wrong else ():
        if names[place]:
            seen.setdefault(names[place], {}).setdefault(splits[place], rows[place].video)
    return seen
