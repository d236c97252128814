"""Splits: nobody in two of them, the wanted fractions, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from livetrain.core.errors import UserError
from shards.existing import UNUSED, Kept
from shards.labels import Label, Labels
from shards.split import _in_several, assign, carve_dev, fold_counts, parse_fractions

FRACTIONS = parse_fractions("0.6,0.2,0.2")


def labels(rows: list[tuple[str, str]], subject_column: str = "subject", splits: list[str] | None = None) -> Labels:
    """From (group, attack type) pairs."""
    made = tuple(
        Label(f"{i:04d}.mp4", float(kind == "live"), kind, group, "", "", splits[i] if splits else "")
        for i, (group, kind) in enumerate(rows)
    )
    return Labels(made, subject_column, "split" if splits else "")


def splits_of_groups(rows: list[tuple[str, str]], splits: list[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for (group, _), split in zip(rows, splits, strict=True):
        found.setdefault(group, set()).add(split)
    return found


ROWS = st.lists(
    st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from(["live", "print", "replay"])), min_size=3, max_size=60
)


@settings(max_examples=200, deadline=None)
@given(ROWS, st.integers(0, 3), st.sampled_from(["0.6,0.2,0.2", "0.8,0.1,0.1", "0.5,0,0.5", "0.7,0.15,0.15"]))
def test_groups_are_disjoint_and_no_split_is_empty(rows: list[tuple[str, str]], seed: int, text: str) -> None:
    fractions = parse_fractions(text)
    assume(len({group for group, _ in rows}) >= len(fractions))
    splits = assign(labels(rows), fractions, seed)
    assert all(len(found) == 1 for found in splits_of_groups(rows, splits).values())
    assert splits == assign(labels(rows), fractions, seed)
    assert set(splits) == set(fractions)


def test_fractions_and_classes_are_met_with_many_groups() -> None:
    random = np.random.default_rng(0)
    rows = [
        (f"p{g}", kind) for g in range(60) for kind in random.choice(["live", "print", "replay"], 6, p=[0.5, 0.4, 0.1])
    ]
    splits = np.array(assign(labels(rows), FRACTIONS, 0))
    kinds = np.array([kind for _, kind in rows])
    for split, fraction in FRACTIONS.items():
        for kind in ("live", "print", "replay"):
            assert np.mean(splits[kinds == kind] == split) == pytest.approx(fraction, abs=0.05)


def test_without_groups_clips_are_stratified() -> None:
    rows = [("", "live")] * 50 + [("", "print")] * 30 + [("", "replay")] * 20
    splits = np.array(assign(labels(rows, subject_column=""), FRACTIONS, 0))
    assert [np.sum(splits[:50] == s) for s in FRACTIONS] == [30, 10, 10]
    assert [np.sum(splits[50:80] == s) for s in FRACTIONS] == [18, 6, 6]
    assert [np.sum(splits[80:] == s) for s in FRACTIONS] == [12, 4, 4]


def test_three_people_get_a_split_each_and_two_are_refused() -> None:
    rows = [(g, kind) for g in "abc" for kind in ("live", "print")]
    assert set(assign(labels(rows), FRACTIONS, 0)) == {"train", "dev", "test"}
    with pytest.raises(UserError, match="2 subjects in column 'subject' cannot be shared out to 3 splits"):
        assign(labels(rows[:4]), FRACTIONS, 0)


def test_the_same_name_in_two_domains_is_two_people() -> None:
    made = [Label(f"{i}.mp4", float(i % 2), "live", "1", "", "", "", domain) for i, domain in enumerate("aabbccdd")]
    splits = assign(Labels(tuple(made), "subject", ""), FRACTIONS, 0)
    assert set(splits) == set(FRACTIONS) and splits[0::2] == splits[1::2]
    made = [Label(f"{i}.mp4", float(i), "live", "1", "", "", split, split) for i, split in enumerate(("x", "y"))]
    assert assign(Labels(tuple(made), "subject", "split"), FRACTIONS, 0) == ["x", "y"]


def test_the_seed_changes_the_splits() -> None:
    rows = [(f"p{g}", kind) for g in range(20) for kind in ("live", "print")]
    assert len({tuple(assign(labels(rows), FRACTIONS, seed)) for seed in range(5)}) > 1


def test_a_split_column_is_honoured_and_checked() -> None:
    rows = [("a", "live"), ("a", "print"), ("b", "live"), ("b", "print")]
    assert assign(labels(rows, splits=["x", "x", "y", "y"]), FRACTIONS, 0) == ["x", "x", "y", "y"]
    with pytest.raises(UserError, match="1 subjects into several splits .*'a': x, y"):
        assign(labels(rows, splits=["x", "y", "y", "y"]), FRACTIONS, 0)
    assert assign(labels(rows, "", splits=["x", "y", "y", "y"]), FRACTIONS, 0) == ["x", "y", "y", "y"]


@pytest.mark.parametrize("text", ["0.6,0.4", "a,b,c", "0.6,0.6,-0.2", "0.5,0.2,0.2", "nan,0.5,0.5", ""])
def test_wrong_fractions(text: str) -> None:
    with pytest.raises(UserError, match="three numbers for train, dev, test"):
        parse_fractions(text)


@pytest.mark.parametrize(
    ("text", "num_subjects", "counts"),
    [
        ("0.6,0.2,0.2", 100, (3, 1, 1)),
        ("0.6,0.2,0.2", 4, (2, 1, 1)),
        ("0.8,0.1,0.1", 100, (8, 1, 1)),
        ("0.8,0.1,0.1", 3, (1, 1, 1)),
        ("0.5,0.25,0.25", 100, (2, 1, 1)),  # eight folds are no better
    ],
)
def test_fold_counts(text: str, num_subjects: int, counts: tuple[int, ...]) -> None:
    assert tuple(fold_counts(parse_fractions(text), num_subjects).values()) == counts


def grown(num_subjects: int, seed: int = 0) -> Labels:
    """Videos of so many people; those of more begin with those of fewer."""
    rows = []
    for person in range(num_subjects):
        random = np.random.default_rng([seed, person])
        for number in range(int(random.integers(1, 6))):
            kind = ["live", "print", "replay"][int(random.integers(3))]
            rows.append(Label(f"{person}-{number}.mp4", float(kind == "live"), kind, f"p{person}", "", "", ""))
    return Labels(tuple(rows), "subject", "")


def shares(rows: Sequence[Label], splits: Sequence[str]) -> dict[tuple[str, str], float]:
    """Share of each kind that is in each split."""
    total = Counter(row.attack_type for row in rows)
    pairs = Counter((row.attack_type, name) for row, name in zip(rows, splits, strict=True))
    return {pair: count / total[pair[0]] for pair, count in pairs.items()}


def kept_of(labels: Labels, splits: Sequence[str]) -> Kept:
    rows = [vars(row) | {"split": name} for row, name in zip(labels.rows, splits, strict=True)]
    return Kept.of_rows(rows, "before")


@pytest.mark.parametrize("protocol", ["stratified", "hash"])
def test_one_person_more_moves_nobody(protocol: str) -> None:
    before, after = grown(500), grown(501)
    splits = assign(before, FRACTIONS, 0, protocol=protocol)
    kept = kept_of(before, splits) if protocol == "stratified" else None
    again = assign(after, FRACTIONS, 0, protocol=protocol, kept=kept)
    assert again[: len(splits)] == splits and len(again) > len(splits)


def test_new_people_are_balanced_around_those_who_stay() -> None:
    """Twice as many: every kind's share is near what was asked for, whoever came first."""
    before, after = grown(60), grown(180)
    lopsided = ["train"] * len(before.rows)
    for splits in (assign(before, FRACTIONS, 0), lopsided):
        again = assign(after, FRACTIONS, 0, kept=kept_of(before, splits))
        assert again[: len(before.rows)] == splits
        by_person: dict[str, set[str]] = {}
        for row, name in zip(after.rows, again, strict=True):
            by_person.setdefault(row.subject, set()).add(name)
        assert max(map(len, by_person.values())) == 1
        for (_, name), share in shares(after.rows, again).items():
            assert share == pytest.approx(FRACTIONS[name], abs=0.03)


