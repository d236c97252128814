"""Submit a training run to SLURM, with the code and the configuration as they are now.

    livetrain submit CONFIG.yaml … [key=value …] --nodes N --gpus-per-node G [--time 24:00:00] [--cluster FILE]
                     [--array FILE | --array KEYS | --folds] [--at-once N] [--shards fsdp2|hsdp]
                     [--evaluate-on SHARDS] [--dry-run]

  --cluster FILE        the cluster's partition, account, modules, container …; slurm/cluster.yaml lists all keys
  --array FILE          one job for each line of FILE, which holds more `key=value`; its run is run_dir/task-<n>
  --array KEYS          the same for each value of a key, seed=0..4 or optim.lr=1e-3,3e-3; for several keys,
                        separated by spaces, each combination: --array "seed=0..2 model.pool=mean,attention"
  --at-once N           of an array, so many at a time
  --shards fsdp2|hsdp   weights in shards over all processes, or over those of each node (launch/fsdp2.yaml, hsdp.yaml)
  --folds               a job for each fold of shards that were built with --folds K, run_dir/fold-<n>, as data.fold=n/K
  --evaluate-on SHARDS  a job that starts when this one is finished and scores the best checkpoint on other shards
  --dry-run             print what would be run, and write nothing

The run directory gets code-<digest>/ (the packages, and what differed from their commit), submitted-<digest>.yaml (the
whole configuration), jobs.jsonl and job.log: what is queued does not change when the working tree does, nor when other
code or another configuration is submitted. Submitting the same command again resumes the run, after the job that has
it now. When the jobs of an array are done, one more makes run_dir/leaderboard.csv and .html of them, or joins folds
into one verdict (`livetrain cv`). `livetrain jobs RUN` shows how they go, `livetrain cancel RUN` ends them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from livetrain.config import Config, load_config, split_arguments, to_yaml
from livetrain.config.load import read_mapping
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError, first_line
from livetrain.core.files import is_url
from livetrain.jobs import array as arrays
from livetrain.jobs import ledger, snapshot
from livetrain.jobs.array import Array
from livetrain.jobs.ledger import Submitted
from livetrain.tracking.environment import COMMIT
from livetrain.training.resume import refuse_another

REPO = Path(__file__).resolve().parents[2]
LOG, ARRAY = "job.log", "array.txt"
SHARDS = ("fsdp2", "hsdp")


@dataclass
class Cluster:
    """The keys of slurm/cluster.yaml, which says what they mean."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    time: str = "24:00:00"
    stop_seconds_before_limit: int = 180
    cpus_per_task: int = 0
    processes_per_node: int = 0
    python: str = ""
    setup: list[str] = field(default_factory=list)
    container: str = ""
    srun_options: list[str] = field(default_factory=list)
    sbatch_options: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kept:
    """Where a job finds its code, its configuration and its array; digests stand for what is not written yet."""

    code: Path
    submitted: Path
    array: Path

    @classmethod
    def planned(cls, run_dir: Path) -> Kept:
        """Names, before anything is written (--dry-run)."""
        names = ("code-DIGEST", "submitted-DIGEST.yaml", "array-DIGEST.txt")
        return cls(*(run_dir / name for name in names))


@dataclass(frozen=True)
class Job:
    """A call of sbatch.

    Its arguments, the variables its script reads, and the cluster's own options among the arguments.
    """

    command: list[str]
    variables: dict[str, str]
    more: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return " \\\n  ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.variables.items()), shlex.join(self.command)])


def seconds_of(limit: str) -> float:
    """SLURM's time limit: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].

    Raises UserError.
    """
    if limit.upper() in ("0", "INFINITE", "UNLIMITED"):
        return math.inf
    days, dash, rest = limit.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in parts) or (dash and not days.isdecimal()) or len(parts) > 3:
        raise UserError(f"--time {limit}: write hours:minutes:seconds, or days-hours:minutes:seconds")
    numbers = [int(part) for part in parts]
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    return 86400 * int(days or 0) + sum(number * unit for number, unit in zip(numbers, units, strict=False))


def load_cluster(path: Path | None) -> Cluster:
    """The cluster file over the defaults. Raises UserError naming file and key."""
    if path is None:
        return Cluster()
    found = read_mapping(path, "--cluster", missing="slurm/cluster.yaml is one to copy")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Cluster), found))  # type: ignore[return-value]
    except (OmegaConfBaseException, ValueError) as error:
        known = ", ".join(item.name for item in dataclasses.fields(Cluster))
        raise UserError(f"{path}: {first_line(error)}; it may hold: {known}") from None


