"""A real SLURM cluster of two nodes on this machine: munge, slurmctld, and two slurmd with ports of their own.

Needs root and Debian's slurm-wlm and munge (`make test` installs them where it can). Everything it makes is in one
folder; all daemons are its children and end with it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")

CONF = """
ClusterName=livetrain
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=20
SchedulerParameters=sched_interval=2,requeue_setup_env_fail
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=4000
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=4000
PartitionName=main Nodes=n0,n1 Default=YES MaxTime=INFINITE State=UP
"""


class NoCluster(Exception):
    """SLURM is installed, but its daemons do not work here."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `environment` makes SLURM's commands find it."""

    folder: Path
    environment: dict[str, str]

    def call(self, *command: str) -> str:
        """Run one of SLURM's commands; returns what it prints."""
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | self.environment)
        assert done.returncode == 0, f"{command}: {done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """A job's state, such as PENDING, RUNNING, COMPLETED."""
        shown = self.call("scontrol", "show", "job", job, "--oneliner")
        return next(word.partition("=")[2] for word in shown.split() if word.startswith("JobState="))

    def logs(self) -> str:
        """The last lines of the daemons' logs."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted(self.folder.glob("*.log"))
        )


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    lacking = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed (Debian: apt-get install slurm-wlm munge)"
    return "" if getpass.getuser() == "root" else "SLURM's daemons need root here"


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Cluster]:
    """A cluster that is up, with its files in `folder` (its path must be short: sockets are in it)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    (folder / "state").mkdir()
    for node in ("n0", "n1"):
        (folder / f"spool-{node}").mkdir()
    # All of the machine's cores on both nodes: a step that is not given its cores by name gets one.
    conf = CONF.format(host=socket.gethostname(), folder=folder, ports=_free_ports(3), cpus=os.cpu_count())
    (folder / "slurm.conf").write_text(conf)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
    munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"]
    cluster = Cluster(folder, environment)
    with contextlib.ExitStack() as daemons:
        daemons.enter_context(_daemon([*munge, "--num-threads=2"], environment, folder))
        _wait(lambda: (folder / "munge.socket").exists(), cluster)
        daemons.enter_context(_daemon(["slurmctld", "-D"], environment, folder))
        for node in ("n0", "n1"):
            daemons.enter_context(_daemon(["slurmd", "-D", "-N", node], environment, folder))
        _wait(lambda: _idle(cluster) == 2, cluster)
        yield cluster
        subprocess.run(["scancel", "--user", "root"], env=os.environ | environment, capture_output=True)


def _idle(cluster: Cluster) -> int:
    shown = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%t"],
        capture_output=True,
        text=True,
        env=os.environ | cluster.environment,
    )
    return shown.stdout.split().count("idle")


@contextlib.contextmanager
def _daemon(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    with (folder / f"{command[0]}-output.log").open("a") as output:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(condition, cluster: Cluster, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NoCluster(f"the cluster does not come up\n{cluster.logs()}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
