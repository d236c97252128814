"""Encoding AV1 leaves no test, and no process that a test starts, at a real-time priority."""

from __future__ import annotations

import os

import pytest

from tests import conftest
from tests.shards import kinds


@pytest.mark.skipif(os.geteuid() != 0, reason="SVT-AV1 raises the priority of root's threads alone")
def test_an_av1_encoder_raises_the_priority_and_it_is_taken_back() -> None:
    assert kinds.Kind("mkv", "libsvtav1", width=64, height=64, options=kinds.SVT).data
    raised = os.sched_getscheduler(0)
    conftest.usual_priority()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert raised == os.SCHED_FIFO, "SVT-AV1 does so no more: usual_priority can go"