def training_job(config: Config, cluster: Cluster, options: argparse.Namespace, array: Array | None, kept: Kept) -> Job:
    """The job that trains `config`, whose paths are absolute."""
    run_dir = Path(config.run_dir)
    seconds, limit = cluster.stop_seconds_before_limit, options.time or cluster.time
    if seconds >= seconds_of(limit):
        raise UserError(
            f"--time {limit} is no longer than stop_seconds_before_limit={seconds}: the run would be asked to stop as "
            "it starts, again and again; give more time, or a shorter lead in the cluster file"
        )
    sbatch = [
        "sbatch",
        "--parsable",
        f"--job-name={job_name(config)}",
        f"--nodes={options.nodes}",
        f"--time={limit}",
        f"--signal=B:USR1@{seconds}",
        f"--chdir={run_dir}",
        f"--output={run_dir / ('job-%a.log' if array else LOG)}",
        *_given(partition=cluster.partition, account=cluster.account, qos=cluster.qos, constraint=cluster.constraint),
        *_given(gpus_per_node=options.gpus_per_node or "", cpus_per_task=cluster.cpus_per_task or ""),
        *cluster.sbatch_options,
    ]
    variables = {
        "LIVETRAIN_CODE": str(kept.code),
        "LIVETRAIN_PYTHON": cluster.python or sys.executable,
        "LIVETRAIN_SETUP": "\n".join(cluster.setup),
        "LIVETRAIN_CONTAINER": cluster.container,
        "LIVETRAIN_SRUN": shlex.join(cluster.srun_options),
        "LIVETRAIN_PROCESSES_PER_NODE": str(cluster.processes_per_node or options.gpus_per_node or 1),
        "LIVETRAIN_SHARDS": options.shards,
    }
    if array:
        at_once = f"%{options.at_once}" if options.at_once else ""
        sbatch.append(f"--array=0-{len(array.lines) - 1}{at_once}")
        variables["LIVETRAIN_ARRAY"] = str(kept.array)
    else:
        sbatch.append("--dependency=singleton")  # after the job that has the run now; tasks of an array share a name
    script = [str(kept.code / "slurm" / "train.sbatch"), str(kept.submitted)]
    return Job([*sbatch, *script], {name: value for name, value in variables.items() if value}, cluster.sbatch_options)


def job_name(config: Config) -> str:
    """Of the run, wherever it is submitted from: jobs of one name go one after the other."""
    return f"{config.name}-{hashlib.sha256(config.run_dir.encode()).hexdigest()[:6]}"


def evaluation_job(config: Config, training: Job, after: str, shards: str) -> Job:
    """The job that scores the finished run on other shards, into run_dir/on-<name of the shard folder>.

    As long as training may take, on one GPU.
    """
    name = f"on-{shards.rstrip('/').rpartition('/')[2]}"
    what = ["evaluate", config.run_dir, f"data.shards={shards}", f"run_dir={Path(config.run_dir) / name}"]
    what += ["data.sources=[]"] if config.data.sources else []
    own = [item for item in training.command if item.startswith(("--time=", "--cpus-per-task="))]
    if any(item.startswith("--gpus-per-node=") for item in training.command):
        own.append("--gpus-per-node=1")
    return following_job(config, training, name, f"afterok:{after}", what, own)


def joining_job(config: Config, training: Job, after: str, array: Array) -> Job:
    """The job that makes one table, or one verdict, of the runs of an array."""
    return following_job(config, training, "joined", f"{array.condition}:{after}", array.joined_by, ["--time=01:00:00"])


def following_job(
    config: Config, training: Job, name: str, dependency: str, arguments: Sequence[str], resources: Sequence[str]
) -> Job:
    """A job of one process that runs `livetrain ARGUMENTS` from the snapshot, into run_dir/<name>.log.

    Where what it depends on has failed it ends, instead of waiting for ever.
    """
    run_dir = Path(config.run_dir)
    kept = ("--partition=", "--account=", "--qos=", "--constraint=")
    sbatch = ["sbatch", "--parsable", f"--job-name={job_name(config)}-{name}", "--nodes=1", *resources]
    sbatch += [item for item in training.command if item.startswith(kept)]
    sbatch += [f"--dependency={dependency}", "--kill-on-invalid-dep=yes"]
    sbatch += [f"--chdir={run_dir}", f"--output={run_dir / f'{name}.log'}", *training.more]
    trainings_alone = ("LIVETRAIN_PROCESSES_PER_NODE", "LIVETRAIN_ARRAY", "LIVETRAIN_SHARDS")
    variables = {name: value for name, value in training.variables.items() if name not in trainings_alone}
    script = str(Path(training.variables["LIVETRAIN_CODE"]) / "slurm" / "verb.sbatch")
    return Job([*sbatch, script, *arguments], variables, training.more)


def with_absolute_paths(config: Config) -> Config:
    """`config` with the paths it reads and writes made absolute: the job runs in another folder."""
    absolute = _absolute
    resume = config.resume if config.resume in ("auto", "never") else absolute(config.resume)
    return dataclasses.replace(
        config,
        run_dir=absolute(config.run_dir),
        resume=resume,
        data=dataclasses.replace(
            config.data,
            shards=absolute(config.data.shards),
            sources=[absolute(source) for source in config.data.sources],
            cache_dir=absolute(config.data.cache_dir),
        ),
        model=dataclasses.replace(config.model, weights=absolute(config.model.weights)),
    )


def _absolute(path: str) -> str:
    """A path of this machine made absolute; a URL as it is."""
    return str(Path(path).resolve()) if path and not is_url(path) else path


