"""Things that belong together, directly or through others (disjoint sets, "union-find")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class DisjointSets(Generic[Item]):
    """Each item is in a set of its own until it is joined with another; a set is named by its least item.

    key: what items are compared by.
    """

    def __init__(self, key: Callable[[Item], Any] | None = None) -> None:
        self._above: dict[Item, Item] = {}
        self._key: Callable[[Item], Any] = key or (lambda item: item)

    def root(self, item: Item) -> Item:
        """The least item of its set."""
        while (above := self._above.get(item, item)) != item:
            self._above[item] = self._above.get(above, above)  # half of the way for the next time
            item = above
        return item

    def join(self, first: Item, second: Item) -> None:
        """Make one set of theirs."""
        low, high = sorted((self.root(first), self.root(second)), key=self._key)
        if low != high:
            self._above[high] = low
