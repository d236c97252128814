"""A sweep file, in W&B's format: the method, the dev figure to optimise, the keys that vary and their values."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from livetrain.config import RENAMED, known_keys
from livetrain.config.load import read_mapping
from livetrain.core.errors import UserError
from livetrain.core.progress import warn_stderr

METHODS = ("grid", "random", "bayes")
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
    min_evaluations: int = 0
    """With early_terminate: dev evaluations of a trial before it may be ended; 0: none is."""

    def describe(self) -> dict[str, Any]:
        """What makes it this search and no other, JSON-able."""
        return {
            "method": self.method,
            "metric": self.metric,
            "maximize": self.maximize,
            "early_terminate": self.min_evaluations,
            **{f"parameters.{item.key}": json.loads(json.dumps(asdict(item))) for item in self.parameters},
        }


def load_sweep(path: Path) -> Sweep:
    """Read a sweep file. Raises UserError naming file and key."""
    found = read_mapping(path, missing="configs/sweeps has one to copy")
    method, metric = found.get("method"), _section(path, found, "metric")
    if method not in METHODS:
        raise UserError(f"{path}: method is {method!r}; it is one of {', '.join(METHODS)}")
    name, goal = str(metric.get("name", "")), metric.get("goal", "minimize")
    if not name.startswith("dev/") or goal not in ("minimize", "maximize"):
        raise UserError(f"{path}: metric must have a name as dev/eer and a goal, minimize or maximize")
    parameters = tuple(_parameter(path, key, item) for key, item in _section(path, found, "parameters").items())
    if not parameters:
        raise UserError(f"{path}: parameters is empty; name keys of the configuration and their values")
    endless = [item.key for item in parameters if not item.values]
    if method == "grid" and endless:
        raise UserError(f"{path}: parameters.{endless[0]} has a range; method grid needs values: [...]")
    early = _section(path, found, "early_terminate")
    if early and (early.get("type") != "hyperband" or not isinstance(early.get("min_iter", 1), int)):
        raise UserError(f"{path}: early_terminate must be {{type: hyperband, min_iter: N}}, N dev evaluations")
    least = max(1, early.get("min_iter", 1)) if early else 0
    return Sweep(method, name.removeprefix("dev/"), goal == "maximize", parameters, least)


def _section(path: Path, content: dict[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name) or {}
    if not isinstance(section, dict):
        raise UserError(f"{path}: {name} must hold `key: value` lines, not {section!r}")
    return section


def options_of(sweep: Sweep, seed: int, trial: int) -> Options | None:
    """The options of trial n of a grid or a random search; None past the end of a grid."""
    if sweep.method == "grid":
        return next(itertools.islice(grid(sweep), trial, None), None)
    return random_options(sweep, seed, trial)


def grid(sweep: Sweep) -> Iterator[Options]:
    """Every combination of the values, the last key fastest."""
    for values in itertools.product(*(item.values for item in sweep.parameters)):
        yield {item.key: value for item, value in zip(sweep.parameters, values, strict=True)}


def random_options(sweep: Sweep, seed: int, trial: int) -> Options:
    """The options of one trial of a random search."""
    random = np.random.default_rng([seed, trial])
    return {item.key: item.draw(random) for item in sweep.parameters}


def _parameter(path: Path, key: str, item: Any) -> Parameter:
    where = f"{path}: parameters.{key}"
    if key in RENAMED:
        warn_stderr(f"warning: {where} is now {RENAMED[key]}; the old name will be removed")
        key = RENAMED[key]
    if key not in known_keys():
        raise UserError(f"{where} is not a key of the configuration; `livetrain train --help` lists them")
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


def words(options: Options) -> list[str]:
    """`key=value` as YAML reads it back exactly."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()]
