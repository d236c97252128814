"""Tables for terminals: what is wider than usual stays apart from its neighbour."""

from __future__ import annotations

from livetrain.core.tables import aligned


def test_cells_of_any_width_stay_apart() -> None:
    rows = [("dev", "a", 2010600, 1.5), ("a split of a long name", "b", 3, 0.25)]
    assert aligned(("split", "class", "clips", "share"), rows, num_names=2).splitlines() == [
        "split                   class      clips  share",
        "dev                     a      2,010,600    1.5",
        "a split of a long name  b              3   0.25",
    ]
