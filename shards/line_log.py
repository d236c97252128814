"""Results of long work in files, a line of JSON each; in memory is where the line of each item is.

What a killed process has written is found again; the line that it was writing is passed over.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE_BYTES = 4096  # that are read at once: most lines are shorter


class LineLog:
    """Lines of `count` items, in one file or several."""

    def __init__(self, count: int) -> None:
        self._files: list[int] = []  # descriptors
        self._file = np.full(count, -1, np.int32)  # that has the item's line, and where it is there
        self._offset = np.zeros(count, np.int64)

    def close(self) -> None:
        """Close the files: on NFS a folder cannot be removed while one of it is open. No line is read any more."""
        while self._files:
            os.close(self._files.pop())

    def __del__(self) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._file)

    def missing(self) -> NDArray[np.int64]:
        """Places of the items without a line, ascending."""
        return np.flatnonzero(self._file < 0)

    def load(self, path: Path, places_of: Callable[[Any], list[int]], start: int = 0) -> None:
        """Take lines of a file, from its byte `start`; places_of: the items that a line's value is about."""
        number = self._open(path)
        for offset, value in lines(path, start):
            for place in places_of(value):
                self._file[place], self._offset[place] = number, offset

    @contextlib.contextmanager
    def appending(self, path: Path) -> Iterator[Callable[[int, Any], None]]:
        """Yield `write(place, value)`, which appends the item's line to a file."""
        with path.open("ab") as file:
            number = self._open(path)
            if file.tell() and os.pread(self._files[number], 1, file.tell() - 1) != b"\n":
                file.write(b"\n")  # behind the line that a killed process was writing

            def write(place: int, value: Any) -> None:
                self._file[place], self._offset[place] = number, file.tell()
                file.write(json.dumps(value).encode() + b"\n")
                file.flush()

            yield write

    def value(self, place: int) -> Any:
        """The value of an item's line, of one that has any."""
        assert self._file[place] >= 0, "missing"
        file, offset, size, line = self._files[self._file[place]], int(self._offset[place]), LINE_BYTES, b""
        while b"\n" not in line:
            line, size = os.pread(file, size, offset), 8 * size
        return json.loads(line[: line.index(b"\n")])

    def _open(self, path: Path) -> int:
        self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return len(self._files) - 1


def lines(path: Path, start: int = 0) -> Iterator[tuple[int, Any]]:
    """(Offset, value) of the whole lines of a file, from its byte `start`."""
    offset = start
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if line.endswith(b"\n"):  # else a killed process was writing it
                with contextlib.suppress(ValueError):  # one that it was writing, and was ended later
                    yield offset, json.loads(line)
            offset += len(line)
