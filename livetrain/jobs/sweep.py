"""Search for good options: many runs of one configuration, into one table.

    livetrain sweep SWEEP.yaml CONFIG.yaml … [key=value …] [--count N] [--config_file launch/one_gpu.yaml]
    livetrain sweep SWEEP.yaml CONFIG.yaml … [key=value …] [--count N] --nodes 1 --gpus-per-node 8 [--cluster site.yaml]
    livetrain sweep RUN_DIR

The first runs the trials one after the other on this machine, the second as a SLURM job array, and the third prints the
table of a sweep so far, ranked by the dev figure that it optimises, and writes it to sweep.csv. Test figures stand
beside it and rank nothing. SWEEP.yaml is in W&B's format, so that `wandb sweep` takes the same file: `method` grid,
random, or bayes (Optuna's TPE sampler; local runs alone, since it needs each trial's end); `metric` is a dev figure,
such as dev/eer; `parameters` are keys of the configuration; `early_terminate: {type: hyperband, min_iter: N}` ends
trials that are far behind after N dev evaluations (local runs alone).

Trial n is run_dir/trial-<n>. The same command resumes: finished trials stay, a stopped one resumes, one that failed is
tried again. Several of them may work on one run_dir. Another sweep file or configuration needs another run_dir.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import math
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from livetrain.config import Config, load_config, split_arguments, to_dict
from livetrain.core.arguments import Parser
from livetrain.core.errors import EXIT_STOPPED, EXIT_USER_ERROR, UserError
from livetrain.core.files import write_json, write_text
from livetrain.core.tables import fitted
from livetrain.jobs.search import Options, Sweep, load_sweep, options_of, words
from livetrain.tracking.metrics_log import read_metrics
from livetrain.tracking.run_dir import RunDir
from livetrain.training.resume import FREE_KEYS, refuse_another

SWEEP, TABLE, PRUNED = "sweep.json", "sweep.csv", "pruned.json"
POLL_SECONDS = 2.0  # between looks at the dev figures of a trial that may be pruned
SLURM = ("nodes", "gpus_per_node", "time", "cluster")


def parser() -> Parser:
    """The command line of `livetrain sweep`."""
    parser = Parser("sweep", __doc__)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--config_file", default="")
    for name in ("--nodes", "--gpus-per-node", "--time", "--cluster"):
        parser.add_argument(name, default="")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    if not arguments:
        raise UserError("name the sweep first: livetrain sweep SWEEP.yaml CONFIG.yaml …, or a sweep's folder")
    if Path(arguments[0]).is_dir():
        print(table(Path(arguments[0])))
        return 0
    options, base = parser().parse_some(arguments[1:])
    sweep = load_sweep(Path(arguments[0]))
    config = load_config(*split_arguments(base))
    if sweep.method != "grid" and options.count < 1:
        raise UserError(f"method: {sweep.method} never ends; say how many trials: --count N")
    slurm = [f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items() if name in SLURM and value]
    if slurm and sweep.method == "bayes":
        raise UserError("method: bayes needs each trial's end before the next; run it locally, or use grid or random")
    if slurm and sweep.min_evaluations:
        raise UserError("early_terminate needs one process that sees all trials; run it locally, or leave it out")
    begin(sweep, config)
    if slurm:
        return submit_array(sweep, config, base, slurm, options.count)
    launcher = ["--config_file", options.config_file] if options.config_file else []
    return run_local(sweep, config, base, launcher, options.count)


def begin(sweep: Sweep, config: Config) -> None:
    """Write run_dir/sweep.json. Raises UserError where the folder is of another search, naming what differs."""
    path = Path(config.run_dir) / SWEEP
    ignored = ("run_dir", "name", *FREE_KEYS)
    settings = {
        f"{section}.{key}" if isinstance(values, dict) else section: value
        for section, values in to_dict(config).items()
        for key, value in (values.items() if isinstance(values, dict) else [("", values)])
    }
    kept = {key: value for key, value in settings.items() if not key.startswith(ignored)}
    content = json.loads(json.dumps({"search": sweep.describe(), "config": kept}))
    if not path.exists():
        write_json(path, content)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for part in ("search", "config"):
        for key in dict.fromkeys([*before[part], *content[part]]):
            old, new = before[part].get(key), content[part].get(key)
            if old != new:
                raise UserError(
                    f"{config.run_dir} holds another sweep: {key} was {old} and is {new}. Choose another run_dir; "
                    f"`livetrain sweep {config.run_dir}` prints its table"
                )


def run_local(sweep: Sweep, config: Config, base: Sequence[str], launcher: Sequence[str], count: int) -> int:
    """All trials, one after the other. Returns 0, or the exit code that ended it."""
    from livetrain.jobs.study import Study

    folder = Path(config.run_dir)
    study = Study(folder, sweep, config.seed)
    if sweep.method == "bayes":
        _add_finished(study, sweep, folder)
    tried: set[int] = set()
    for trial, run_dir in _trials(study, sweep, config, count, tried):
        options = study.options(trial)
        own = [*words(options), f"run_dir={run_dir}", f"name={config.name}-{trial.number:03d}"]
        refuse_another(load_config(*split_arguments([*base, *own]), warn=lambda line: None))
        if not RunDir(run_dir).verdict.exists():
            print(f"trial {trial.number}: {' '.join(words(options))}", flush=True)

            def hopeless(trial: Any = trial, run_dir: Path = run_dir) -> bool:
                return study.should_prune(trial, figures(run_dir, sweep.metric))

            code, pruned = train([*launcher, *base, *own], hopeless if sweep.min_evaluations else None)
            if pruned:
                study.prune(trial)
                write_json(run_dir / PRUNED, {"after_evaluations": len(figures(run_dir, sweep.metric))})
                print(f"trial {trial.number} ended early: far behind the others", flush=True)
                continue
            if code in (EXIT_STOPPED, EXIT_USER_ERROR):
                return code
            if code:
                print(
                    f"trial {trial.number} ended with exit code {code}; the sweep continues, and the same command will "
                    "try it again", file=sys.stderr, flush=True,
                )  # fmt: skip
                continue
        study.tell(trial, best(figures(run_dir, sweep.metric), maximize=sweep.maximize))
    print(table(folder))
    return 0


def _trials(study: Any, sweep: Sweep, config: Config, count: int, tried: set[int]) -> Iterator[tuple[Any, Path]]:
    """(trial, its folder), each locked against other commands on this sweep.

    First those that were stopped or failed, then new ones.
    """
    while True:
        waiting = [trial for trial in study.unfinished() if trial.number not in tried]
        if not waiting:
            number = study.num_trials
            is_done = sweep.method == "grid" and options_of(sweep, config.seed, number) is None
            if is_done or (count and number >= count):
                return
            waiting = [study.ask()]
        for trial in waiting:
            tried.add(trial.number)
            run_dir = Path(config.run_dir) / f"trial-{trial.number:03d}"
            with _lock(run_dir) as mine:
                if mine:
                    yield trial, run_dir


@contextlib.contextmanager
def _lock(run_dir: Path) -> Iterator[bool]:
    """Whether no other process works in the folder; none does as long as this lasts."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _add_finished(study: Any, sweep: Sweep, folder: Path) -> None:
    """Let the search know of trials that finished here without it, such as those of a job array."""
    for path in sorted(folder.glob("task-*/verdict.json")):
        run_dir = path.parent
        value = best(figures(run_dir, sweep.metric), maximize=sweep.maximize)
        if not study.add(run_dir.name, trained_with(run_dir, [item.key for item in sweep.parameters]), value):
            print(f"warning: {run_dir} is outside of the search, and is not learnt from", file=sys.stderr)


