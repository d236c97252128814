"""What a build refuses, and warns about, once its videos are probed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from livetrain.core.errors import UserError
from shards import build_checks
from shards.labels import Label, Labels
from shards.shard_plan import Sample
from tests.shards.stub_videos import FACTS

NUM_CLIPS = 40


def samples(rows: Sequence[tuple[str, float, str, str]]) -> list[Sample]:
    """Of (video, label, split, first character of the SHA-256)."""
    return [
        Sample(video, Label(video, label, "", "", "", "", ""), split, FACTS, 1000, sign * 64)
        for video, label, split, sign in rows
    ]


def test_facts_are_those_of_the_samples() -> None:
    found = samples([("a", 0.5, "train", "0"), ("b", 0.4, "dev", "8")])
    found = [replace(sample, facts=replace(sample.facts, fps=30000 / 1001)) for sample in found]
    live, attack = build_checks.facts_of(found).to_pylist()
    same = {"file size": 1000, "length": 100, "frame rate": 30.0, "resolution": 640 * 480, "codec": "h264 yuv420p"}
    assert live == {"live": True, "split": "train", "sha256": 0} | same
    assert attack == {"live": False, "split": "dev", "sha256": -(2**63) + 0x0888888888888888} | same


@pytest.mark.parametrize(
    "labels, words",
    [((), "no video is left after 3"), ((1,), "only live videos are left"), ((0,), "only attacks are left")],
)
def test_what_cannot_train_is_refused_with_the_commonest_reason(labels: tuple[int, ...], words: str) -> None:
    bad = Label("x", 1, "", "", "", "", "")
    rejected = [(bad, "train", reason) for reason in ("no frames", "empty file", "empty file")]
    facts = build_checks.facts_of(samples([("a", label, "train", "0") for label in labels]))
    with pytest.raises(UserError, match=f"{words}.*most often: empty file, 2 times.*out/rejected.csv"):
        build_checks.refuse_useless(facts, rejected, Path("out"))


def test_both_classes_are_enough() -> None:
    facts = build_checks.facts_of(samples([("a", 0, "train", "0"), ("b", 1, "train", "1")]))
    build_checks.refuse_useless(facts, [], Path("out"))


def test_each_split_that_lacks_a_class_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", 0, "train", "0"), ("b", 1, "train", "1"), ("c", 0, "dev", "2"), ("d", 1, "test", "3")]
    facts = build_checks.facts_of(samples([*rows, ("e", 1, "unused", "4")]))
    build_checks.warn_about_splits(facts, ["train", "dev", "test", "fold0", "unused"])
    said = [line.partition(":")[2].partition(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        " the split 'dev' has no live clip",
        " the split 'fold0' has no clip",
        " the split 'test' has no attack",
    ]


def joined(shared: int, subject_column: str = "subject") -> Labels:
    """Ten people with two clips each; the second one of the first `shared` people is the same file."""
    rows = [Label(f"{number}", 1, "", f"person {number // 2}", "", "", "") for number in range(20)]
    contents = ["f" * 64 if number % 2 and number // 2 < shared else f"{number:064x}" for number in range(20)]
    return Labels(rows, subject_column, "", (), contents)


def test_people_joined_by_a_file_are_counted_where_they_are_many(capsys: pytest.CaptureFixture[str]) -> None:
    build_checks.warn_about_joined(joined(3))
    assert (
        "WARNING: 3 people share files, so they are split as one person with 6 of 20 clips." in capsys.readouterr().err
    )
    for labels in (
        joined(2),
        joined(0),
        joined(3, subject_column=""),
        replace(joined(3), contents=()),
        replace(joined(3), split_column="split"),
    ):
        build_checks.warn_about_joined(labels)
    one_person = replace(joined(3), rows=[replace(row, subject="ann") for row in joined(3).rows])
    build_checks.warn_about_joined(one_person)
    assert capsys.readouterr().err == "", "no more than a fifth of the clips; nobody is joined; nobody is named"


def test_copies_in_two_splits_or_under_two_labels_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", 1, "train", "0"), ("b", 1, "train", "0"), ("c", 1, "dev", "0"), ("d", 0, "train", "0")]
    found = samples([*rows, ("e", 0, "dev", "1"), ("f", 0, "test", "1"), ("g", 0, "dev", "2")])
    build_checks.warn_about_duplicates(found, build_checks.facts_of(found))
    assert capsys.readouterr().err.splitlines() == [
        "WARNING: a and c are the same file with a different split",
        "WARNING: a and d are the same file with a different label",
        "WARNING: e and f are the same file with a different split",
    ]


def test_thousands_of_copies_do_not_flood_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    found = samples([(f"{number}", number % 2, "train", "0") for number in range(2 * build_checks.NUM_PAIRS_SHOWN + 4)])
    build_checks.warn_about_duplicates(found, build_checks.facts_of(found))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == build_checks.NUM_PAIRS_SHOWN + 1
    assert lines[-1] == "WARNING: 2 more videos are another's file with a different label or split"


def facts(file_size: list[int], live: list[bool]) -> pa.Table:
    """What is known of clips that differ in their size alone."""
    same = {"length": 100, "frame rate": 25.0, "resolution": 640 * 480, "codec": "h264 yuv420p", "split": "train"}
    rows = [
        {"live": is_live, "sha256": number, "file size": size, **same}
        for number, (is_live, size) in enumerate(zip(live, file_size, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=build_checks.facts_of([]).schema)


@pytest.mark.parametrize("sign", [1, -1])
def test_equal_values_count_half_in_either_direction(sign: int) -> None:
    random = np.random.default_rng(5)
    live = random.permutation(NUM_CLIPS) < NUM_CLIPS // 2
    sizes = 10 + sign * (2 * live + random.integers(0, 3, NUM_CLIPS))  # few values, many of them equal
    auc = roc_auc_score(live, sizes)
    assert len(set(sizes)) < 6 and 0.8 < max(auc, 1 - auc) < 1
    assert build_checks._telling(facts(sizes.tolist(), live.tolist())) == [
        ("file size", pytest.approx(max(auc, 1 - auc), abs=1e-12))
    ]


def test_codecs_are_ordered_by_their_share_of_live_clips() -> None:
    numbers = {"h264": (10, 1), "hevc": (12, 12), "vp9": (0, 30)}  # live clips, attacks
    live = [place < num_live for num_live, num_attack in numbers.values() for place in range(num_live + num_attack)]
    codecs = [codec for codec, counts in numbers.items() for _ in range(sum(counts))]
    table = facts([1000] * len(live), live)
    table = table.set_column(7, "codec", pa.array(codecs).dictionary_encode())
    shares = [numbers[codec][0] / sum(numbers[codec]) for codec in codecs]
    assert build_checks._telling(table) == [("codec", pytest.approx(roc_auc_score(live, shares), abs=1e-12))]


@pytest.mark.parametrize("num_attacks, says", [(9, False), (10, True)])
def test_of_few_clips_of_a_class_nothing_is_said(num_attacks: int, says: bool) -> None:
    live = [True] * 12 + [False] * num_attacks
    assert bool(build_checks._telling(facts([1000 + is_live for is_live in live], live))) == says
    swapped = [not is_live for is_live in live]
    assert bool(build_checks._telling(facts([1000 + is_live for is_live in live], swapped))) == says


def test_what_is_measured_to_be_telling_enough() -> None:
    """AUC 0.8 is the limit: of ten live clips and ten attacks, two of each are on the other's side."""
    live = [True] * 10 + [False] * 10
    sizes = [2] * 8 + [1] * 2 + [1] * 8 + [2] * 2
    assert roc_auc_score(live, sizes) == pytest.approx(0.8) and not build_checks._telling(facts(sizes, live))
    (found,) = build_checks._telling(facts([2] * 9 + sizes[9:], live))
    assert found == ("file size", pytest.approx(0.85))


