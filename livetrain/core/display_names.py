"""Names from labels, which may be anything, as a table, a terminal or a plot can show them."""

from __future__ import annotations

import unicodedata

WIDTH = 48


def shown(name: str, width: int = WIDTH) -> str:
    r"""`name` on one line of at most `width` characters: control characters as `\x1b`, a long one cut in the middle."""
    if len(name) > 4 * width:  # before each character is looked at
        name = f"{name[: 2 * width]}…{name[-2 * width :]}"
    clean = "".join(c if unicodedata.category(c)[0] != "C" else c.encode("unicode_escape").decode() for c in name)
    if len(clean) <= width:
        return clean
    tail = (width - 1) // 2
    return f"{clean[: width - 1 - tail]}…{clean[len(clean) - tail :]}"
