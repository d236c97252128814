"""Kinds of clips that the GPU's decoder does not take are learned, not tried clip by clip."""

from __future__ import annotations

from typing import Any

import numpy as np

from livetrain.data.nvdec_refusals import PATIENCE, Refusals


class Rows:
    """An index whose first 60 rows are of one size, and the others of another one."""

    def text(self, name: str, row: int) -> str:
        return {"codec": "h264", "pixel_format": "yuv420p"}[name]

    def column(self, name: str) -> Any:
        return np.where(np.arange(100) < 60, 720, 640) if name == "coded_width" else np.full(100, 480)


def test_a_kind_is_given_up_after_a_few_and_reported_once() -> None:
    refusals, rows = Refusals(), Rows()
    for row in range(PATIENCE):
        assert not refusals.covers(rows, 59) and not refusals.notices
        refusals.note(rows, row)
        refusals.note(rows, row)  # the same clip in another epoch is no news
        assert refusals.covers(rows, row)
    assert refusals.covers(rows, 59) and not refusals.covers(rows, 60)
    refusals.note(rows, 50)  # was under way
    (notice,) = refusals.notices
    assert "h264, yuv420p, 720 x 480" in notice and len(refusals.rows) == PATIENCE + 1
