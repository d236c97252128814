"""Kinds of clips that the GPU's decoder does not take are learned, not tried clip by clip."""

from __future__ import annotations

from livetrain.data.refusals import PATIENCE, Refusals

HIGH, OTHER = ("h264", "yuv420p", 720, 480), ("h264", "yuv420p", 640, 480)


def test_a_kind_is_given_up_after_a_few_and_told_once() -> None:
    refusals = Refusals()
    for row in range(PATIENCE):
        assert not refusals.covers(99, HIGH) and not refusals.notices
        refusals.note(row, HIGH)
        refusals.note(row, HIGH)  # the same clip in another epoch tells nothing new
        assert refusals.covers(row, HIGH)
    assert refusals.covers(99, HIGH) and not refusals.covers(99, OTHER)
    refusals.note(50, HIGH)  # was under way
    (notice,) = refusals.notices
    assert "h264, yuv420p, 720 x 480" in notice and len(refusals.rows) == PATIENCE + 1
