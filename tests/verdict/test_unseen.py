"""The bound with one unseen person: against Clopper and Pearson, against draws, an example on paper, monotone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livetrain.verdict import unseen
from livetrain.verdict.intervals import clopper_pearson

REFERENCE = Path(__file__).parents[3] / "shared" / "stats"


@pytest.mark.parametrize("num", [1, 2, 7, 200, 100_000])
def test_one_video_a_person_is_clopper_and_pearson(num: int) -> None:
    """100,000 people too, where an integral over the characteristic function fails."""
    for errors in {0, 1, num // 10, num // 2, num}:
        found = unseen.ratio_interval(np.arange(num) < errors, np.ones(num), 0.95)
        assert found == pytest.approx(clopper_pearson(errors, num, 0.95), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize(
    ("errors", "low", "high"),
    [([0] * 20, 0, 16.8), ([1] + [0] * 19, 0, 17.3), ([10] + [0] * 19, 0.1, 24.9), ([2] * 20, 16.6, 33.5)],
)
def test_twenty_people_with_ten_videos_each(errors: list[int], low: float, high: float) -> None:
    found = unseen.ratio_interval(errors, [10] * 20, 0.95)
    assert [round(100 * end, 1) for end in found] == [low, high]


def test_it_is_the_quantile_of_weighted_rates() -> None:
    random = np.random.default_rng(0)
    videos = np.ceil(random.lognormal(1.5, 1.2, 20))
    errors = random.binomial(videos.astype(int), 0.1)
    size = unseen.size_of_unseen(videos)
    weights = random.standard_exponential((200_000, 21))
    total = weights @ np.append(videos, size)
    drawn = [
        np.quantile((weights @ np.append(errors, extreme * size)) / total, level)
        for extreme, level in ((0, 0.025), (1, 0.975))
    ]
    assert unseen.ratio_interval(errors, videos, 0.95) == pytest.approx(drawn, abs=2e-3)


people = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=25).map(
    lambda pairs: [(min(errors, videos), videos) for errors, videos in pairs]
)


@settings(max_examples=60)
@given(people, st.data())
def test_an_error_more_never_lowers_a_bound(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    errors, videos = (list(part) for part in zip(*pairs, strict=True))
    right = [i for i in range(len(pairs)) if errors[i] < videos[i]]
    low, high = unseen.ratio_interval(errors, videos, 0.95)
    rate = sum(errors) / sum(videos)
    assert 0 <= low <= rate + 1e-9 and rate - 1e-9 <= high <= 1
    if right:
        errors[data.draw(st.sampled_from(right))] += 1
        more = unseen.ratio_interval(errors, videos, 0.95)
        assert more[0] >= low - 1e-9 and more[1] >= high - 1e-9


@settings(max_examples=60)
@given(people)
def test_fewer_people_and_a_higher_level_widen_it(pairs: list[tuple[int, int]]) -> None:
    errors, videos = zip(*pairs, strict=True)
    low, high = unseen.ratio_interval(errors, videos, 0.8)
    wide = unseen.ratio_interval(errors, videos, 0.99)
    assert wide[0] <= low + 1e-9 and high <= wide[1] + 1e-9
    twice = unseen.ratio_interval(errors * 2, videos * 2, 0.8)
    assert twice[0] >= low - 1e-9 and twice[1] <= high + 1e-9


def test_signs_and_multiplicities() -> None:
    assert unseen.probability_above_zero([1.0, -1.0]) == pytest.approx(0.5)
    assert unseen.probability_above_zero([3.0, -1.0]) == pytest.approx(3 / 4)  # P(3 E > F) = 3 / (3 + 1)
    assert unseen.probability_above_zero([[1.0, 2.0], [-1.0, -2.0]]) == pytest.approx([1, 0])
    assert unseen.probability_above_zero([2.0, -1.0], [1, 5]) == pytest.approx((2 / 3) ** 5)
    assert unseen.probability_above_zero([2.0, -1.0, 7.0], [1, 5, 0]) == pytest.approx((2 / 3) ** 5)
    for empty in ([], [0]):
        with pytest.raises(ValueError, match="needs people"):
            unseen.ratio_interval([0] * len(empty), empty, 0.95)


def test_the_reference_of_the_shared_folder_agrees() -> None:
    if not REFERENCE.is_dir():
        pytest.skip("no shared/stats here")
    sys.path.insert(0, str(REFERENCE))
    try:
        import bounds  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(REFERENCE))
    random = np.random.default_rng(1)
    for _ in range(30):
        num = random.integers(1, 40)
        videos = random.integers(1, 12, num)
        errors = random.binomial(videos, random.beta(0.4, 2, num))
        wanted = bounds.ratio_interval(errors, videos)
        assert unseen.ratio_interval(errors, videos, 0.95) == pytest.approx(wanted, abs=1e-8)
