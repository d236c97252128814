"""Long sequences in little memory: the same items as a list of them has."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livetrain.core import columns
from livetrain.core.columns import Column, Lazy, Places, Strings, Words, batches

texts = st.lists(st.sampled_from(["", "a", "b", "ä", "𝄞", "\ufffd", "Z", "a b"]), max_size=40)


@pytest.mark.parametrize("kind", [Strings.of, Words.of, lambda given: Lazy(len(given), given.__getitem__)])
@given(given=texts)
def test_items_are_those_of_the_list(kind: object, given: list[str]) -> None:
    assert callable(kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "BATCH", 7)
        column: Column[str] = kind(given)
        assert list(column) == given and len(column) == len(given) and column == given and column[2:9:3] == given[2:9:3]
        assert [column[i] for i in range(-len(given), len(given))] == given + given
    assert (column == [*given, "a"]) is False and (column == "text") is False and (column == 5) is False
    for outside in (len(given), -len(given) - 1):
        with pytest.raises(IndexError):
            column[outside]


@given(texts)
def test_words_are_known_by_their_numbers(given: list[str]) -> None:
    words = Words.of(given)
    assert list(words.words) == list(dict.fromkeys(given)) and words.num_words == len(set(given))
    assert [words.words[code] for code in words.codes] == given
    assert words.ranks().tolist() == np.unique(np.array(given, dtype=object), return_inverse=True)[1].tolist()


@given(texts)
def test_places_of_a_text(given: list[str]) -> None:
    places = Places(given)
    for text in {*given, "not there"}:
        assert places.exact(text, given) == [i for i, other in enumerate(given) if other == text]
        assert set(places.exact(text, given)) <= set(places.find(text))
    assert places.repeated().tolist() == [i for i, text in enumerate(given) if given.count(text) > 1]


def test_words_of_many_texts_stay_in_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BATCH", 3)
    words = Words.of(str(i % 10) for i in range(50))
    assert isinstance(words.words, Strings) and words[41] == "1" and list(words.words) == [str(i) for i in range(10)]


def test_batches_take_no_more_than_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BATCH", 4)
    taken: list[int] = []
    made = batches(taken.append(i) or i for i in range(10))
    assert next(made) == [0, 1, 2, 3] and len(taken) == 4
    assert list(made) == [[4, 5, 6, 7], [8, 9]]


def test_a_column_shows_three_items_and_how_many_there_are() -> None:
    assert repr(Strings.of("abcd")) == "Strings('a', 'b', 'c', …: 4)"
    assert repr(Words.of("abc")) == "Words('a', 'b', 'c': 3)"


def test_rows_and_objects_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BATCH", 4)
    given = [{"key": f"{i}", "kind": "ab"[i % 2]} for i in range(10)]
    table = pa.Table.from_pylist(given)
    assert list(columns.rows_of(table)) == given
    for kind in (columns.whole(table["kind"]), columns.whole(table["kind"]).dictionary_encode()):
        found = columns.objects(kind)
        assert found.dtype == object and found.tolist() == ["a", "b"] * 5
    two = pa.chunked_array([["a"], ["b"]])
    assert columns.whole(two).to_pylist() == ["a", "b"]
