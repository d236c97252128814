"""The checks of `livetrain doctor`, one function each."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from livetrain.core.errors import UserError, first_line

Level = Literal["ok", "warn", "fail", "skip"]


GB = 10**9


DALI = "nvidia-dali-cuda130"


PACKAGES = ("torch", "torchvision", "timm", "accelerate", "webdataset", DALI, "omegaconf", "wandb", "av")


ALL_REDUCE_BYTES = 64 * 2**20


ALL_REDUCE_SECONDS = 120


MAX_CLOCK_DIFFERENCE_SECONDS = 2.0


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    level: Level
    seen: str
    advice: str = ""


def check_versions(required: Sequence[str] | None = None, installed: Callable[[str], str] | None = None) -> Finding:
    """Installed packages against the versions that livetrain's own metadata asks for."""
    required = required if required is not None else importlib.metadata.requires("livetrain") or []
    installed = installed or importlib.metadata.version
    wrong = []
    for item in required:
        name, equals, version = item.partition(";")[0].strip().partition("==")
        if not equals:
            continue
        try:
            found = installed(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found.partition("+")[0] != version:
            wrong.append(f"{name} {found}, not {version}")
    seen = f"Python {platform.python_version()}, torch {installed('torch')}, DALI {installed(DALI)}"
    if wrong:
        return Finding(
            "versions", "warn", "; ".join(wrong), "run `make setup`: livetrain is tested with its own versions"
        )
    return Finding("versions", "ok", seen)


def check_bytecode(modules: Sequence[str] = ("torch", "timm", "accelerate")) -> Finding:
    """Whether large packages are compiled, or every process does that again."""
    specs = {name: importlib.util.find_spec(name) for name in modules}
    missing = [name for name, spec in specs.items() if spec and spec.cached and not Path(spec.cached).exists()]
    if missing:
        advice = "unset PYTHONDONTWRITEBYTECODE (images of containers often set it) and run launch/setup.sh"
        return Finding("bytecode", "warn", f"{', '.join(missing)} not compiled: each process does that again", advice)
    return Finding("bytecode", "ok", f"{', '.join(modules)} are compiled")


def check_driver() -> Finding:
    """The NVIDIA driver and whether torch can use it."""
    import torch

    tool = shutil.which("nvidia-smi")
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    summary_line = subprocess.run(query, capture_output=True, text=True).stdout.strip().splitlines() if tool else []
    if torch.cuda.is_available():
        names = ", ".join(sorted({torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}))
        driver = summary_line[0].rpartition(", ")[2] if summary_line else "unknown"
        return Finding(
            "driver", "ok", f"{torch.cuda.device_count()} x {names}, driver {driver}, CUDA {torch.version.cuda}"
        )
    if summary_line:
        advice = f"torch is built for CUDA {torch.version.cuda}: update the driver, or check CUDA_VISIBLE_DEVICES"
        return Finding("driver", "fail", f"{summary_line[0]}, but torch sees no CUDA device", advice)
    return Finding("driver", "warn", "no CUDA device", "training runs on the CPU; on a GPU node, look at nvidia-smi")


def check_nvdec(load: Callable[[str], Any] = ctypes.CDLL) -> Finding:
    """NVIDIA's video decoder library, without which videos cannot be decoded on the GPU."""
    import torch

    if not torch.cuda.is_available():
        return Finding("nvdec", "skip", "no CUDA device: videos are decoded by PyAV")
    try:
        load("libnvcuvid.so.1")
    except OSError:
        advice = "in a container set NVIDIA_DRIVER_CAPABILITIES=all; else data.decoder=cpu, or --store frames"
        return Finding("nvdec", "fail", "libnvcuvid.so.1 cannot be loaded", advice)
    major, minor = torch.cuda.get_device_capability()
    modern = "and AV1" if (major, minor) in ((8, 6), (8, 7), (8, 9)) or major >= 10 else "not AV1"
    return Finding(
        "nvdec", "ok", f"libnvcuvid is there; H.264, HEVC, VP9 {modern} (compute capability {major}.{minor})"
    )


def check_dali() -> Finding:
    """A tiny graph, built and run on the device that training would use."""
    import torch
    from nvidia.dali import fn, pipeline_def

    on_gpu = torch.cuda.is_available()

    @pipeline_def(batch_size=1, num_threads=1, device_id=0 if on_gpu else None)
    def tiny() -> Any:
        picture = fn.external_source(name="picture", ndim=3, dtype=_uint8())
        return fn.resize(picture.gpu() if on_gpu else picture, size=(2.0, 2.0))

    pipeline = tiny()
    pipeline.build()
    pipeline.feed_input("picture", [np.full((4, 4, 3), 7, np.uint8)])
    (out,) = pipeline.run()
    value = np.asarray((out.as_cpu() if on_gpu else out).as_array())
    if value.shape != (1, 2, 2, 3) or not (value == 7).all():
        return Finding("dali", "fail", f"a constant picture came out as {value.ravel()[:3]}", "install DALI again")
    return Finding("dali", "ok", f"{importlib.metadata.version(DALI)} runs on the {'GPU' if on_gpu else 'CPU'}")


def check_all_reduce(timeout_seconds: float = ALL_REDUCE_SECONDS, command: Sequence[str] | None = None) -> Finding:
    """Bandwidth of a sum over this machine's processes: NCCL over its GPUs, or gloo over two CPU processes."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 2
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl" and count == 1:
        return Finding("all-reduce", "skip", "one GPU: nothing to sum over")
    command = command or [
        sys.executable,
        "-m",
        "livetrain.jobs.doctor_all_reduce",
        backend,
        str(count),
        str(ALL_REDUCE_BYTES),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        advice = "set NCCL_DEBUG=INFO and run again; try NCCL_P2P_DISABLE=1, NCCL_SOCKET_IFNAME=<interface>"
        return Finding("all-reduce", "fail", f"{backend} over {count} processes hangs ({timeout_seconds:g} s)", advice)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding("all-reduce", "fail", f"{backend} over {count} processes: {last}", "look at NCCL_DEBUG=INFO")
    rate = float(done.stdout.split()[-1])
    slow = backend == "nccl" and rate < 5
    advice = "slow for GPUs: is traffic going through the host? `nvidia-smi topo -m` shows the links" if slow else ""
    return Finding(
        "all-reduce", "warn" if slow else "ok", f"{backend} over {count}: {rate:.1f} GB/s bus bandwidth", advice
    )


def check_shards(folder: Path, num_clips: int = 200) -> Finding:
    """Random clips of a shard folder: read, checksums compared, and how fast (whatever the page cache holds)."""
    from livetrain.data import Dataset, FetchError

    try:
        dataset = Dataset.open(folder)
    except UserError as error:
        return Finding("shards", "fail", str(error), "see `python -m shards build --help`")
    rows = np.random.default_rng(0).permutation(len(dataset))[:num_clips]
    started, num_bytes = time.perf_counter(), 0
    for row in rows.tolist():
        try:
            if dataset.text("store", row) == "frames":
                every = np.arange(int(dataset.column("num_frames")[row]))
                num_bytes += sum(map(len, dataset.jpeg_bytes(row, every)))
            else:
                num_bytes += len(dataset.video_bytes(row))
        except FetchError as error:
            what = f"{dataset.shard_name(row)}, key {dataset.text('key', row)}: {error}"
            return Finding("shards", "fail", what, f"run `python -m shards verify {folder}`")
    seconds = time.perf_counter() - started
    dataset.close()
    rate = f"{num_bytes / 1e6 / seconds:.0f} MB/s, {len(rows) / seconds:.0f} clips/s"
    return Finding("shards", "ok", f"{len(rows)} of {len(dataset)} clips read whole, one at a time: {rate}")


def check_disk(folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> Finding:
    """Free space where runs are written, and how long a small durable write takes there."""
    folder.mkdir(parents=True, exist_ok=True)
    times = []
    for _ in range(5):
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            started = time.perf_counter()
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    free = usage(folder).free
    seen = f"{free / GB:.0f} GB free in {folder.resolve()}, fsync {1e3 * statistics.median(times):.1f} ms"
    if free < 2 * GB:
        return Finding("disk", "fail", seen, "free some space, or set run_dir: checkpoints would not fit")
    if free < 20 * GB:
        return Finding("disk", "warn", seen, "checkpoints of large models take several GB each")
    return Finding("disk", "ok", seen)


def check_shared_memory(usage: Callable[[str], Any] = shutil.disk_usage) -> Finding:
    """/dev/shm, through which NCCL and gloo talk within a machine."""
    total = usage("/dev/shm").total
    if total < GB:
        advice = "in a container, start it with --shm-size=8g or --ipc=host"
        return Finding("shared memory", "warn", f"{total / GB:.2f} GB in /dev/shm", advice)
    return Finding("shared memory", "ok", f"{total / GB:.1f} GB in /dev/shm")


def check_open_files(limit: Callable[[int], tuple[int, int]] = resource.getrlimit) -> Finding:
    """How many files a process may have open: each shard takes one."""
    soft, _ = limit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if soft != resource.RLIM_INFINITY and soft < 4096:
        return Finding("open files", "warn", shown, "ulimit -n 65536: each shard is a file that stays open")
    return Finding("open files", "ok", shown)


def check_compiler() -> Finding:
    """g++ and Python's headers, which model.compile=true needs."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return Finding("compiler", "warn", "no g++", "only model.compile=true needs it (Debian: apt-get install g++)")
    return Finding("compiler", "ok", str(shutil.which(os.environ.get("CXX", "g++"))))


def check_clock(run: Callable[..., Any] = subprocess.run) -> Finding:
    """Whether the clock follows a time server."""
    if shutil.which("timedatectl") is None:
        return Finding("clock", "skip", f"{time.strftime('%F %T %Z')}; timedatectl is not there to ask")
    done = run(["timedatectl", "show", "-p", "NTPSynchronized", "--value"], capture_output=True, text=True)
    if done.returncode:
        return Finding("clock", "skip", f"{time.strftime('%F %T %Z')}; timedatectl cannot say")
    if done.stdout.strip() == "no":
        return Finding("clock", "warn", "not synchronised", "start a time service (chrony): logs of nodes must compare")
    return Finding("clock", "ok", f"{time.strftime('%F %T %Z')}, synchronised")


def check_wandb(connect: Callable[..., Any] = socket.create_connection) -> Finding:
    """The mode that W&B would run in, and whether its server answers."""
    from livetrain.tracking.wandb_run import wandb_host, wandb_mode

    try:
        mode = wandb_mode("auto")
    except UserError as error:
        return Finding("wandb", "warn", str(error), "`wandb login`, or tracking.wandb=offline")
    if mode != "online":
        return Finding("wandb", "ok", f"{mode}: no key, so runs are written to disk (`wandb login`, `wandb sync`)")
    host = wandb_host()
    name, _, port = host.partition(":")
    try:
        connect((name, int(port or 443)), timeout=5).close()
    except OSError as error:
        advice = "set tracking.wandb=offline on this machine, and `wandb sync` from one with a network"
        return Finding("wandb", "warn", f"online, but {host} does not answer ({first_line(error)})", advice)
    return Finding("wandb", "ok", f"online, {host} answers")


def check_nodes(run: Callable[..., Any] = subprocess.run) -> Finding:
    """Versions and clocks of all nodes of this SLURM job."""
    if "SLURM_JOB_ID" not in os.environ:
        return Finding("nodes", "fail", "not within a SLURM job", "salloc --nodes N, or put it into a batch script")
    command = ["srun", "--ntasks-per-node=1", sys.executable, "-m", "livetrain.jobs.doctor", "--facts"]
    done = run(command, capture_output=True, text=True)
    facts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not facts:
        return Finding(
            "nodes",
            "fail",
            first_line(Exception(done.stderr)),
            "srun must reach every node, and find this Python there",
        )
    return compare_nodes(facts)


def facts_of_this_node() -> dict[str, Any]:
    """What must be the same on all nodes, the node's name, and its time (seconds since 1970)."""

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "missing"

    driver = Path("/proc/driver/nvidia/version")
    return {
        "node": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        "time": time.time(),
        "versions": {
            "python": platform.python_version(),
            "kernel driver": driver.read_text().splitlines()[0].split("  ")[1] if driver.exists() else "none",
            **{name: version(name) for name in PACKAGES},
        },
    }


def compare_nodes(facts: Sequence[dict[str, Any]]) -> Finding:
    """One finding over the facts of several nodes."""
    different = []
    for name in facts[0]["versions"]:
        by_version: dict[str, list[str]] = {}
        for item in facts:
            by_version.setdefault(item["versions"][name], []).append(item["node"])
        if len(by_version) > 1:
            different.append(f"{name}: " + ", ".join(f"{v} on {'+'.join(nodes)}" for v, nodes in by_version.items()))
    if different:
        return Finding("nodes", "fail", "; ".join(different), "install the same versions everywhere (`make setup`)")
    spread = max(item["time"] for item in facts) - min(item["time"] for item in facts)
    seen = f"{len(facts)} nodes with the same versions, clocks within {spread:.1f} s"
    if spread > MAX_CLOCK_DIFFERENCE_SECONDS:
        return Finding("nodes", "warn", seen, "let the nodes follow a time server (srun's own start may take a second)")
    return Finding("nodes", "ok", seen)


def _uint8() -> Any:
    from nvidia.dali import types

    return types.UINT8
