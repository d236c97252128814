"""The formulas of `livetrain plan`: pure functions of numbers. Seconds, bytes, FLOPs, clips.

An update takes the longest of what runs at the same time:

    GPU       compute (FLOPs or memory traffic, whichever is longer) + optimizer + what of the all-reduce is not hidden
    decoder   NVDEC, or CPU cores, for the frames that the GOPs force one to decode
    store     the bytes of the clips

The all-reduce of a bucket begins when the backward pass has filled it, and buckets go one after the other (Li et al.,
"PyTorch Distributed", VLDB 2020). A bucket takes latency + 2 (n-1)/n x bytes / bandwidth, as in a ring (Patarasuk and
Yuan, 2009); over nodes, every GPU sums an eighth of it (with eight a node) through its own network card, the parts on
the node and on the network run at the same time, and the steps between nodes are those of a tree (NCCL's double binary
trees): 2 log2(nodes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from livetrain.planner.hardware import Hardware

BACKWARD_SHARE = 2 / 3  # of forward and backward: twice the forward pass
ADAMW_BYTES = 28  # read and written for a parameter: weight, gradient, two moments in; weight, two moments out
# Bytes through the memory for each byte that autograd saves: written and read, its gradient too, and what
# element-wise work makes and throws away. Fitted to timm's published rates of seven networks
# (tests/planner/test_timm.py: 5.9 to 8.7).
TRAFFIC_PER_SAVED_BYTE = 7.5


@dataclass(frozen=True)
class Demand:
    """What a run needs of a machine for one clip.

    flops: what training needs, the FLOPs of the meter's mfu_percent. computed_share: what is computed over that, with
    recomputed activations. saved_bytes: what autograd keeps. stored_bytes: read from storage. decoded_pixels: of all
    frames that a GPU decoder must decode. core_seconds: of a CPU core in a loader that decodes on the CPU.
    trained_parameters: of the model; gradient_bytes_each: as sent.
    """

    flops: float
    saved_bytes: float
    trained_parameters: float
    stored_bytes: float
    decoded_pixels: float
    core_seconds: float
    precision: str = "bf16"
    bucket_bytes: float = 25 * 2**20
    gradient_bytes_each: float = 4.0
    accumulation: int = 1
    computed_share: float = 1.0


@dataclass(frozen=True)
class Prediction:
    """limits: clips/s over all GPUs that each part would allow if it were alone.

    An update of the GPUs (compute, optimizer, `exposed_seconds` of the all-reduce's `reduce_seconds`) takes at least
    `gpu_seconds`.
    """

    num_gpus: int
    clips_per_gpu: float
    limits: dict[str, float]
    gpu_seconds: float
    exposed_seconds: float
    reduce_seconds: float
    clips_per_second: float
    mfu: float

    @property
    def first(self) -> str:
        """What saturates first: the part with the lowest limit."""
        return min(self.limits, key=lambda name: self.limits[name])


def ring_seconds(num_bytes: float, world: int, bandwidth: float, latency: float) -> float:
    """An all-reduce over `world` processes; `bandwidth` is the bus bandwidth, `latency` of the smallest one."""
    return latency + 2 * (world - 1) / world * num_bytes / bandwidth if world > 1 else 0.0


def all_reduce_seconds(num_bytes: float, num_gpus: int, gpus_per_node: int, hardware: Hardware) -> float:
    """An all-reduce over nodes of `gpus_per_node` GPUs."""
    local = min(num_gpus, gpus_per_node)
    nodes = math.ceil(num_gpus / gpus_per_node)
    inside = ring_seconds(num_bytes, local, hardware.node_bandwidth, 0.0)
    between = ring_seconds(num_bytes / local, nodes, hardware.network_bandwidth, 0.0)
    latency = (hardware.node_latency if local > 1 else 0.0) + 2 * math.ceil(math.log2(nodes)) * hardware.network_latency
    return latency + max(inside, between)


def exposed_seconds(
    backward_seconds: float,
    gradient_bytes: float,
    bucket_bytes: float,
    reduce: Callable[[float], float],
    *,
    overlaps: bool = True,
) -> float:
    """What the all-reduce adds to the backward pass."""
    num_buckets = max(1, math.ceil(gradient_bytes / bucket_bytes))
    each = reduce(gradient_bytes / num_buckets)
    if not overlaps:
        return num_buckets * each
    finished = 0.0
    for number in range(1, num_buckets + 1):
        finished = max(finished, backward_seconds * number / num_buckets) + each
    return finished - backward_seconds


def update_seconds(
    compute_seconds: float,
    gradient_bytes: float,
    bucket_bytes: float,
    world: int,
    bandwidth: float,
    latency: float,
    overlaps: bool = True,
) -> float:
    """An update of `world` processes in one place: compute, and what is not hidden of the all-reduce."""
    return compute_seconds + exposed_seconds(
        BACKWARD_SHARE * compute_seconds,
        gradient_bytes,
        bucket_bytes,
        lambda num_bytes: ring_seconds(num_bytes, world, bandwidth, latency),
        overlaps=overlaps,
    )


def training_rate(compute_rate: float, loader_rate: float, shares_cores: bool) -> float:
    """Clips/s of training from those of either part alone: the slower one, or both in turn where they share cores."""
    return 1 / (1 / compute_rate + 1 / loader_rate) if shares_cores else min(compute_rate, loader_rate)


def loader_rate(core_seconds: float, cores: float) -> float:
    """Clips/s of a loader whose clip costs `core_seconds` of a core, on `cores` of them."""
    return cores / core_seconds if core_seconds else math.inf


def lifted_by(store: str) -> str:
    """What lifts the limit of decoding, for shards of `store`."""
    if store == "frames":
        return "smaller pictures: shards build --store frames --size N"
    return "pictures instead of videos: shards build --store frames; or smaller videos: --store transcode --size N"


def compute_seconds(demand: Demand, hardware: Hardware, mfu: float | None = None) -> float:
    """Seconds of forward and backward of one clip.

    By FLOPs or by memory traffic, whichever is longer; or from a measured MFU, which includes what was computed twice.
    """
    peak = hardware.peak_flops_fp32 if demand.precision == "fp32" else hardware.peak_flops
    if mfu:
        return demand.flops / (peak * mfu)
    traffic = TRAFFIC_PER_SAVED_BYTE * demand.saved_bytes
    return max(
        demand.computed_share * demand.flops / (peak * hardware.flops_share),
        traffic / (hardware.memory_bandwidth * hardware.memory_share),
    )


def predict(
    demand: Demand,
    hardware: Hardware,
    *,
    num_gpus: int,
    gpus_per_node: int,
    clips_per_gpu: float,
    mfu: float | None = None,
    gpu_decoder: bool = True,
) -> Prediction:
    """What `num_gpus` GPUs do when each takes `clips_per_gpu` clips of an update. mfu: measured share of the peak."""
    clip_seconds = compute_seconds(demand, hardware, mfu)
    compute = clips_per_gpu * clip_seconds
    optimizer = ADAMW_BYTES * demand.trained_parameters / (hardware.memory_bandwidth * hardware.memory_share)

    def reduce(num_bytes: float) -> float:
        return all_reduce_seconds(num_bytes, num_gpus, gpus_per_node, hardware)

    gradient_bytes = demand.gradient_bytes_each * demand.trained_parameters
    # Gradients travel once an update, in the backward pass of its last micro-batch.
    backward = BACKWARD_SHARE * compute / demand.accumulation
    exposed = exposed_seconds(backward, gradient_bytes, demand.bucket_bytes, reduce) if num_gpus > 1 else 0.0
    update = compute + optimizer + exposed
    clips = num_gpus * clips_per_gpu
    nodes = math.ceil(num_gpus / gpus_per_node)
    limits = {"GPU": clips / (compute + optimizer)}
    reduce_seconds = 0.0
    if num_gpus > 1:
        num_buckets = max(1, math.ceil(gradient_bytes / demand.bucket_bytes))
        reduce_seconds = num_buckets * reduce(gradient_bytes / num_buckets)
        limits["network"] = clips / reduce_seconds
    engine_seconds = demand.decoded_pixels / hardware.nvdec_pixels + hardware.nvdec_clip_seconds
    if gpu_decoder and hardware.num_nvdec and demand.decoded_pixels:
        limits["NVDEC"] = num_gpus * hardware.num_nvdec / engine_seconds
    else:
        limits["CPU decoding"] = loader_rate(demand.core_seconds, num_gpus * hardware.cores)
    limits["store"] = nodes * hardware.store_bandwidth / demand.stored_bytes
    # The all-reduce and the GPU are one chain: only what is hidden runs beside it.
    rate = min(clips / update, *limits.values())
    peak = hardware.peak_flops_fp32 if demand.precision == "fp32" else hardware.peak_flops
    return Prediction(
        num_gpus, clips_per_gpu, limits, update, exposed, reduce_seconds, rate, demand.flops * rate / (num_gpus * peak)
    )
