"""The little language of splits: which splits of which domains, and whether two selections can meet."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livetrain.config.split_spec import Selection
from livetrain.core.errors import UserError

SPLITS, DOMAINS = ("train", "dev", "test", "unused"), ("a", "b", "c")
KINDS = ("live", "print", "replay")


def some(mark: str, names: list[str]) -> st.SearchStrategy[str]:
    """Nothing, or `@a+b`, or `@-a`."""
    return st.builds(
        lambda sign, chosen: f"{mark}{sign}{'+'.join(chosen)}" if chosen else "",
        st.sampled_from(["", "-"]),
        st.lists(st.sampled_from(names), max_size=2),
    )


SPLIT_NAMES = st.lists(st.sampled_from([*SPLITS[:3], "all"]), min_size=1, max_size=2).map("+".join)
TEXTS = st.tuples(SPLIT_NAMES, some("@", list(DOMAINS)), some(":", list(KINDS))).map("".join)


def taken(text: str) -> set[tuple[str, str, str]]:
    """The (split, domain, kind) of a selection, of all that there are."""
    chosen = Selection.parse(text)
    every = itertools.product(SPLITS, (*DOMAINS, "d"), (*KINDS, "z"))
    return {
        (s, d, k) for s, d, k in every if chosen.takes_split(s) and chosen.domains.takes(d) and chosen.kinds.takes(k)
    }


def test_what_is_taken() -> None:
    def places(text: str) -> set[tuple[str, str]]:
        return {(split, domain) for split, domain, _ in taken(text)}

    assert places("train+dev@a+b") == {("train", "a"), ("train", "b"), ("dev", "a"), ("dev", "b")}
    assert places("test@-a+b+c") == {("test", "d")}
    assert places("all@c") == {("train", "c"), ("dev", "c"), ("test", "c")}, "what a protocol does not use stays out"
    assert taken("train@a:live") == {("train", "a", "live")}
    assert taken("train@a:-live+print") == {("train", "a", "replay"), ("train", "a", "z")}


@given(TEXTS, TEXTS)
def test_selections_that_share_nothing_are_known_for_it(one: str, other: str) -> None:
    """Domains have no end, so (d stands for the rest) sharing is said where it could be, and never missed."""
    meets = Selection.parse(one).shares_samples(Selection.parse(other))
    assert meets == Selection.parse(other).shares_samples(Selection.parse(one)) == bool(taken(one) & taken(other))


@pytest.mark.parametrize("text", ["", "+a", "train@", "train@-", "train@a+", "train:", "train:-", "train@a:+live"])
def test_empty_names(text: str) -> None:
    with pytest.raises(UserError, match="a name is empty"):
        Selection.parse(text)
