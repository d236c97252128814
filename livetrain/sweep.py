"""Search for good options: many runs of one configuration, into one table.

    livetrain sweep SWEEP.yaml CONFIG.yaml … [key=value …] [--count N] [--config_file launch/one_gpu.yaml]
    livetrain sweep SWEEP.yaml CONFIG.yaml … [key=value …] [--count N] --nodes 1 --gpus-per-node 8 [--cluster site.yaml]
    livetrain sweep RUN_DIR

The first runs the trials one after the other on this machine, the second as a SLURM job array, and the third prints the
table of a sweep so far, best trial first, and writes it to leaderboard.csv. SWEEP.yaml is in W&B's format, so that
`wandb sweep` takes the same file: `method` grid, random, or bayes (Optuna's TPE sampler; local runs alone, since it
needs each trial's end); `metric` is a dev figure, such as dev/eer; `parameters` are keys of the configuration.

Trial n is run_dir/trial-<n>, and its options depend on the file and `seed` alone. Starting the same command again goes
on: finished trials stay, a stopped one resumes.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from livetrain.config import Config, known_keys, load_config
from livetrain.engine import entry
from livetrain.engine.run import METRICS, VERDICT
from livetrain.engine.stop import EXIT_STOPPED
from livetrain.engine.tracking import read_metrics
from livetrain.errors import EXIT_USER_ERROR, UserError
from livetrain.fileio import write_json, write_text

METHODS = ("grid", "random", "bayes")
TRIAL, TABLE = "trial.json", "leaderboard.csv"
Options = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One key's values: a list, or a range with its distribution (uniform, int_uniform, log_uniform_values)."""

    key: str
    values: tuple[Any, ...] = ()
    distribution: str = ""
    low: float = 0.0
    high: float = 0.0

    def draw(self, random: np.random.Generator) -> Any:
        """A value at random."""
        if self.values:
            return self.values[int(random.integers(len(self.values)))]
        if self.distribution == "int_uniform":
            return int(random.integers(int(self.low), int(self.high) + 1))
        if self.distribution == "log_uniform_values":
            return float(np.exp(random.uniform(np.log(self.low), np.log(self.high))))
        return float(random.uniform(self.low, self.high))


@dataclass(frozen=True)
class Sweep:
    """A sweep file: the method, the dev figure to make small or large, and what may vary."""

    method: str
    metric: str
    maximize: bool
    parameters: tuple[Parameter, ...]


