"""People under two names: likely, never certain; and not at all where a network does not tell faces apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shards.audit import people
from shards.audit.clips import NUMBERS, WORDS, Clips

pytest.importorskip("faiss")


def clips_of(subjects: list[str], splits: list[str] | None = None) -> Clips:
    """Clips of these people, in one folder."""
    num = len(subjects)
    words = {name: np.full(num, "", object) for name in WORDS}
    words["subject"] = np.array(subjects, object)
    words["video"] = np.array([f"{row}.mp4" for row in range(num)], object)
    words["split"] = np.array(splits or ["train"] * num, object)
    numbers = {name: np.ones(num) for name in NUMBERS}
    return Clips([Path("set")], [{}], pa.table({}), np.zeros(num, np.int64), words, numbers)


def faces(who: list[int], spread: float = 0.1) -> np.ndarray:
    """Faces of people 0.8 apart; those of one person have `spread` from their mean."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(max(who) + 1, 128)) * 0.8 / np.sqrt(2 * 128)
    return np.asarray(centres[who] + random.normal(size=(len(who), 128)) * spread / np.sqrt(128), np.float64)


def test_one_person_under_two_names_is_found_and_no_other_pair() -> None:
    names = [f"p{number}" for number in range(8) for _ in range(4)]
    who = [number if number < 7 else 2 for number in range(8) for _ in range(4)]
    found = people.alike(clips_of(names), faces(who))
    assert [(pair.first_name, pair.second_name) for pair in found.pairs] == [("set/p2", "set/p7")]
    assert 0.9 < found.pairs[0].likelihood <= people.MOST < 1
    assert found.pairs[0].first in range(8, 12) and found.pairs[0].second in range(28, 32)


def test_clips_without_a_name_are_compared_one_by_one() -> None:
    found = people.alike(clips_of(["a", "a", "", "", ""]), faces([0, 0, 0, 1, 1], spread=0.05))
    pairs = {(pair.first, pair.second) for pair in found.pairs}
    assert (3, 4) in pairs and {pair for pair in pairs if 2 in pair} <= {(0, 2), (1, 2)}
    assert len(pairs) == 2


def test_a_likelihood_falls_with_distance_and_the_mean_of_more_clips_must_be_nearer() -> None:
    values = [people.likelihood(distance, 1) for distance in (0.1, 0.3, 0.4, 0.45, 0.5, 0.8)]
    assert values == sorted(values, reverse=True) and values[0] == people.MOST and values[-1] < 0.01
    assert people.likelihood(0.4, 10) < people.likelihood(0.4, 1)


def test_faces_that_the_network_does_not_tell_apart_are_not_measurable() -> None:
    names = [f"p{row // 2}" for row in range(20)]
    found = people.alike(clips_of(names), faces([0] * 20))
    assert found.pairs == () and "cannot separate the faces of these data" in found.reason


def test_nameless_clips_that_all_look_alike_are_not_measurable_either() -> None:
    """They would all be joined under one name."""
    found = people.alike(clips_of([""] * 12), faces([0] * 8 + [1, 2, 3, 4], spread=0.02))
    assert found.pairs == () and "takes 8 of 12 people and clips" in found.reason
    two = people.alike(clips_of([""] * 12), faces([row // 2 for row in range(12)], spread=0.02))
    assert two.reason == "" and len(two.pairs) == 6


def test_clips_without_a_face_are_left_out() -> None:
    identities = faces([0, 1, 2])
    identities[1] = np.nan
    assert people.alike(clips_of(["a", "b", "c"]), identities).pairs == ()
    assert people.alike(clips_of(["a"]), np.full((1, 128), np.nan)).reason == "no face was found"