def test_a_hash_deals_shares() -> None:
    labels = grown(4000)
    splits = assign(labels, FRACTIONS, 0, protocol="hash")
    for (_, name), share in shares(labels.rows, splits).items():
        assert share == pytest.approx(FRACTIONS[name], abs=0.03)
    assert splits != assign(labels, FRACTIONS, 1, protocol="hash")


@pytest.mark.parametrize("subject_column", ["subject", ""])
def test_the_same_file_is_in_one_split(subject_column: str) -> None:
    """Of two people, and of nobody: whoever shares a file stays together."""
    made = grown(40)
    contents = [f"{number:064x}" for number in range(len(made.rows))]
    contents[-1] = contents[0]
    contents[-2] = contents[20]
    labels = replace(made, subject_column=subject_column, contents=tuple(contents))
    for seed in range(8):
        for protocol in ("stratified", "hash"):
            splits = assign(labels, FRACTIONS, seed, protocol=protocol)
            assert splits[-1] == splits[0] and splits[-2] == splits[20]
    alone = assign(replace(labels, contents=()), FRACTIONS, 0)
    assert alone == assign(replace(labels, contents=tuple(contents[:-2]) + ("x", "y")), FRACTIONS, 0)
    stated = [replace(row, split="train" if n else "test") for n, row in enumerate(made.rows)]
    with pytest.raises(UserError, match="1 files that are there twice into several splits .*0-0.mp4 in test"):
        assign(replace(labels, rows=tuple(stated), subject_column="", split_column="split"), FRACTIONS, 0)