def write_run_directory(config: Config, array: Array | None) -> Kept:
    """Keep what the job will read, beside what other jobs of the run read. Raises UserError."""
    run_dir = Path(config.run_dir)
    tasks = zip(array.lines, array.folders, strict=True) if array else ()
    own = "".join(f"{line} {shlex.quote(f'run_dir={run_dir / name}')}\n" for line, name in tasks)
    return Kept(
        snapshot.keep_code(REPO, run_dir),
        snapshot.keep_text(run_dir, snapshot.SUBMITTED, to_yaml(config)),
        snapshot.keep_text(run_dir, ARRAY, own) if array else run_dir / ARRAY,
    )


def sbatch(job: Job) -> str:
    """Submit; returns the job's number. Raises UserError with SLURM's own words."""
    try:
        done = subprocess.run(job.command, capture_output=True, text=True, env=os.environ | job.variables)
    except FileNotFoundError:
        raise UserError("sbatch is not on PATH: submit from a machine of the cluster, or use --dry-run") from None
    if done.returncode:
        raise UserError(f"SLURM refused the job: {done.stderr.strip()}")
    return done.stdout.strip().partition(";")[0]


def main(arguments: Sequence[str], *, joined_by: Sequence[str] = ()) -> int:
    """The command line.

    Prints what was submitted; returns the exit code. joined_by: arguments of livetrain for the job that follows an
    array, if not `leaderboard`.
    """
    options, rest = parser().parse_some(arguments)
    config = with_absolute_paths(load_config(*split_arguments(rest)))
    if not re.fullmatch(r"[\w.-]+", config.name):
        raise UserError(f"name={config.name!r} must be letters, digits, '.', '_' and '-' to name a job")
    if not (REPO / "slurm" / "train.sbatch").exists():
        raise UserError(f"{REPO} has no slurm/train.sbatch: submit from a checkout of livetrain, not a package")
    if options.folds and options.array:
        raise UserError("--folds is an array already; leave out --array")
    run_dir = Path(config.run_dir)
    submitted = run_dir / snapshot.name_of(snapshot.SUBMITTED, to_yaml(config))
    array = arrays.make(config, options.array, folds=options.folds, submitted=submitted)
    if array and joined_by:
        array = dataclasses.replace(array, joined_by=list(joined_by))
    if array and options.evaluate_on:
        raise UserError("--evaluate-on scores one run, --array makes many; submit the evaluations when they are done")
    if options.at_once and not array:
        raise UserError("--at-once is of an array; leave it out, or give --array or --folds")
    for line, folder in zip(array.lines, array.folders, strict=True) if array else ():
        own = [*shlex.split(line), f"run_dir={run_dir / folder}"]
        paths, words = split_arguments(rest)
        refuse_another(with_absolute_paths(load_config(paths, [*words, *own], warn=lambda line: None)))
    cluster = load_cluster(options.cluster)
    job = training_job(config, cluster, options, array, Kept.planned(run_dir))
    if options.dry_run:
        print(job)
        if array:
            print(joining_job(config, job, "<job>", array))
        if options.evaluate_on:
            print(evaluation_job(config, job, "<job>", _absolute(options.evaluate_on)))
        return 0
    if array:
        arrays.check_size(len(array.lines))
    job = training_job(config, cluster, options, array, write_run_directory(config, array))
    runs = [str(run_dir / name) for name in array.folders] if array else [str(run_dir)]
    number = submit(job, run_dir, "train", runs)
    print(f"job {number}: {config.run_dir}")
    if array:
        after = submit(joining_job(config, job, number, array), run_dir, array.joined_by[0], [str(run_dir)])
        print(f"job {after}, after its {len(array.lines)} runs: joins them")
    if options.evaluate_on:
        following = evaluation_job(config, job, number, _absolute(options.evaluate_on))
        after = submit(following, run_dir, "evaluate", [str(run_dir)])
        print(f"job {after}, after it: scores on {options.evaluate_on}")
    print(f"how they go: livetrain jobs {config.run_dir}")
    return 0


def submit(job: Job, run_dir: Path, what: str, runs: list[str]) -> str:
    """`sbatch`, noted in run_dir/jobs.jsonl with the code's commit and the time."""
    number = sbatch(job)
    code = Path(job.variables["LIVETRAIN_CODE"])
    commit = (code / COMMIT).read_text(encoding="utf-8").strip()
    ledger.note(run_dir, Submitted(number, what, runs, commit, str(code), job.command, time.time()))
    return number


def parser() -> Parser:
    """The command line of `livetrain submit`."""
    parser = Parser("submit", __doc__)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=0)
    parser.add_argument("--time", default="")
    parser.add_argument("--cluster", type=Path)
    parser.add_argument("--array", default="")
    parser.add_argument("--at-once", type=int, default=0)
    parser.add_argument("--shards", choices=("", *SHARDS), default="")
    parser.add_argument("--folds", action="store_true")
    parser.add_argument("--evaluate-on", default="")
    parser.add_argument("--dry-run", action="store_true")
    return parser


def _given(**values: object) -> list[str]:
    """Options of sbatch for the values that are not empty."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if str(value)]
