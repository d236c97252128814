"""The little language of splits: which splits of which domains, and whether two selections can meet."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livetrain.config.split_spec import Selection
from livetrain.core.errors import UserError

SPLITS, DOMAINS = ("train", "dev", "test", "unused"), ("a", "b", "c")

TEXTS = st.builds(
    lambda splits, sign, domains: "+".join(splits) + (f"@{sign}{'+'.join(domains)}" if domains else ""),
    st.lists(st.sampled_from([*SPLITS[:3], "all"]), min_size=1, max_size=2),
    st.sampled_from(["", "-"]),
    st.lists(st.sampled_from(DOMAINS), max_size=2),
)


def taken(text: str) -> set[tuple[str, str]]:
    """The (split, domain) pairs of a selection, of all that there are."""
    selection = Selection.parse(text)
    every = itertools.product(SPLITS, (*DOMAINS, "d"))
    return {(s, d) for s, d in every if selection.takes_split(s) and selection.takes_domain(d)}


def test_what_is_taken() -> None:
    assert taken("train+dev@a+b") == {("train", "a"), ("train", "b"), ("dev", "a"), ("dev", "b")}
    assert taken("test@-a+b+c") == {("test", "d")}
    assert taken("all@c") == {("train", "c"), ("dev", "c"), ("test", "c")}, "what a protocol does not use stays out"


@given(TEXTS, TEXTS)
def test_selections_that_share_nothing_are_known_for_it(one: str, other: str) -> None:
    """Domains have no end, so (d stands for the rest) sharing is said where it could be, and never missed."""
    meets = Selection.parse(one).shares_samples(Selection.parse(other))
    assert meets == Selection.parse(other).shares_samples(Selection.parse(one)) == bool(taken(one) & taken(other))


@pytest.mark.parametrize("text", ["", "+a", "train@", "train@-", "train@a+"])
def test_empty_names(text: str) -> None:
    with pytest.raises(UserError, match="a name is empty"):
        Selection.parse(text)
