"""Sequences of millions of rows in little memory: what lists of Python objects take a kilobyte a row for.

    Lazy       items that are made when they are asked for
    Strings    different texts, in Arrow's memory: their bytes and 8 more each
    Words      texts of which most are repeated: a number each
    Places     where a text is in a sequence, by its hash: 16 bytes a text

Iterating over `Strings` or `Words` converts a batch at a time; asking for single items is slower.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Item = TypeVar("Item")

BATCH = 4096  # rows


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """`items` in lists of BATCH, the last one shorter."""
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, BATCH)):
        yield batch


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A table's column in one piece: itself where it is in one already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table; a batch of them is in memory at once."""
    for start in range(0, len(table), BATCH):
        yield from table.slice(start, BATCH).to_pylist()


class Column(Sequence[Item]):
    """A sequence that is equal to any other of the same items; a slice of it is a list."""

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self.item(place) for place in range(*index.indices(len(self)))]
        count = len(self)
        if not -count <= index < count:
            raise IndexError(index)
        return self.item(index if index >= 0 else index + count)

    def item(self, place: int) -> Item:
        """The item at a place from 0 to the length, which is not looked at: faster than an index."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Item]:
        return map(self.item, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, itertools.islice(self, 3)))
        return f"{type(self).__name__}({shown}{', …' if len(self) > 3 else ''}: {len(self):,})"


def objects(array: pa.Array) -> NDArray[Any]:
    """An array of texts as object [n]; of a dictionary each word is in memory once."""
    if pa.types.is_dictionary(array.type):
        words = np.array(array.dictionary.to_pylist(), dtype=object)
        found: NDArray[Any] = words[np.asarray(array.indices)]
        return found
    return np.array(array.to_pylist(), dtype=object)


class Lazy(Column[Item], Generic[Item]):
    """`count` items; `make(i)` gives item i each time that it is asked for."""

    def __init__(self, count: int, make: Callable[[int], Item]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def item(self, place: int) -> Item:
        return self._make(place)


class Strings(Column[str]):
    """Texts as an Arrow array."""

    def __init__(self, array: pa.Array) -> None:
        self.array = array

    @staticmethod
    def of(texts: Iterable[str]) -> Strings:
        chunks = [pa.array(batch, pa.large_string()) for batch in batches(texts)]
        return Strings(whole(pa.chunked_array(chunks, pa.large_string())))

    def __len__(self) -> int:
        return len(self.array)

    def item(self, place: int) -> str:
        return str(self.array[place])

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.array), BATCH):
            yield from self.array[start : start + BATCH].to_pylist()


class Words(Column[str]):
    """Texts as an Arrow dictionary: `codes` int32[n] say which of `words` each is; every word is there."""

    def __init__(self, array: pa.DictionaryArray) -> None:
        self.array = array
        self.codes: NDArray[np.int32] = np.asarray(array.indices)
        # A list of them is faster to ask; thousands of names are left where they are.
        self._texts: list[str] | Strings = Strings(array.dictionary)
        if len(self._texts) <= BATCH:
            self._texts = list(self._texts)

    @staticmethod
    def of(texts: Iterable[str]) -> Words:
        kind = pa.dictionary(pa.int32(), pa.large_string())
        chunks = [pa.array(batch, pa.large_string()).dictionary_encode() for batch in batches(texts)]
        return Words(whole(pa.chunked_array(chunks, kind).unify_dictionaries()))

    @property
    def words(self) -> Sequence[str]:
        """The different texts, in the order in which they first appear."""
        return self._texts

    @property
    def num_words(self) -> int:
        return len(self._texts)

    def ranks(self) -> NDArray[np.int64]:
        """int64[n]: the place of each text among the sorted different ones, as np.unique's inverse has it."""
        order = np.asarray(pc.sort_indices(self.array.dictionary))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return rank[self.codes]

    def __len__(self) -> int:
        return len(self.codes)

    def item(self, place: int) -> str:
        return self._texts[int(self.codes[place])]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.array), BATCH):
            yield from self.array[start : start + BATCH].to_pylist()


class Places:
    """Where texts are in a sequence, by their hashes: rarely, other texts are found too, so look whether it is the one.

    Hashes are Python's, which differ from process to process.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        hashes = np.fromiter(map(hash, texts), np.int64)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def find(self, text: str) -> list[int]:
        """Places of this text, in ascending order, and of others with its hash."""
        code = hash(text)
        first = int(np.searchsorted(self._hashes, code))
        last = first
        while last < len(self._hashes) and self._hashes[last] == code:
            last += 1
        return [int(place) for place in self._order[first:last]]

    def exact(self, text: str, texts: Sequence[str]) -> list[int]:
        """Places of this text alone; texts: those that this is made of."""
        return [place for place in self.find(text) if texts[place] == text]

    def repeated(self) -> NDArray[np.int64]:
        """int64[m]: the places, ascending, of texts that are there more than once, and of others with their hash."""
        same = self._hashes[1:] == self._hashes[:-1]
        is_one = np.zeros(len(self._hashes), bool)
        is_one[1:] |= same
        is_one[:-1] |= same
        return np.sort(self._order[is_one])
