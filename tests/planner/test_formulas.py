"""The formulas: where the answer is known, they give it; and each part can be what saturates first."""

from __future__ import annotations

import dataclasses
import math

import pytest

from livetrain.planner import hardware
from livetrain.planner.formulas import (
    Demand,
    all_reduce_seconds,
    compute_seconds,
    exposed_seconds,
    loader_rate,
    predict,
    ring_seconds,
    training_rate,
    update_seconds,
)

H100 = hardware.KNOWN["h100"]
RUN = Demand(
    flops=1e12, saved_bytes=1e6, trained_parameters=1e8, stored_bytes=1e5, decoded_pixels=1e7, core_seconds=0.05
)


def at(num_gpus: int = 8, demand: Demand = RUN, machine: hardware.Hardware = H100, **options: object):  # type: ignore[no-untyped-def]
    chosen = {"num_gpus": num_gpus, "gpus_per_node": 8, "clips_per_gpu": 16.0} | options
    return predict(demand, machine, **chosen)  # type: ignore[arg-type]


def test_a_ring_moves_twice_its_bytes() -> None:
    assert ring_seconds(1e9, 1, 1e9, 1.0) == 0
    assert ring_seconds(1e9, 2, 1e9, 0.5) == pytest.approx(1.5)
    assert ring_seconds(1e9, 1000, 1e9, 0.0) == pytest.approx(1.998)


def test_over_nodes_the_slower_part_counts() -> None:
    free = dataclasses.replace(H100, node_latency=0.0, network_latency=0.0)
    inside = 2 * 7 / 8 * 1e9 / free.node_bandwidth
    assert all_reduce_seconds(1e9, 8, 8, free) == pytest.approx(inside)
    assert all_reduce_seconds(1e9, 16, 8, free) == pytest.approx(max(inside, 1e9 / 8 / free.network_bandwidth))
    slow = dataclasses.replace(free, network_bandwidth=1e9)
    assert all_reduce_seconds(1e9, 16, 8, slow) == pytest.approx(1e9 / 8 / 1e9)
    steps = dataclasses.replace(H100, node_latency=0.0, network_latency=1.0)
    assert all_reduce_seconds(0, 1024, 8, steps) == 14, "up and down a tree of 128 nodes"


def test_a_fast_network_shows_the_last_bucket_alone_a_slow_one_everything_but_the_first_ones_compute() -> None:
    assert exposed_seconds(8.0, 80, 10, lambda n: n / 20) == pytest.approx(0.5)
    assert exposed_seconds(8.0, 80, 10, lambda n: n / 5) == pytest.approx(1 + 8 * 2 - 8)
    assert exposed_seconds(8.0, 80, 80, lambda n: n / 20) == pytest.approx(4), "one bucket hides nothing"
    assert exposed_seconds(8.0, 80, 10, lambda n: n / 20, overlaps=False) == pytest.approx(4)


def test_an_update_of_processes() -> None:
    assert update_seconds(3.0, 10, 10, 2, 10.0, 0.25) == pytest.approx(3 + 1.25)
    assert update_seconds(3.0, 10, 5, 2, 10.0, 0.25) == pytest.approx(3 + 0.75), "the first half is hidden"
    assert update_seconds(3.0, 10, 5, 2, 10.0, 0.25, overlaps=False) == pytest.approx(3 + 1.5)


def test_rates_of_parts() -> None:
    assert training_rate(10, 40, shares_cores=False) == 10 and training_rate(10, 40, shares_cores=True) == 8
    assert loader_rate(0.5, 4) == 8 and loader_rate(0, 4) == math.inf


def test_compute_is_flops_or_memory_traffic_or_what_was_measured() -> None:
    assert compute_seconds(RUN, H100) == pytest.approx(1e12 / (H100.peak_flops * H100.flops_share))
    assert compute_seconds(RUN, H100, mfu=0.25) == pytest.approx(4e12 / H100.peak_flops)
    assert compute_seconds(dataclasses.replace(RUN, precision="fp32"), H100) > 10 * compute_seconds(RUN, H100)
    heavy = dataclasses.replace(RUN, saved_bytes=1e12)
    assert compute_seconds(heavy, H100) > 100 * compute_seconds(RUN, H100)


@pytest.mark.parametrize(
    ("first", "demand", "machine"),
    [
        ("GPU", {"flops": 1e13}, {}),
        ("NVDEC", {"decoded_pixels": 1e9}, {}),
        ("CPU decoding", {"core_seconds": 1.0}, {"num_nvdec": 0}),
        ("store", {}, {"store_bandwidth": 1e7}),
        ("network", {}, {"network_bandwidth": 1e8}),
    ],
)
def test_each_part_can_saturate_first(first: str, demand: dict[str, float], machine: dict[str, float]) -> None:
    run, hardware_ = dataclasses.replace(RUN, **demand), dataclasses.replace(H100, **machine)
    found = at(64, run, hardware_)
    assert found.first == first
    assert found.clips_per_second <= found.limits[first]
    assert found.clips_per_second < at(64).clips_per_second
    assert found.mfu == pytest.approx(run.flops * found.clips_per_second / (64 * hardware_.peak_flops))


def test_more_gpus_are_faster_and_less_efficient() -> None:
    found = [at(number) for number in (1, 2, 8, 16, 128, 1024)]
    rates = [item.clips_per_second for item in found]
    each = [rate / item.num_gpus for rate, item in zip(rates, found, strict=True)]
    assert rates == sorted(rates) and each == sorted(each, reverse=True) and len(set(each)) == len(each)
    assert found[0].reduce_seconds == found[0].exposed_seconds == 0
    assert all(0 < item.exposed_seconds < item.reduce_seconds for item in found[1:])


def test_half_the_bytes_take_less_and_accumulation_hides_less() -> None:
    slow = dataclasses.replace(H100, network_bandwidth=2e9)
    halved = dataclasses.replace(RUN, gradient_bytes_each=2.0)
    assert at(64, halved, slow).clips_per_second > at(64, RUN, slow).clips_per_second
    assert at(64, dataclasses.replace(RUN, accumulation=4), slow).exposed_seconds > at(64, RUN, slow).exposed_seconds
