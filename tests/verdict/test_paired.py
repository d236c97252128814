"""Sign flips against counting all patterns, Holm's adjustment, intervals of differences, swaps of decisions, ranks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livetrain.verdict import metrics, paired
from livetrain.verdict.intervals import Settings
from livetrain.verdict.paired import Difference
from livetrain.verdict.scores import Scores
from livetrain.verdict.unseen import ratio_interval
from tests.verdict.helpers import make_scores
from tests.verdict.test_intervals import correlated


def counted(values: list[int]) -> float:
    sums = [abs(sum(map(int.__mul__, values, signs))) for signs in itertools.product((1, -1), repeat=len(values))]
    return sum(one >= abs(sum(values)) for one in sums) / len(sums)


@settings(max_examples=60)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_sign_flips_are_all_patterns_counted(values: list[int]) -> None:
    assert paired.sign_flip_p(np.array(values)) == pytest.approx(counted(values))
    assert paired.sign_flip_p(np.array(values) * 35) == pytest.approx(counted(values)), "a common divisor"


def test_sign_flips_of_many_people_and_large_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = np.array([1] * 40 + [-1] * 25)
    exact = paired.sign_flip_p(alike)
    assert exact == pytest.approx(0.0818, abs=1e-3)  # P(|X - 32.5| >= 7.5), X binomial of 65
    monkeypatch.setattr(paired, "MAX_LATTICE", 10)
    assert paired.sign_flip_p(alike) == pytest.approx(exact, abs=0.02), "over drawn patterns"


def test_the_fewest_people() -> None:
    assert [paired.people_needed(figures, 0.95) for figures in (1, 2, 5)] == [6, 7, 8]
    assert paired.people_needed(1, 0.9) == 5


def test_holm() -> None:
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert paired.holm([]) == [] and paired.holm([0.9, 0.9]) == [1, 1]

    def item(p: float, differing: int) -> Difference:
        return Difference(0, 0.1, 0, 0.2, (-0.1, 0.2), 0.1, p, differing)

    decided = paired.apart([item(0.001, 12), item(0.03, 12), item(0.03, 6), item(1, 0)], 0.95)
    assert [apart for _, apart in decided] == [True, False, None, False]


def worse_by_one(num: int, of: int) -> tuple[Scores, Scores]:
    """`of` people with ten live and ten attack videos each, of which `num` have one more live video refused."""
    rows = [("live" if i % 2 else "print", 0.9 if i % 2 else 0.1) for i in range(20 * of)]
    people = [f"p{i // 20}" for i in range(20 * of)]
    other = [(kind, 0.2 if i % 20 == 1 and i // 20 < num else p) for i, (kind, p) in enumerate(rows)]
    return make_scores(rows, people), make_scores(other, people)


def test_the_interval_of_a_difference_is_cut_where_the_flips_tell() -> None:
    one, other = worse_by_one(20, 20)
    found = paired.of_differences(one, other, (0.5, 0.5), ["bpcer", "hter", "apcer_max"], Settings())
    bpcer = found["bpcer"]
    assert bpcer.difference == pytest.approx(0.1) and bpcer.p == pytest.approx(2 / 2**20)
    assert bpcer.uncut == pytest.approx(ratio_interval([1] * 20, [10] * 20, 0.95, unseen=(-1, 1)))
    assert bpcer.uncut[0] < 0 < bpcer.low < 0.1, "20 people exclude no unseen one who is served better"
    assert not bpcer.beyond_these_people and bpcer.high == bpcer.uncut[1]
    assert bpcer.error == pytest.approx(0, abs=1e-12), "all people are alike"
    assert found["hter"].difference == pytest.approx(0.05) and found["hter"].p == bpcer.p and found["hter"].low > 0
    assert found["apcer_max"].p == 1 and found["apcer_max"].num_differing == 0
    back = paired.of_differences(other, one, (0.5, 0.5), ["bpcer"], Settings())["bpcer"]
    assert (back.low, back.high) == pytest.approx((-bpcer.high, -bpcer.low), abs=1e-6)


def test_swaps_of_decisions_and_flips_of_parts() -> None:
    one = correlated(np.random.default_rng(1), 40, 4)
    other = one.select(np.arange(len(one)))
    better = np.where(one.live, one.p_live + 0.3, one.p_live - 0.3).clip(0, 1)
    other.p_live[:] = better
    found = paired.of_differences(one, other, (0.5, 0.5), ["auc", "eer", "apcer_max"], Settings())
    assert found["auc"].difference == metrics.auc(other.live, better) - metrics.auc(one.live, one.p_live) > 0
    assert found["auc"].p < 0.01 and found["eer"].p < 0.01 and found["apcer_max"].p < 0.01
    assert found["auc"].low < found["auc"].difference < found["auc"].high
    same = paired.of_differences(one, one, (0.5, 0.5), ["auc", "eer", "apcer_max"], Settings())
    assert all((item.p, item.num_differing, item.difference) == (1, 0, 0) for item in same.values())
    scaled = one.select(np.arange(len(one)))
    scaled.p_live[:] = one.p_live**3
    assert paired.of_differences(one, scaled, (0.5, 0.5), ["auc"], Settings())["auc"].num_differing == 0, "ranks alone"


def test_patterns_are_all_or_drawn_ones() -> None:
    chunks = list(paired.patterns(5, 64))
    every = np.concatenate(chunks)
    assert len({tuple(row) for row in every.tolist()}) == len(every) == 32
    drawn = np.concatenate(list(paired.patterns(40, 999)))
    assert drawn.shape == (999, 40) and (drawn[0] == 1).all() and abs(drawn.mean()) < 0.02


@pytest.mark.parametrize(
    "name", ["apcer_max", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bpcer", "auc", "eer"))]
)
def test_exchangeable_runs_are_rarely_called_different(name: str) -> None:
    """Two runs with errors of their own on people who are hard for both, 8 of them, 100 times over: at most 5 % plus
    two standard errors (4.4 points).
    """
    hits = 0
    for trial in range(100):
        random = np.random.default_rng(trial)
        hard = correlated(random, 8, 3)
        runs = [hard.select(np.arange(len(hard))) for _ in range(2)]
        for run in runs:
            z = np.log(hard.p_live / (1 - hard.p_live)) + random.normal(size=len(hard))
            run.p_live[:] = 1 / (1 + np.exp(-z))
        hits += paired.of_differences(*runs, (0.5, 0.5), [name], Settings(draws=50))[name].p <= 0.05
    assert hits <= 9