def test_what_was_apart_and_now_belongs_together_is_an_error() -> None:
    labels = grown(20)
    splits = assign(labels, FRACTIONS, 0)
    other = next(n for n, name in enumerate(splits) if name != splits[0])
    contents = [f"{number:064x}" for number in range(len(labels.rows))]
    contents[other] = contents[0]
    kept = kept_of(labels, splits)
    with pytest.raises(UserError, match=r"0-0.mp4 was in \w+ and .* in \w+ .*give --reassign"):
        assign(replace(labels, contents=tuple(contents)), FRACTIONS, 0, kept=kept)
    with pytest.raises(UserError, match="has a split 'dev', and this command makes fold0, fold1, fold2"):
        assign(labels, {f"fold{n}": 1 / 3 for n in range(3)}, 0, kept=kept)


def test_dev_is_carved_out_of_train_alone() -> None:
    rows = [(f"person{i // 4}", ("live", "print")[i % 2]) for i in range(80)]
    made = labels(rows, splits=["train"] * 60 + ["test"] * 20)
    found = carve_dev(made, 0.2, 0)
    assert found[60:] == ["test"] * 20 and Counter(found[:60]) == {"train": 48, "dev": 12}
    assert all(len(splits) == 1 for splits in splits_of_groups(rows, found).values())
    for bad, message in ((0.0, "give a share between 0 and 1"), (1.0, "give a share between 0 and 1")):
        with pytest.raises(UserError, match=message):
            carve_dev(made, bad, 0)
    with pytest.raises(UserError, match="there is a dev split already"):
        carve_dev(labels(rows, splits=["dev"] * 80), 0.2, 0)


def test_who_has_no_name_or_no_split_is_in_no_two_splits() -> None:
    rows = labels([("a", "live")] * 4, splits=["train", "test", UNUSED, "test"]).rows
    assert _in_several(["", "", "x", "x"], rows) == {}
    assert _in_several(["x", "y", "x", "x"], rows) == {"x": {"train": "0000.mp4", "test": "0003.mp4"}}