def train(arguments: Sequence[str], hopeless: Callable[[], bool] | None) -> tuple[int, bool]:
    """`livetrain train` in a process of its own, ended when it is `hopeless`: (its exit code, whether it was)."""
    process = subprocess.Popen([sys.executable, "-m", "livetrain.cli", "train", *arguments])
    pruned = False
    try:
        while True:
            try:
                return process.wait(POLL_SECONDS if hopeless and not pruned else None), pruned
            except subprocess.TimeoutExpired:
                pruned = bool(hopeless and hopeless())
                if pruned:
                    process.send_signal(signal.SIGTERM)
    except BaseException:
        process.terminate()  # it saves and stops
        process.wait()
        raise


def figures(run_dir: Path, metric: str) -> list[float]:
    """The dev figure of each evaluation that a run logged, in order."""
    lines = read_metrics(RunDir(run_dir).metrics)
    return [line[metric] for line in lines if line["kind"] == "dev" and line.get(metric) is not None]


def best(values: Sequence[float], *, maximize: bool) -> float:
    """The best of a run's dev figures, NaN when there is none."""
    return (max if maximize else min)(values, default=math.nan)


def trained_with(run_dir: Path, keys: Sequence[str]) -> Options:
    """What a run's own config.yaml has for `keys`: what it was trained with, whatever a search remembers."""
    from livetrain.config.load import read_mapping

    try:
        found: Any = read_mapping(RunDir(run_dir).config)
    except FileNotFoundError:
        return {}
    options = {}
    for key in keys:
        value = found
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        options[key] = value
    return options


