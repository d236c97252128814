"""Submit a training run to SLURM, with the code and the configuration as they are now.

    livetrain submit CONFIG.yaml … [key=value …] --nodes N --gpus-per-node G [--time 24:00:00] [--cluster FILE]
                     [--array FILE | --folds] [--evaluate-on SHARDS] [--dry-run]

  --cluster FILE        the cluster's partition, account, modules, container …; slurm/cluster.yaml lists all keys
  --array FILE          one job for each line of FILE, which holds more `key=value`; its run is run_dir/task-<n>
  --folds               a job for each fold of shards that were built with --folds K: fold n is test, the next one dev
  --evaluate-on SHARDS  a job that starts when this one is finished and scores the best checkpoint on other shards
  --dry-run             print what would be run, and write nothing

The run directory gets code/ (the packages), submitted.yaml (the whole configuration) and job.log: what is queued does
not change when the working tree does. Submitting the same command again goes on with the run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
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
from livetrain.errors import UserError, first_line
from livetrain.fileio import write_text

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
class Job:
    """A call of sbatch: its arguments and the variables its script reads."""

    command: list[str]
    variables: dict[str, str]

    def __str__(self) -> str:
        return " \\\n  ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.variables.items()), shlex.join(self.command)])


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


def training_job(config: Config, cluster: Cluster, options: argparse.Namespace) -> Job:
    """The job that trains `config`, whose paths are absolute."""
    run_dir = Path(config.run_dir)
    seconds = cluster.stop_seconds_before_limit
    sbatch = [
        "sbatch",
        "--parsable",
        f"--job-name={config.name}",
        f"--nodes={options.nodes}",
        f"--time={options.time or cluster.time}",
        f"--signal=B:USR1@{seconds}",
        f"--chdir={run_dir}",
        f"--output={run_dir / ('job-%a.log' if options.array else LOG)}",
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
    if options.array:
        lines = array_lines(options.array)
        sbatch.append(f"--array=0-{len(lines) - 1}")
        variables["LIVETRAIN_ARRAY"] = str(run_dir / "array.txt")
    script = [str(run_dir / CODE / "slurm" / "train.sbatch"), str(run_dir / SUBMITTED)]
    return Job([*sbatch, *script], {name: value for name, value in variables.items() if value})


def evaluation_job(config: Config, training: Job, after: str, shards: Path) -> Job:
    """The job that scores the finished run on other shards, into run_dir/on-<name of the shard folder>."""
    run_dir = Path(config.run_dir)
    target = run_dir / f"on-{shards.name}"
    kept = ("--time", "--partition", "--account", "--qos", "--constraint", "--gpus", "--cpus")
    sbatch = ["sbatch", "--parsable", f"--job-name={config.name}-on-{shards.name}", "--nodes=1"]
    sbatch += [item for item in training.command if item.startswith(kept)]
    sbatch += [f"--dependency=afterok:{after}", f"--chdir={run_dir}", f"--output={run_dir / f'on-{shards.name}.log'}"]
    python = [training.variables["LIVETRAIN_PYTHON"], "-m", "livetrain.cli", "evaluate"]
    what = [*shlex.split(training.variables.get("LIVETRAIN_CONTAINER", "")), *python, str(run_dir)]
    what += [f"data.shards={shards}", f"run_dir={target}", *(["data.sources=[]"] if config.data.sources else [])]
    lines = [training.variables.get("LIVETRAIN_SETUP", ""), f"cd {shlex.quote(str(run_dir / CODE))}", shlex.join(what)]
    return Job([*sbatch, "--wrap", "\n".join(line for line in lines if line)], {})


def array_lines(path: Path) -> list[str]:
    """The lines of an array file, each some `key=value`. Raises UserError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--array {path}: {error.strerror or error}") from None
    for number, line in enumerate(lines, start=1):
        wrong = [item for item in line.split() if "=" not in item]
        if wrong or not line.strip():
            raise UserError(f"{path}, line {number}: must hold `key=value` parted by blanks, for one run")
    if not lines:
        raise UserError(f"{path} is empty; it holds a line of `key=value` for each run")
    return lines


def write_folds(config: Config) -> Path:
    """run_dir/folds.txt, an array file with a line for each fold of the shards. Raises UserError without folds."""
    manifest = Path(config.data.shards) / "dataset.json"
    try:
        splits = json.loads(manifest.read_text(encoding="utf-8"))["splits"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{manifest}: {error}; --folds needs shards in a local folder") from None
    count = sum(name.startswith("fold") for name in splits)
    if count < 3:
        raise UserError(f"{config.data.shards} has the splits {', '.join(splits)}: build it with --folds K")
    lines = []
    for test in range(count):
        dev = (test + 1) % count
        train = "+".join(f"fold{fold}" for fold in range(count) if fold not in (test, dev))
        lines.append(f"data.train_split={train} data.dev_split=fold{dev} data.test_split=fold{test}\n")
    path = Path(config.run_dir) / "folds.txt"
    write_text(path, "".join(lines))
    return path


def with_absolute_paths(config: Config) -> Config:
    """`config` with the paths it reads and writes made absolute: the job runs in another folder."""

    def absolute(path: str) -> str:
        return str(Path(path).resolve()) if path and "://" not in path else path

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


def write_run_directory(config: Config, options: argparse.Namespace) -> None:
    """Write code/, submitted.yaml and array.txt. Code that is there is replaced: a job reads it when it starts."""
    run_dir = Path(config.run_dir)
    write_text(run_dir / SUBMITTED, to_yaml(config))
    if options.array:
        tasks = enumerate(array_lines(options.array))
        write_text(run_dir / "array.txt", "".join(f"{line} run_dir={run_dir / f'task-{n}'}\n" for n, line in tasks))
    fresh = run_dir / f".{CODE}.tmp"
    shutil.rmtree(fresh, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for name in SNAPSHOT:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, fresh / name, ignore=unwanted)
        elif (REPO / name).exists():
            shutil.copy2(REPO / name, fresh / name)
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


def main(arguments: Sequence[str]) -> int:
    """The command line. Prints what was submitted; returns the exit code."""
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
    if options.folds:
        options.array = write_folds(config)
    if options.array and options.evaluate_on:
        raise UserError("--evaluate-on scores one run, --array makes many; submit the evaluations when they are done")
    job = training_job(config, load_cluster(options.cluster), options)
    if options.dry_run:
        print(job)
        if options.evaluate_on:
            print(evaluation_job(config, job, "<job>", options.evaluate_on.resolve()))
        return 0
    write_run_directory(config, options)
    number = sbatch(job)
    print(f"job {number}: {config.run_dir}")
    if options.evaluate_on:
        after = sbatch(evaluation_job(config, job, number, options.evaluate_on.resolve()))
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
    parser.add_argument("--array", type=Path)
    parser.add_argument("--folds", action="store_true")
    parser.add_argument("--evaluate-on", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    return parser


def _given(**values: object) -> list[str]:
    """Options of sbatch for the values that are not empty."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if str(value)]
