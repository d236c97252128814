"""Measure an all-reduce, for `livetrain doctor`.

    python -m livetrain.jobs.doctor_all_reduce BACKEND PROCESSES BYTES

Prints the bus bandwidth in GB/s: 2 (n-1)/n x bytes over the median time of a sum, which compares over any number of
processes (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

REPEAT = 11


def measure(rank: int, backend: str, world: int, num_bytes: int, meeting: str, times: Any) -> None:
    """One process: sum a tensor over all of them, REPEAT times; the first one writes down the seconds."""
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=world)
    tensor = torch.ones(num_bytes // 4, device=device)
    for repeat in range(REPEAT):
        torch.distributed.barrier()
        started = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        if device.type == "cuda":
            torch.cuda.synchronize()
        if rank == 0:
            times[repeat] = time.perf_counter() - started
        tensor.fill_(1)
    torch.distributed.destroy_process_group()


def main(backend: str, world: int, num_bytes: int) -> None:
    times = torch.zeros(REPEAT, dtype=torch.float64).share_memory_()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (backend, world, num_bytes, f"{folder}/meeting", times)
        torch.multiprocessing.spawn(measure, arguments, nprocs=world)
    seconds = statistics.median(times[1:].tolist())  # the first one opens connections
    print(f"{2 * (world - 1) / world * num_bytes / seconds / 1e9:.3f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