def table(folder: Path) -> str:
    """The trials of a sweep, ranked by the dev figure, as text; also written to sweep.csv. Raises UserError without."""
    try:
        search = json.loads((folder / SWEEP).read_text(encoding="utf-8"))["search"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{folder} holds no sweep; `livetrain sweep SWEEP.yaml CONFIG.yaml …` makes one") from None
    keys = [name.removeprefix("parameters.") for name in search if name.startswith("parameters.")]
    metric, maximize = search["metric"], search["maximize"]
    rows = []
    for run_dir in sorted(
        path.parent for pattern in ("trial-*", "task-*") for path in folder.glob(f"{pattern}/config.yaml")
    ):
        verdict = RunDir(run_dir).verdict
        test = json.loads(verdict.read_text(encoding="utf-8"))["test"] if verdict.exists() else {}
        state = "finished" if verdict.exists() else "pruned" if (run_dir / PRUNED).exists() else "unfinished"
        rows.append(
            {
                "trial": run_dir.name,
                f"dev/{metric}": best(figures(run_dir, metric), maximize=maximize),
                "state": state,
                **trained_with(run_dir, keys),
                **{f"test/{name}": test.get(name) for name in ("eer", "auc", "hter")},
            }
        )
    if not rows:
        raise UserError(f"{folder} holds no trials yet; start the sweep's command again")
    sign = -1.0 if maximize else 1.0
    rows.sort(key=lambda row: math.inf if math.isnan(row[f"dev/{metric}"]) else sign * row[f"dev/{metric}"])
    columns = list(rows[0])
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if _empty(v) else v for k, v in row.items()} for row in rows)
    write_text(folder / TABLE, text.getvalue())
    lines = fitted(columns, [[_cell(row[column]) for column in columns] for row in rows])
    return "\n".join([*lines, f"ranked by dev/{metric}; all columns: {folder / TABLE}"])


def submit_array(sweep: Sweep, config: Config, base: Sequence[str], slurm: Sequence[str], count: int) -> int:
    """The trials as a SLURM job array, through `livetrain submit --array`."""
    from livetrain.jobs import submit

    folder = Path(config.run_dir).resolve()
    trials: list[Options] = []
    while not (count and len(trials) >= count):
        options = options_of(sweep, config.seed, len(trials))
        if options is None:
            break
        trials.append(options)
    write_text(folder / "trials.txt", "".join(shlex.join(words(options)) + "\n" for options in trials))
    arguments = [*base, f"run_dir={folder}", *slurm, "--array", str(folder / "trials.txt")]
    return submit.main(arguments, joined_by=["sweep", str(folder)])


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _cell(value: Any) -> str:
    if _empty(value):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
