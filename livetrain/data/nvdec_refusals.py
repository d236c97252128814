"""Clips that the GPU's decoder does not take, against what the index says: learned row by row, then kind by kind."""

from __future__ import annotations

from collections import Counter

from livetrain.data.decoders import Rows

PATIENCE = 3  # refused clips of a kind, after which the others of it are not tried

Kind = tuple[str, str, int, int]


def kind_of(rows: Rows, row: int) -> Kind:
    """(codec, pixel format, coded width and height) of a row of the index: what a chip takes or not."""
    words = rows.text("codec", row), rows.text("pixel_format", row)
    return *words, int(rows.column("coded_width")[row]), int(rows.column("coded_height")[row])


class Refusals:
    """What was refused so far. rows: of the index. notices: a line for each kind that was given up."""

    def __init__(self) -> None:
        self.rows: set[int] = set()
        self.notices: list[str] = []
        self._kinds: Counter[Kind] = Counter()

    def note(self, rows: Rows, row: int) -> None:
        """The clip in a row of the index was refused, and whole for the CPU's decoder."""
        if row in self.rows:
            return
        self.rows.add(row)
        kind = kind_of(rows, row)
        self._kinds[kind] += 1
        if self._kinds[kind] == PATIENCE:
            codec, pixels, width, height = kind
            self.notices.append(
                f"warning: this GPU's decoder refused {PATIENCE} clips of {codec}, {pixels}, {width} x {height}: all "
                "of that kind are decoded by the CPU from now on"
            )

    def covers(self, rows: Rows, row: int) -> bool:
        """Whether the clip in a row of the index goes to the CPU because of what was refused."""
        return row in self.rows or (bool(self.notices) and self._kinds[kind_of(rows, row)] >= PATIENCE)
