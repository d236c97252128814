"""Tables for pages and terminals: Markdown, and plain text that fits a width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from livetrain.core import display_names

MIN_NAME = 16  # characters of the first column that are always shown


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown, its columns padded; numbers to three digits, right-aligned."""
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(not isinstance(row[i], str) or row[i] == "" for row in rows) for i in range(len(header))]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]

    def line(values: Sequence[str]) -> str:
        padded = [v.rjust(w) if right else v.ljust(w) for v, w, right in zip(values, widths, numeric, strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * (w - 1) + ":" if right else "-" * w for w, right in zip(widths, numeric, strict=True)]
    return "\n".join([line(header), "| " + " | ".join(rule) + " |", *map(line, cells)])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        if not math.isfinite(value):
            return "—"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def aligned(header: Sequence[str], rows: Sequence[Sequence[Any]], num_names: int = 1) -> str:
    """A table as text, as wide as its cells: `num_names` columns of names to the left, numbers to the right."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(values: Sequence[str]) -> str:
        padded = (
            v.ljust(w) if i < num_names else v.rjust(w) for i, (v, w) in enumerate(zip(values, widths, strict=True))
        )
        return "  ".join(padded)

    return "\n".join(map(line, cells))


def fitted(
    columns: Sequence[str], lines: Sequence[Sequence[str]], width: int = 80, *, right: bool = False
) -> list[str]:
    """A table as text of at most `width` columns.

    Columns from the right are dropped, and long names of the first are cut in the middle. right: align to the right.
    """
    widths = [max(len(line[i]) for line in [columns, *lines]) for i in range(len(columns))]
    kept = len(columns)
    least = min(widths[0], MIN_NAME)
    while kept > 2 and least + sum(2 + w for w in widths[1:kept]) > width:
        kept -= 1
    widths[0] = max(least, min(widths[0], width - sum(2 + w for w in widths[1:kept])))
    text = []
    for line in [columns, *lines]:
        cells = [display_names.shown(line[0], widths[0]), *line[1:kept]]
        padded = (cell.rjust(w) if right else cell.ljust(w) for cell, w in zip(cells, widths, strict=False))
        text.append("  ".join(padded).rstrip())
    return text
