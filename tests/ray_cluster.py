"""A real Ray cluster for tests: a head and two nodes as processes of this machine, in a network namespace of their own.

    in_cluster("build", videos, out)        # runs the scenario of that name; fails with what it printed

Ray listens on the machine's own address, whatever the options say; in the namespace there is loopback alone, and
nothing outlives the namespace. Scenarios run in there: python -m tests.ray_cluster NAME PATH …
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from livetrain.core.engines import RayEngine
from livetrain.core.errors import MachineFault, UserError
from livetrain.core.worker_pool import Limits, WorkerDied

REPO = Path(__file__).parents[1]
NAMESPACE = ("unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
SECONDS = 170


def in_cluster(scenario: str, *paths: Path, timeout: float = SECONDS) -> str:
    """Run a scenario with `paths`; what it printed. Skips where there is no Ray, or no namespace."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'livetrain[ray]'")
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("needs a network namespace: root, or user namespaces")
    command = [*NAMESPACE, sys.executable, "-m", "tests.ray_cluster", scenario, *map(str, paths)]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPO, timeout=timeout)
    assert ended.returncode == 0, f"exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def _loopback() -> None:
    """Bring the namespace's loopback up, as `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


def _cluster() -> Any:
    """A head and two nodes of one core each."""
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 10**8, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=size | {"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(**{name: value for name, value in size.items() if name != "include_dashboard"})
    return cluster


# --- scenarios --------------------------------------------------------------------------------------------------------


def build(cluster: Any, videos: Path, out: Path) -> None:
    """`shards build` and `shards verify` of a folder with videos/ and label.csv, by the command line."""
    from shards import cli

    engine = ["--engine", "ray", "--ray-address", cluster.address]
    given = ["build", "--videos", str(videos / "videos"), "--labels", str(videos / "label.csv"), "--out", str(out)]
    assert cli.main([*given, "--shard-mb", "0.5", *engine]) == 0
    assert cli.main(["verify", str(out), *engine]) == 0


def predict(cluster: Any, checkpoint: Path, videos: Path, out: Path) -> None:
    """`livetrain predict`, by the command line."""
    from livetrain import cli

    given = ["--checkpoint", str(checkpoint), "--videos", str(videos), "--out", str(out)]
    assert cli.main(["predict", *given, "--engine", "ray", "--ray-address", cluster.address]) == 0


def faults(cluster: Any, folder: Path) -> None:
    """Tasks that raise, crash, hang; nodes that see other files; a cluster that is not there."""
    _raises(UserError, "no Ray cluster answers", lambda: list(RayEngine("127.0.0.1:1").unordered(_work, [2])))
    engine = RayEngine(cluster.address)
    limits = Limits(2, 10**9)
    found = dict(engine.unordered(_work, [1, 13, 3, 17, 5], ("tests.ray_cluster",), limits))
    slow, crashed = WorkerDied("took longer than 2 s"), WorkerDied("crashed")
    assert found == {0: 1, 1: crashed, 2: 9, 3: slow, 4: 25}, found
    _raises(UserError, "ninety-nine", lambda: list(engine.unordered(_work, [1, 99])))
    known = folder / "known"
    known.write_text("a")
    assert dict(engine.sharing(known).unordered(_work, [2])) == {0: 4}
    other = engine.sharing(known)
    known.write_text("ab")  # to the nodes it is now as if it lay on a disk of their own
    other = replace(other, shared=(*other.shared, (str(known), 0, 0)))  # not what they have looked at before
    _raises(MachineFault, "file system that all nodes share", lambda: list(other.unordered(_work, [2])))


def lost_node(cluster: Any, videos: Path, out: Path) -> None:
    """A node vanishes while a build is under way."""
    nodes = list(cluster.worker_nodes)
    removed = threading.Event()

    def remove() -> None:
        deadline = time.monotonic() + SECONDS
        while not list(out.glob(".build/shard-*.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        cluster.remove_node(nodes[0], allow_graceful=False)
        removed.set()

    thread = threading.Thread(target=remove)
    thread.start()
    build(cluster, videos, out)
    thread.join()
    assert removed.is_set()


def killed_driver(cluster: Any, videos: Path, out: Path) -> None:
    """The build's own process is killed when a shard is done, and started again."""
    command = [sys.executable, "-m", "tests.ray_cluster", "driver", cluster.address, str(videos), str(out)]
    with subprocess.Popen(command, cwd=REPO) as driver:
        while not list(out.glob(".build/shard-*.json")):
            assert driver.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
    assert not (out / "dataset.json").exists()
    build(cluster, videos, out)


def _work(number: int) -> int:
    if number == 13:
        os.abort()
    if number == 17:
        signal.pause()
    if number == 99:
        raise UserError("ninety-nine")
    return number * number


def _raises(kind: type[Exception], words: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"no {kind.__name__}")


def main(name: str, *words: str) -> None:
    """Run a scenario, in the namespace; or `driver`, the build that is killed."""
    if name == "driver":
        from types import SimpleNamespace

        build(SimpleNamespace(address=words[0]), Path(words[1]), Path(words[2]))
        return
    _loopback()
    scenarios = (build, predict, faults, lost_node, killed_driver)
    cluster = _cluster()
    {scenario.__name__: scenario for scenario in scenarios}[name](cluster, *map(Path, words))
    # In this order: a driver that is connected still when its node goes ends with exit code 1, and says nothing.
    import ray

    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    from tests import ray_cluster  # its functions travel by name, and nobody else's __main__ has them

    ray_cluster.main(*sys.argv[1:])
