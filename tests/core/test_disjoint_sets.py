"""Sets of what belongs together, named by their least item whatever the order of joining."""

from __future__ import annotations

import itertools

from livetrain.core.disjoint_sets import DisjointSets


def test_items_joined_through_others_have_the_least_as_root_in_any_order() -> None:
    for order in itertools.permutations([(5, 2), (2, 9), (9, 1), (4, 3)]):
        sets: DisjointSets[int] = DisjointSets()
        for first, second in order:
            sets.join(first, second)
        assert {item: sets.root(item) for item in (1, 2, 3, 4, 5, 9, 7)} == {1: 1, 2: 1, 3: 3, 4: 3, 5: 1, 9: 1, 7: 7}


def test_a_key_says_which_is_least() -> None:
    sets: DisjointSets[str] = DisjointSets(key=len)
    sets.join("aaa", "z")
    sets.join("bb", "aaa")
    assert sets.root("aaa") == sets.root("bb") == "z"
