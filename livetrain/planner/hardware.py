"""Facts of GPU machines that a prediction needs; a YAML file changes what is different in yours.

    livetrain plan … --hardware h100
    livetrain plan … --hardware site.yaml      # base: h100, and the fields that differ: store_bandwidth: 5e9

Peaks are the makers' (NVIDIA's data sheets: dense, without sparsity). The shares of them that training reaches, the
latencies, and what a node has around its GPUs are assumptions, said to be so: replace them by what you measured.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from livetrain.config.load import read_mapping
from livetrain.core.errors import UserError
from livetrain.core.machine import PEAK_FLOPS_16BIT

FULL_HD = 1920 * 1080


@dataclass(frozen=True)
class Hardware:
    """One GPU and its share of a node. Bandwidths are bytes/s in one direction."""

    name: str
    peak_flops: float
    """Dense peak for bf16 and fp16, FLOP/s."""
    peak_flops_fp32: float
    """Peak for fp32 outside the matrix units, FLOP/s."""
    memory_bytes: float
    memory_bandwidth: float
    num_nvdec: int
    """Video decoders; NVIDIA's video encode and decode support matrix."""
    node_bandwidth: float
    """All-reduce bus bandwidth between the GPUs of a node: assumed four fifths of the links' one-way rate."""
    network_bandwidth: float
    """All-reduce bus bandwidth between nodes, for each GPU: assumed four fifths of its network card's rate."""
    nvdec_pixels: float = 700.0 * FULL_HD
    """Pixels/s of one decoder: H.264, 8 bit. Its order of magnitude: an assumption, measure yours."""
    nvdec_clip_seconds: float = 0.006
    """Time a decoder takes to be set up for another clip (DALI issue 6387: 5-6 ms on an H100)."""
    flops_share: float = 0.55
    """Share of the peak that large matrix products reach: an assumption."""
    memory_share: float = 0.75
    """Share of the memory's bandwidth that element-wise work reaches: an assumption."""
    node_latency: float = 10e-6
    """Seconds of the smallest all-reduce within a node: an assumption."""
    network_latency: float = 15e-6
    """Seconds of one step of a tree between nodes: an assumption."""
    cores: float = 14.0
    """CPU cores a GPU may use: an assumption (112 in a node of eight)."""
    store_bandwidth: float = 2e9
    """Bytes/s that a node reads from the store or its disk: an assumption."""


# Memory, bandwidth, links: NVIDIA's data sheets of H100, H200, A100, B200, L40S, L4, T4. Network: DGX H100, H200 and
# B200 have a 400 Gb/s card a GPU, DGX A100 200 Gb/s; the others are taken to share one of 100 Gb/s between two.
_KNOWN = (
    Hardware("h100", PEAK_FLOPS_16BIT["H100"], 67e12, 80e9, 3.35e12, 7, 360e9, 40e9),
    Hardware("h200", PEAK_FLOPS_16BIT["H200"], 67e12, 141e9, 4.8e12, 7, 360e9, 40e9),
    Hardware("b200", PEAK_FLOPS_16BIT["B200"], 75e12, 180e9, 7.7e12, 7, 720e9, 40e9),
    Hardware("a100", PEAK_FLOPS_16BIT["A100"], 19.5e12, 80e9, 2.0e12, 5, 240e9, 20e9),
    Hardware("l40s", PEAK_FLOPS_16BIT["L40S"], 91.6e12, 48e9, 0.864e12, 3, 25e9, 5e9),
    Hardware("l4", PEAK_FLOPS_16BIT["L4"], 30.3e12, 24e9, 0.3e12, 4, 20e9, 5e9),
    Hardware("t4", PEAK_FLOPS_16BIT["T4"], 8.1e12, 16e9, 0.32e12, 2, 10e9, 5e9),
)
KNOWN = {hardware.name: hardware for hardware in _KNOWN}


def load(name: str) -> Hardware:
    """A machine by name, or from a YAML file of fields over those of its `base`. Raises UserError."""
    if not name.endswith((".yaml", ".yml")):
        if name.lower() in KNOWN:
            return KNOWN[name.lower()]
        raise UserError(f"--hardware {name}: there are {', '.join(KNOWN)}, or a FILE.yaml with `base:` one of them")
    content = read_mapping(name, "--hardware", missing=f"there are {', '.join(KNOWN)} without one")
    if str(content.get("base")) not in KNOWN:
        raise UserError(f"--hardware {name}: needs `base:` with one of {', '.join(KNOWN)}, then the fields that differ")
    values: dict[str, Any] = {key: value for key, value in content.items() if key != "base"}
    known = [item.name for item in fields(Hardware)]
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            raise UserError(f"--hardware {name}: unknown field {key}" + (f"; did you mean {near[0]}?" if near else ""))
        if key == "name":
            values[key] = str(value)
        else:
            try:
                values[key] = float(value)
            except (TypeError, ValueError):
                values[key] = math.nan
            if not math.isfinite(values[key]):
                raise UserError(f"--hardware {name}: {key}={value!r} is not a finite number")
            if values[key] < 0 or (values[key] == 0 and not key.endswith(("latency", "seconds", "nvdec"))):
                raise UserError(f"--hardware {name}: {key}={value} must be above 0")
    return replace(KNOWN[content["base"]], **({"name": Path(name).stem} | values))