def load_sweep(path: Path) -> Sweep:
    """Read a sweep file. Raises UserError naming file and key."""
    try:
        content = OmegaConf.load(path)
        assert isinstance(content, DictConfig)
        found: Any = OmegaConf.to_container(content, resolve=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; configs/sweeps has one to copy") from None
    except Exception as error:  # YAML's errors have no common base that omegaconf promises
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    method, metric = found.get("method"), found.get("metric") or {}
    if method not in METHODS:
        raise UserError(f"{path}: method is {method!r}; it is one of {', '.join(METHODS)}")
    name, goal = str(metric.get("name", "")), metric.get("goal", "minimize")
    if not name.startswith("dev/") or goal not in ("minimize", "maximize"):
        raise UserError(f"{path}: metric must have a name as dev/eer and a goal, minimize or maximize")
    parameters = tuple(_parameter(path, key, item) for key, item in (found.get("parameters") or {}).items())
    if not parameters:
        raise UserError(f"{path}: parameters is empty; name keys of the configuration and their values")
    endless = [item.key for item in parameters if not item.values]
    if method == "grid" and endless:
        raise UserError(f"{path}: parameters.{endless[0]} has a range; method grid needs values: [...]")
    return Sweep(method, name.removeprefix("dev/"), goal == "maximize", parameters)


def grid(sweep: Sweep) -> Iterator[Options]:
    """Every combination of the values, the last key fastest."""
    for values in itertools.product(*(item.values for item in sweep.parameters)):
        yield {item.key: value for item, value in zip(sweep.parameters, values, strict=True)}


def random_options(sweep: Sweep, seed: int, trial: int) -> Options:
    """The options of one trial of a random search."""
    random = np.random.default_rng([seed, trial])
    return {item.key: item.draw(random) for item in sweep.parameters}


class Bayes:
    """Optuna's TPE sampler over the trials so far (Bergstra et al., NeurIPS 2011)."""

    def __init__(self, sweep: Sweep, seed: int) -> None:
        try:
            import optuna
        except ImportError:
            raise UserError("method: bayes needs Optuna; install it: pip install 'livetrain[sweep]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
        self._study = optuna.create_study(direction="maximize" if sweep.maximize else "minimize", sampler=sampler)
        spaces = optuna.distributions
        self._space: dict[str, Any] = {}
        for item in sweep.parameters:
            if item.values:
                self._space[item.key] = spaces.CategoricalDistribution(item.values)
            elif item.distribution == "int_uniform":
                self._space[item.key] = spaces.IntDistribution(int(item.low), int(item.high))
            else:
                log = item.distribution == "log_uniform_values"
                self._space[item.key] = spaces.FloatDistribution(item.low, item.high, log=log)

    def suggest(self) -> Options:
        """Options of the next trial."""
        self._asked = self._study.ask(self._space)
        return dict(self._asked.params)

    def tell(self, value: float) -> None:
        """What that trial came to; NaN when it has no figure."""
        import optuna

        if math.isnan(value):
            self._study.tell(self._asked, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(self._asked, value)


def figure(run_dir: Path, sweep_metric: str, maximize: bool) -> float:
    """The best value of a dev figure that a run logged, NaN when there is none."""
    lines = read_metrics(run_dir / METRICS)
    values = [line[sweep_metric] for line in lines if line["kind"] == "dev" and line.get(sweep_metric) is not None]
    return (max if maximize else min)(values, default=math.nan)


def run_local(sweep: Sweep, config: Config, base: Sequence[str], launcher: Sequence[str], count: int) -> int:
    """All trials, one after the other. Returns 0, or the exit code that ended it."""
    folder = Path(config.run_dir)
    bayes = Bayes(sweep, config.seed) if sweep.method == "bayes" else None
    for trial, options in enumerate(_options(sweep, config.seed, count, bayes)):
        run_dir = folder / f"trial-{trial:03d}"
        write_json(run_dir / TRIAL, {"options": options, "metric": sweep.metric, "maximize": sweep.maximize})
        if not (run_dir / VERDICT).exists():
            print(f"trial {trial}: {' '.join(_words(options))}", flush=True)
            arguments = [*launcher, *base, *_words(options), f"run_dir={run_dir}", f"name={config.name}-{trial:03d}"]
            code = subprocess.run([sys.executable, "-m", "livetrain.cli", "train", *arguments]).returncode
            if code in (EXIT_STOPPED, EXIT_USER_ERROR):
                return code
            if code:
                print(f"trial {trial} ended with exit code {code}; the sweep goes on", file=sys.stderr, flush=True)
        if bayes:
            bayes.tell(figure(run_dir, sweep.metric, sweep.maximize))
    print(table(folder))
    return 0


def table(folder: Path) -> str:
    """The trials of a sweep, best first, as text; also written to leaderboard.csv. Raises UserError without any."""
    rows = []
    for path in sorted(folder.glob(f"*/{TRIAL}")):
        trial = json.loads(path.read_text(encoding="utf-8"))
        value = figure(path.parent, trial["metric"], trial["maximize"])
        verdict = path.parent / VERDICT
        test = json.loads(verdict.read_text(encoding="utf-8"))["test"] if verdict.exists() else {}
        rows.append(
            {
                "trial": path.parent.name,
                f"dev/{trial['metric']}": value,
                **{f"test/{name}": test.get(name) for name in ("eer", "auc", "hter")},
                **trial["options"],
            }
        )
    if not rows:
        raise UserError(f"{folder} holds no trials; `livetrain sweep SWEEP.yaml CONFIG.yaml …` makes them")
    name = next(column for column in rows[0] if column.startswith("dev/"))
    sign = -1.0 if trial["maximize"] else 1.0
    rows.sort(key=lambda row: math.inf if math.isnan(row[name]) else sign * row[name])
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if _empty(v) else v for k, v in row.items()} for row in rows)
    write_text(folder / TABLE, text.getvalue())
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def submit_array(sweep: Sweep, config: Config, base: Sequence[str], slurm: Sequence[str], count: int) -> int:
    """The trials as a SLURM job array, through `livetrain submit --array`."""
    from livetrain import submit

    if sweep.method == "bayes":
        raise UserError("method: bayes needs each trial's end before the next; run it locally, or use grid or random")
    folder = Path(config.run_dir).resolve()
    trials = list(_options(sweep, config.seed, count, None))
    for trial, options in enumerate(trials):
        write_json(
            folder / f"task-{trial}" / TRIAL, {"options": options, "metric": sweep.metric, "maximize": sweep.maximize}
        )
    write_text(folder / "trials.txt", "".join(" ".join(_words(options)) + "\n" for options in trials))
    return submit.main([*base, f"run_dir={folder}", *slurm, "--array", str(folder / "trials.txt")])


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if Path(arguments[0]).is_dir():
        print(table(Path(arguments[0])))
        return 0
    parser = argparse.ArgumentParser(prog="livetrain sweep", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--config_file", default="")
    for name in ("--nodes", "--gpus-per-node", "--time", "--cluster"):
        parser.add_argument(name, default="")
    try:
        options, base = parser.parse_known_args(list(arguments[1:]))
    except argparse.ArgumentError as error:
        raise UserError(f"livetrain sweep: {error}") from None
    sweep = load_sweep(Path(arguments[0]))
    config = load_config(*entry.split_arguments(base))
    if sweep.method != "grid" and options.count < 1:
        raise UserError(f"method: {sweep.method} goes on for ever; say how many trials: --count N")
    slurm = [f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items() if name in SLURM and value]
    if slurm:
        return submit_array(sweep, config, base, slurm, options.count)
    launcher = ["--config_file", options.config_file] if options.config_file else []
    return run_local(sweep, config, base, launcher, options.count)


SLURM = ("nodes", "gpus_per_node", "time", "cluster")


def _options(sweep: Sweep, seed: int, count: int, bayes: Bayes | None) -> Iterator[Options]:
    if sweep.method == "grid":
        yield from itertools.islice(grid(sweep), count or None)
        return
    suggest: Callable[[int], Options] = (
        (lambda trial: bayes.suggest()) if bayes else lambda trial: random_options(sweep, seed, trial)
    )
    for trial in range(count):
        yield suggest(trial)


def _parameter(path: Path, key: str, item: Any) -> Parameter:
    where = f"{path}: parameters.{key}"
    if key not in known_keys():
        raise UserError(f"{where} is no key of the configuration; `livetrain train --help` lists them")
    if not isinstance(item, dict):
        raise UserError(f"{where} must hold values: [...], value: …, or min: … and max: …")
    if "values" in item or "value" in item:
        values = item["values"] if "values" in item else [item["value"]]
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}.values must be a list with something in it")
        return Parameter(key, tuple(values))
    low, high = item.get("min"), item.get("max")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or low >= high:
        raise UserError(f"{where} needs numbers min and max, min the smaller one")
    whole = isinstance(low, int) and isinstance(high, int)
    distribution = item.get("distribution", "int_uniform" if whole else "uniform")
    known = ("uniform", "int_uniform", "log_uniform_values")
    if distribution not in known:
        raise UserError(f"{where}.distribution is {distribution!r}; it is one of {', '.join(known)}")
    if distribution == "log_uniform_values" and low <= 0:
        raise UserError(f"{where}: log_uniform_values needs min above 0")
    return Parameter(key, (), distribution, float(low), float(high))


def _words(options: Options) -> list[str]:
    """`key=value` as YAML reads it back exactly."""
    return [f"{key}={json.dumps(value) if not isinstance(value, str) else value}" for key, value in options.items()]


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _cell(value: Any) -> str:
    if _empty(value):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
