"""From scores to a verdict and a report: what every kind of run ends with (a run, a cross-validation, an ensemble)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from livetrain.config import Config
from livetrain.core.files import write_json
from livetrain.evaluation.scoring import precision
from livetrain.tracking.environment import code_version
from livetrain.tracking.run_dir import RunDir
from livetrain.verdict import provenance, scores, verdict
from livetrain.verdict.scores import Scores
from livetrain.verdict.threshold import Threshold, scoring_of


def finish(
    run: RunDir,
    config: Config,
    dev: Scores,
    test: Scores,
    threshold: Threshold | None,
    *,
    weights: Mapping[str, str],
    notices: Sequence[str] = (),
    home: Path | None = None,
) -> dict[str, Any]:
    """Write scores/ and verdict.json into `run`; returns the verdict.

    config: how the scores were made and are judged. threshold: frozen before; None: chosen on dev. weights: name →
    SHA-256 of each model that was scored. notices: lines that the verdict begins with. home: folder of the run whose
    weights these are, where the evaluation is counted (default: `run`).
    """
    scores.write(run.scores("dev"), dev)
    scores.write(run.scores("test"), test)
    chain = provenance.of(
        run.path, dev, test, weights=weights, scoring=scoring_of(config), precision=precision(config),
        code=code_version(), home=home,
    )  # fmt: skip
    found = verdict.build(
        dev, test, threshold, config.verdict,
        notices=notices, chain=chain, trained_on=_trained_on(RunDir(home or run.path)),
    )  # fmt: skip
    write_json(run.verdict, found)
    return found


def _trained_on(run: RunDir) -> dict[str, int]:
    """Training clips by attack type; none of an ensemble, and of a run from before they were kept."""
    if not run.training.exists():
        return {}
    counts: dict[str, int] = json.loads(run.training.read_text(encoding="utf-8"))["clips_by_type"]
    return counts