@pytest.mark.parametrize("num_copies, words", [(1, "1 video is there a second time"), (3, "3 videos are there")])
def test_copies_alone_suggest_an_audit(num_copies: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = facts([1000] * 30, [number % 2 == 0 for number in range(30)])
    table = table.set_column(2, "sha256", pa.array([max(number, num_copies) for number in range(30)]))
    labels = Labels([], "", "")
    build_checks.suggest_audit(table, labels, Path("out"))
    said = capsys.readouterr().err
    assert said.startswith(words) and "; nobody is named: " in said and not build_checks._telling(table)
    build_checks.suggest_audit(table, Labels([], "subject", ""), Path("out"))
    assert "nobody" not in capsys.readouterr().err
    build_checks.suggest_audit(facts([1000] * 30, [number % 2 == 0 for number in range(30)]), labels, Path("out"))
    assert capsys.readouterr().err == ""


def test_a_build_imports_none_of_the_large_libraries() -> None:
    """Each takes as long to import as hundreds of videos take to be probed."""
    code = """
import sys
from pathlib import Path
from shards import build, build_checks, cli, split, verify
from shards.labels import Labels
facts = build_checks.pa.Table.from_pylist(
    [
        {"live": number % 2 == 0, "sha256": number, "file size": number % 2, "length": 100, "frame rate": 25.0,
         "resolution": 640 * 480, "codec": "h264 yuv420p", "split": "train"}
        for number in range(20)
    ], schema=build_checks.facts_of([]).schema
)
build_checks.suggest_audit(facts, Labels([], "subject", ""), Path("out"))
sys.exit(", ".join({"scipy", "sklearn", "torch", "pandas", "matplotlib"} & set(sys.modules)) or None)
"""
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert "file size separates live clips from attacks (AUC 1.00)" in done.stderr
    assert done.returncode == 0, done.stderr
