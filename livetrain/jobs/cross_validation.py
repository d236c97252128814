"""Cross-validation: every fold of a data set tested by a model that has not seen its people.

    livetrain cv CONFIG.yaml … [key=value …] [--config_file FILE]

The shards must have folds (`--folds 5` when they are built, or `livetrain shards split DIR --protocol kfold`).
For each fold a run is trained into run_dir/fold-<n> (`data.fold=n/K`), one after the other; those that have a verdict
are not trained again, so that The same command resumes; folds with other settings are refused. Then all test scores
together, each clip once and by the run that did not know it, become run_dir/scores/test.csv, verdict.json and
report.html.

Each run has a threshold of its own, chosen on its own dev fold. So that one figure can be given for all, the log-odds
of each run's scores are shifted until its threshold is 0.5: every decision stays what it was. --config_file is
Accelerate's, as for `livetrain train`.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config, load_config, split_arguments
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.report import page
from livetrain.tracking.run_dir import RunDir
from livetrain.training.resume import refuse_another, write_config
from livetrain.verdict import scores, threshold, verdict
from livetrain.verdict.scores import Scores

CERTAIN = 1e-12  # scores are kept so far from 0 and 1 before their log-odds are taken


def parser() -> Parser:
    """The command line of `livetrain cv`."""
    parser = Parser("cv", __doc__)
    parser.add_argument("--config_file", default="", metavar="FILE", help="Accelerate's configuration, of launch/")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    options, base = parser().parse_some(arguments)
    from livetrain.data import Dataset

    config = load_config(*split_arguments(base))
    launcher = ["--config_file", options.config_file] if options.config_file else []
    count = num_folds(config)
    folders = [Path(config.run_dir) / f"fold-{fold}" for fold in range(count)]
    own = [
        [f"data.fold={fold}/{count}", f"run_dir={run_dir}", f"name={config.name}-fold-{fold}"]
        for fold, run_dir in enumerate(folders)
    ]
    dataset = Dataset.of(config.data)
    for words in own:  # before any is trained
        refuse_another(load_config(*split_arguments([*base, *words]), warn=lambda line: None), dataset)
    for fold, (run_dir, words) in enumerate(zip(folders, own, strict=True)):
        if not RunDir(run_dir).verdict.exists():
            print(f"fold {fold} of {count}: {run_dir}", flush=True)
            if code := train([*launcher, *base, *words]):
                return code
    print(verdict.format_text(gather(config, count)))
    print(RunDir(Path(config.run_dir)).report)
    return 0


def num_folds(config: Config) -> int:
    """Folds of the shards. Raises UserError where there are none, or data.fold is given."""
    from livetrain.data import Dataset

    if config.data.fold:
        raise UserError(f"data.fold={config.data.fold}: `livetrain cv` trains every fold; leave it out")
    dataset = Dataset.of(config.data)
    names = set(dataset.columns["split"].unique().to_pylist())
    count = sum(f"fold{number}" in names for number in range(len(names)))
    if count < 3:
        raise UserError(
            f"{dataset.root} has the splits {', '.join(sorted(names))}; make folds of it: "
            f"livetrain shards split {dataset.root} --protocol kfold"
        )
    return count


def train(arguments: Sequence[str]) -> int:
    """`livetrain train` in a process of its own; its exit code."""
    return subprocess.run([sys.executable, "-m", "livetrain.cli", "train", *arguments]).returncode


def gather(config: Config, count: int) -> dict[str, object]:
    """Write the scores, verdict and report of all folds together into the run directory; returns the verdict."""
    from livetrain.checkpoint import folders
    from livetrain.data import Dataset
    from livetrain.data.clip_pictures import clip_pictures
    from livetrain.evaluation.finish import finish

    folder = Path(config.run_dir)
    parts: dict[str, list[Scores]] = {"dev": [], "test": []}
    frozen, weights = [], {}
    for fold in range(count):
        run_dir = folder / f"fold-{fold}"
        best = RunDir(run_dir).best()
        chosen = threshold.read(best) if best else None
        if chosen is None:
            raise UserError(f"{run_dir} has no best checkpoint with a threshold; remove the folder, and train it again")
        frozen.append(chosen)
        weights[f"fold-{fold}"] = folders.weights_sha256(best) if best else ""
        for split, found in parts.items():
            found.append(aligned(scores.read(RunDir(run_dir).scores(split)), chosen.threshold))
    joined = {split: _joined(found) for split, found in parts.items()}
    if len(set(joined["test"].key.tolist())) < len(joined["test"]):
        raise UserError(f"{folder}: a clip was tested in two folds; the shards changed between them: train them again")
    one = dataclasses.replace(
        frozen[0], threshold=0.5, temperature=1.0, dev_split=f"the dev fold of each of {count} runs",
        dev_sha256="", dev_num_clips=len(joined["dev"]), dev_num_subjects=sum(item.dev_num_subjects for item in frozen),
    )  # fmt: skip
    message = f"{count}-fold cross-validation: each clip is scored by the run that was not trained on its fold"
    notices = list(dict.fromkeys([*_notices(folder, count), message]))
    write_config(config)
    figures = finish(RunDir(folder), config, joined["dev"], joined["test"], one, weights=weights, notices=notices)
    page.write(folder, pictures=clip_pictures(Dataset.of(config.data)), worst_clips=config.tracking.worst_clips)
    return figures


def _notices(folder: Path, count: int) -> list[str]:
    """What the folds' own verdicts begin with: leaks come first here too."""
    found = [RunDir(folder / f"fold-{fold}").read_verdict() for fold in range(count)]
    return [f"fold {fold}: {line}" for fold, item in enumerate(found) for line in item["notices"]]


def aligned(of: Scores, at: float) -> Scores:
    """The scores with their log-odds shifted so that `at` becomes 0.5; no decision at the threshold changes."""
    p = of.p_live
    shifted = np.where(np.isnan(p), np.nan, 1 / (1 + np.exp(_log_odds(np.array([at])) - _log_odds(p))))
    # Rounding must not turn a decision at the threshold itself.
    shifted = np.where(p >= at, np.maximum(shifted, 0.5), np.minimum(shifted, np.nextafter(0.5, 0)))
    return dataclasses.replace(of, p_live=np.where(np.isnan(p), np.nan, shifted))


def _log_odds(p: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(p, CERTAIN, 1 - CERTAIN)
    return np.log(kept) - np.log1p(-kept)


def _joined(parts: Sequence[Scores]) -> Scores:
    columns = [item.name for item in dataclasses.fields(Scores)]
    return Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))
