"""The trials of a sweep as an Optuna study, kept in a journal in the sweep's folder.

The journal is a file that many processes may append to, on a shared disk too: a stopped sweep continues, and
several commands work on one sweep. Options of a grid or of a random search depend on the trial's number alone; those of
`bayes` come from Optuna's TPE sampler (Bergstra et al., NeurIPS 2011) and all trials that have ended.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from livetrain.core.errors import UserError
from livetrain.jobs.search import Options, Parameter, Sweep, options_of

JOURNAL = "study.log"


class Study:
    """Trials: new ones, what they came to, which to end early. Needs the extra `sweep`."""

    def __init__(self, folder: Path, sweep: Sweep, seed: int) -> None:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError:
            raise UserError("a sweep needs Optuna; install it: pip install 'livetrain[sweep]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna: Any = optuna
        self._sweep, self._seed = sweep, seed
        folder.mkdir(parents=True, exist_ok=True)
        self._study = optuna.create_study(
            study_name="sweep",
            storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
            sampler=self._sampler(0),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, sweep.min_evaluations)),
            direction="maximize" if sweep.maximize else "minimize",
            load_if_exists=True,
        )
        self._space = {item.key: self._distribution(item) for item in sweep.parameters}

    @property
    def num_trials(self) -> int:
        """Trials so far, whatever became of them."""
        return len(self._study.get_trials(deepcopy=False))

    def unfinished(self) -> list[Any]:
        """Trials that have begun and not ended: of a process at work, or of one that was stopped."""
        running = self._optuna.trial.TrialState.RUNNING
        found = self._study.get_trials(deepcopy=False, states=(running,))
        return [self._optuna.trial.Trial(self._study, item._trial_id) for item in found]

    def ask(self) -> Any:
        """A new trial."""
        self._study.sampler = self._sampler(self.num_trials)
        trial = self._study.ask()
        for name, distribution in self._space.items():
            trial._suggest(name, distribution)
        return trial

    def options(self, trial: Any) -> Options:
        """The options of a trial."""
        return {item.key: _decoded(item, trial.params[item.key]) for item in self._sweep.parameters}

    def tell(self, trial: Any, value: float) -> None:
        """What a trial came to; NaN when it has no figure."""
        if math.isnan(value):
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, value)

    def should_prune(self, trial: Any, values: list[float]) -> bool:
        """Whether the dev figures of a trial so far are so bad beside those of others that it is to end."""
        if not self._sweep.min_evaluations:
            return False
        for step, value in enumerate(values, start=1):
            trial.report(value, step)
        return bool(trial.should_prune())

    def prune(self, trial: Any) -> None:
        """End a trial that was pruned."""
        self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def add(self, folder: str, options: Mapping[str, Any], value: float) -> bool:
        """Count a trial that finished elsewhere, once; False where its options are outside of the search."""
        known = {item.user_attrs.get("folder") for item in self._study.get_trials(deepcopy=False)}
        if folder in known or math.isnan(value):
            return True
        params = {item.key: _encoded(options.get(item.key)) for item in self._sweep.parameters}
        try:
            trial = self._optuna.trial.create_trial(
                params=params, distributions=self._space, value=value, user_attrs={"folder": folder}
            )
        except ValueError:
            return False
        self._study.add_trial(trial)
        return True

    def _sampler(self, trials: int) -> Any:
        """What suggests the options of the next trial, of a study that has so many."""
        optuna, sweep, seed = self._optuna, self._sweep, self._seed
        if sweep.method == "bayes":
            # A command that starts later, or resumes, must not draw what the first one drew.
            return optuna.samplers.TPESampler(seed=seed + trials, n_startup_trials=5, constant_liar=True)

        class Given(optuna.samplers.BaseSampler):  # type: ignore[name-defined]
            def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
                return {}

            def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
                return {}

            def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
                return _encoded((options_of(sweep, seed, trial.number) or {}).get(param_name))

        return Given()

    def _distribution(self, item: Parameter) -> Any:
        spaces = self._optuna.distributions
        if item.values:
            return spaces.CategoricalDistribution([_encoded(value) for value in item.values])
        if item.distribution == "int_uniform":
            return spaces.IntDistribution(int(item.low), int(item.high))
        return spaces.FloatDistribution(item.low, item.high, log=item.distribution == "log_uniform_values")


def _encoded(value: Any) -> Any:
    """A value as Optuna keeps it: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _decoded(item: Parameter, value: Any) -> Any:
    return next((one for one in item.values if _encoded(one) == value), value)
