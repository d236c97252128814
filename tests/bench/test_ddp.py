"""Sides of `livetrain bench ddp` take turns in the same processes: none finds what another left."""

from __future__ import annotations

import importlib.util
import math

import pytest

from livetrain.bench import ddp, ddp_peers
from livetrain.bench.group import Group


@pytest.mark.slow
def test_every_side_runs_after_fsdp() -> None:
    names = [name for name in ddp.SIDES if name != ddp_peers.LIGHTNING or importlib.util.find_spec("lightning")]
    with Group(2, ddp.measure) as group:
        for name in names:
            for side in (ddp.FSDP, name):
                assert 0 < group.call(side, 1)["seconds"] < math.inf, side
        assert group.call("network", 0)["bandwidth"] > 0
