"""Submit a training run to SLURM, with the code and the configuration as they are now.

    livetrain submit CONFIG.yaml … [key=value …] --nodes N --gpus-per-node G [--time 24:00:00] [--cluster FILE]
                     [--array FILE | --array KEYS | --folds] [--evaluate-on SHARDS] [--dry-run]

  --cluster FILE        the cluster's partition, account, modules, container …; slurm/cluster.yaml lists all keys
  --array FILE          one job for each line of FILE, which holds more `key=value`; its run is run_dir/task-<n>
  --array KEYS          the same for each value of a key, seed=0..4 or optim.lr=1e-3,3e-3; of several, parted by blanks,
                        for each combination: --array "seed=0..2 model.pool=mean,attention"
  --folds               a job for each fold of shards that were built with --folds K, run_dir/fold-<n>, as data.fold=n/K
  --evaluate-on SHARDS  a job that starts when this one is finished and scores the best checkpoint on other shards
  --dry-run             print what would be run, and write nothing

The run directory gets code/ (the packages), submitted.yaml (the whole configuration) and job.log: what is queued does
not change when the working tree does. Submitting the same command again goes on with the run. When the jobs of an array
are done, one more makes run_dir/leaderboard.csv and .html of them, or joins folds into one verdict (`livetrain cv`).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from livetrain.config import Config, load_config, to_yaml
from livetrain.engine import entry
from livetrain.engine.run import refuse_another
from livetrain.errors import UserError, first_line
from livetrain.fileio import is_url, write_text

REPO = Path(__file__).resolve().parent.parent
SNAPSHOT = ("livetrain", "shards", "slurm", "launch", "configs", "pyproject.toml")
CODE, SUBMITTED, LOG = "code", "submitted.yaml", "job.log"


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
class Array:
    """The runs of a job array: the `key=value` that each adds to the configuration, its folder in run_dir, and what
    joins them when they have ended: arguments of livetrain, and on what condition."""

    lines: list[str]
    folders: list[str]
    joined_by: list[str]
    condition: str


@dataclass(frozen=True)
class Job:
    """A call of sbatch: its arguments, the variables its script reads, and the cluster's own options among the
    arguments."""

    command: list[str]
    variables: dict[str, str]
    more: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return " \\\n  ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.variables.items()), shlex.join(self.command)])


def seconds_of(limit: str) -> float:
    """SLURM's time limit: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]. Raises
    UserError."""
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
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Cluster), OmegaConf.load(path)))  # type: ignore[return-value]
    except FileNotFoundError:
        raise UserError(f"--cluster {path}: no such file; slurm/cluster.yaml is one to copy") from None
    except (OmegaConfBaseException, ValueError) as error:
        known = ", ".join(item.name for item in dataclasses.fields(Cluster))
        raise UserError(f"{path}: {first_line(error)}; it may hold: {known}") from None
    except Exception as error:  # YAML's errors have no common base that omegaconf promises
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None


def training_job(config: Config, cluster: Cluster, options: argparse.Namespace, array: Array | None) -> Job:
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
        f"--job-name={config.name}",
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
        "LIVETRAIN_CODE": str(run_dir / CODE),
        "LIVETRAIN_PYTHON": cluster.python or sys.executable,
        "LIVETRAIN_SETUP": "\n".join(cluster.setup),
        "LIVETRAIN_CONTAINER": cluster.container,
        "LIVETRAIN_SRUN": shlex.join(cluster.srun_options),
        "LIVETRAIN_PROCESSES_PER_NODE": str(cluster.processes_per_node or options.gpus_per_node or 1),
    }
    if array:
        sbatch.append(f"--array=0-{len(array.lines) - 1}")
        variables["LIVETRAIN_ARRAY"] = str(run_dir / "array.txt")
    script = [str(run_dir / CODE / "slurm" / "train.sbatch"), str(run_dir / SUBMITTED)]
    return Job([*sbatch, *script], {name: value for name, value in variables.items() if value}, cluster.sbatch_options)


def evaluation_job(config: Config, training: Job, after: str, shards: str) -> Job:
    """The job that scores the finished run on other shards, into run_dir/on-<name of the shard folder>. As long as
    training may take, on one GPU."""
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
    """A job of one process that runs `livetrain ARGUMENTS` from the snapshot, into run_dir/<name>.log. Where what it
    depends on has failed it ends, in place of waiting for ever."""
    run_dir = Path(config.run_dir)
    kept = ("--partition=", "--account=", "--qos=", "--constraint=")
    sbatch = ["sbatch", "--parsable", f"--job-name={config.name}-{name}", "--nodes=1", *resources]
    sbatch += [item for item in training.command if item.startswith(kept)]
    sbatch += [f"--dependency={dependency}", "--kill-on-invalid-dep=yes"]
    sbatch += [f"--chdir={run_dir}", f"--output={run_dir / f'{name}.log'}", *training.more]
    trainings_alone = ("LIVETRAIN_PROCESSES_PER_NODE", "LIVETRAIN_ARRAY")
    variables = {name: value for name, value in training.variables.items() if name not in trainings_alone}
    script = str(run_dir / CODE / "slurm" / "verb.sbatch")
    return Job([*sbatch, script, *arguments], variables, training.more)


def make_array(config: Config, options: argparse.Namespace) -> Array | None:
    """What --array or --folds ask for. Raises UserError."""
    run_dir = config.run_dir
    if options.folds:
        count = num_folds(config)
        names = [f"fold-{fold}" for fold in range(count)]
        lines = [f"data.fold={fold}/{count} name={config.name}-{name}" for fold, name in enumerate(names)]
        return Array(lines, names, ["cv", str(Path(run_dir) / SUBMITTED)], "afterok")
    if not options.array:
        return None
    is_keys = "=" in options.array and not Path(options.array).exists()
    lines = combinations(options.array) if is_keys else array_lines(Path(options.array))
    return Array(lines, [f"task-{number}" for number in range(len(lines))], ["leaderboard", run_dir], "afterany")


def combinations(text: str) -> list[str]:
    """`seed=0..2 model.pool=mean,max` → a line of `key=value` for each combination, the last key changing first. A
    range may stand within a value (data.fold=0..4/5), a comma within brackets does not part. Raises UserError."""
    choices = []
    for item in text.split():
        key, equals, values = item.partition("=")
        if not (key and equals and values):
            raise UserError(f"--array {text!r}: {item!r} is not key=value,value or key=first..last")
        found = [value for part in re.split(r",(?![^\[]*\])", values) for value in _range(part)]
        choices.append([f"{key}={value}" for value in found])
    return [" ".join(line) for line in itertools.product(*choices)]


def _range(value: str) -> list[str]:
    """`a2..4b` → a2b, a3b, a4b; what holds no range, as it is."""
    match = re.fullmatch(r"(.*?)(\d+)\.\.(\d+)(.*)", value)
    if not match:
        return [value]
    before, first, last, after = match.groups()
    if int(last) < int(first):
        raise UserError(f"--array: {value!r} ends before it begins")
    return [f"{before}{number}{after}" for number in range(int(first), int(last) + 1)]


def array_lines(path: Path) -> list[str]:
    """The lines of an array file, each some `key=value`. Raises UserError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--array {path}: {error.strerror or error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            items = shlex.split(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        if not items or any("=" not in item for item in items):
            raise UserError(
                f"{path}, line {number}: must hold `key=value` for one run, blanks between; quote values with blanks"
            )
    if not lines:
        raise UserError(f"{path} is empty; it holds a line of `key=value` for each run")
    return lines


def num_folds(config: Config) -> int:
    """Folds of the shards, which must be here. Raises UserError without folds."""
    manifest = Path(config.data.shards) / "dataset.json"
    try:
        splits = json.loads(manifest.read_text(encoding="utf-8"))["splits"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{manifest}: {error}; --folds needs shards in a local folder") from None
    count = sum(name.startswith("fold") for name in splits)
    if count < 3:
        raise UserError(f"{config.data.shards} has the splits {', '.join(splits)}: build it with --folds K")
    return count


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


def write_run_directory(config: Config, array: Array | None) -> None:
    """Write code/, submitted.yaml and array.txt. Code that is there is replaced: a job reads it when it starts."""
    run_dir = Path(config.run_dir)
    write_text(run_dir / SUBMITTED, to_yaml(config))
    if array:
        tasks = zip(array.lines, array.folders, strict=True)
        own = [f"{line} {shlex.quote(f'run_dir={run_dir / name}')}\n" for line, name in tasks]
        write_text(run_dir / "array.txt", "".join(own))
    fresh = run_dir / f".{CODE}.tmp"
    shutil.rmtree(fresh, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for name in SNAPSHOT:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, fresh / name, ignore=unwanted)
        elif (REPO / name).exists():
            shutil.copy2(REPO / name, fresh / name)
    from livetrain.engine.environment import COMMIT, code_version

    write_text(fresh / COMMIT, f"{code_version(REPO) or ''}\n")
    shutil.rmtree(run_dir / CODE, ignore_errors=True)
    fresh.rename(run_dir / CODE)


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
    """The command line. Prints what was submitted; returns the exit code. joined_by: arguments of livetrain for the job
    that follows an array, if not `leaderboard`."""
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
        return 0
    options, rest = _parser().parse_known_args(list(arguments))
    strange = [item for item in rest if item.startswith("-")]
    if strange:
        raise UserError(f"unknown option {strange[0]}; `livetrain submit --help` lists them")
    config = with_absolute_paths(load_config(*entry.split_arguments(rest)))
    if not re.fullmatch(r"[\w.-]+", config.name):
        raise UserError(f"name={config.name!r} must be letters, digits, '.', '_' and '-' to name a job")
    if not (REPO / "slurm" / "train.sbatch").exists():
        raise UserError(f"{REPO} has no slurm/train.sbatch: submit from a checkout of livetrain, not a package")
    if options.folds and options.array:
        raise UserError("--folds is an array already; leave out --array")
    array = make_array(config, options)
    if array and joined_by:
        array = dataclasses.replace(array, joined_by=list(joined_by))
    if array and options.evaluate_on:
        raise UserError("--evaluate-on scores one run, --array makes many; submit the evaluations when they are done")
    for line, folder in zip(array.lines, array.folders, strict=True) if array else ():
        own = [*shlex.split(line), f"run_dir={Path(config.run_dir) / folder}"]
        paths, words = entry.split_arguments(rest)
        refuse_another(with_absolute_paths(load_config(paths, [*words, *own], warn=lambda line: None)))
    job = training_job(config, load_cluster(options.cluster), options, array)
    if options.dry_run:
        print(job)
        if array:
            print(joining_job(config, job, "<job>", array))
        if options.evaluate_on:
            print(evaluation_job(config, job, "<job>", _absolute(options.evaluate_on)))
        return 0
    write_run_directory(config, array)
    number = sbatch(job)
    print(f"job {number}: {config.run_dir}")
    if array:
        after = sbatch(joining_job(config, job, number, array))
        print(f"job {after}, after its {len(array.lines)} runs: joins them")
    if options.evaluate_on:
        after = sbatch(evaluation_job(config, job, number, _absolute(options.evaluate_on)))
        print(f"job {after}, after it: scores on {options.evaluate_on}")
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UserError(f"{message}; `livetrain submit --help` lists the options")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="livetrain submit", add_help=False, allow_abbrev=False)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=0)
    parser.add_argument("--time", default="")
    parser.add_argument("--cluster", type=Path)
    parser.add_argument("--array", default="")
    parser.add_argument("--folds", action="store_true")
    parser.add_argument("--evaluate-on", default="")
    parser.add_argument("--dry-run", action="store_true")
    return parser


def _given(**values: object) -> list[str]:
    """Options of sbatch for the values that are not empty."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if str(value)]
