"""The threshold: chosen on dev by a named criterion, kept beside the checkpoint, applied frozen everywhere else.

    checkpoints/best-00001000/threshold.json

It holds all that deciding about a video takes beside the weights: accept when p_live >= threshold; a calibrated score
is sigmoid(logit(p_live) / temperature).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from livetrain.config import VerdictConfig
from livetrain.errors import UserError
from livetrain.fileio import write_json
from livetrain.verdict import calibration, metrics
from livetrain.verdict.scores import Scores

FILE_NAME = "threshold.json"
FORMAT = 1


@dataclass(frozen=True)
class Threshold:
    """A frozen threshold and where it comes from.

    threshold: p_live from which a video is accepted. criterion: as verdict.criterion, with the value of its parameters
    (0 where it has none). temperature: fitted on the same videos. dev_*: the split it was fitted on; dev_sha256 is
    `digest` of its rows.
    """

    threshold: float
    criterion: str
    max_apcer: float
    attack_cost: float
    live_cost: float
    temperature: float
    dev_split: str
    dev_sha256: str
    dev_num_clips: int
    dev_num_people: int

    def describe(self) -> str:
        """The criterion in words."""
        if self.criterion == "cost":
            return (
                f"least {self.attack_cost:g} x APCER (all attacks together) + {self.live_cost:g} x BPCER on "
                f"{self.dev_split}"
            )
        words = {
            "eer": "APCER of all attacks together closest to BPCER",
            "min_hter": "least HTER",
            "bpcer20": "least BPCER with no attack type's APCER above 5 % (BPCER20)",
            "max_apcer": f"least BPCER with no attack type's APCER above {100 * self.max_apcer:g} %",
        }
        return f"{words[self.criterion]} on {self.dev_split}"

    def differs(self, settings: VerdictConfig) -> bool:
        """Whether `settings` ask for another criterion."""
        return _criterion(settings) != (self.criterion, self.max_apcer, self.attack_cost, self.live_cost)


def fit(
    dev: Scores, settings: VerdictConfig, *, dev_split: str = "dev", test_splits: Sequence[str] = ("test",)
) -> Threshold:
    """Choose the threshold and the temperature on the scored videos of dev.

    Raises UserError when dev is a test split by its name, or has scores of one class only.
    """
    shared = set(dev_split.split("+")) & {part for split in test_splits for part in split.split("+")}
    if shared:
        raise UserError(
            f"a threshold is never fitted on a test split, and {', '.join(sorted(shared))} is one; set data.dev_split"
        )
    scored = dev.select(dev.scored)
    live, p_live, kinds = scored.live, scored.p_live, scored.attack_type
    if not live.any() or live.all():
        found = "only live" if live.any() else "only attack" if len(live) else "no scored"
        raise UserError(f"the {dev_split} split has {found} clips; choosing a threshold needs both classes in it")
    criterion, max_apcer, attack_cost, live_cost = _criterion(settings)
    chosen = {
        "eer": lambda: metrics.eer_threshold(live, p_live),
        "min_hter": lambda: metrics.cost_threshold(live, p_live, 1.0, 1.0),
        "cost": lambda: metrics.cost_threshold(live, p_live, attack_cost, live_cost),
        "bpcer20": lambda: metrics.apcer_threshold(kinds, live, p_live, 0.05),
        "max_apcer": lambda: metrics.apcer_threshold(kinds, live, p_live, max_apcer),
    }[criterion]()
    return Threshold(
        threshold=chosen,
        criterion=criterion,
        max_apcer=max_apcer,
        attack_cost=attack_cost,
        live_cost=live_cost,
        temperature=calibration.fit_temperature(live, p_live),
        dev_split=dev_split,
        dev_sha256=digest(dev),
        dev_num_clips=len(dev),
        dev_num_people=len(set(dev.group.tolist()) - {""}),
    )


def choose(
    dev: Scores,
    test: Scores,
    settings: VerdictConfig,
    *,
    stored: Threshold | None,
    may_fit: bool = True,
    dev_split: str = "dev",
    test_split: str = "test",
) -> Threshold:
    """The stored threshold, or a new one from dev when there is none, or another criterion is asked for.

    A new one is fitted on the split of the stored one, or on a run's own dev split (`may_fit`), and nowhere else:
    another data set is judged by the threshold that was frozen before it was seen. Raises UserError.
    """
    if stored is not None and not stored.differs(settings):
        return stored
    own = may_fit if stored is None else digest(dev) == stored.dev_sha256
    if not own:
        why = "the checkpoint has no threshold" if stored is None else f"its threshold is frozen ({stored.describe()})"
        raise UserError(
            f"{why}, and this dev split is not the one that it was trained with; run `livetrain evaluate RUN` with its "
            "own shards and the wanted verdict.criterion first"
        )
    if digest(dev) == digest(test):
        raise UserError("dev and test hold the same videos; a threshold is never fitted on a test split")
    return fit(dev, settings, dev_split=dev_split, test_splits=(test_split,))


def write(folder: Path, threshold: Threshold) -> Path:
    """Write folder/threshold.json, atomically. Returns its path."""
    write_json(folder / FILE_NAME, {"format": FORMAT, **dataclasses.asdict(threshold)})
    return folder / FILE_NAME


def read(folder: Path) -> Threshold | None:
    """The threshold in `folder`, None when there is none. Raises UserError when it cannot be read."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        found = Threshold(**content)
        if not np.isfinite(found.threshold) or not found.temperature > 0:
            raise ValueError("a number out of range")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); remove it and run `livetrain evaluate` again"
        ) from None
    return found


def digest(scores: Scores) -> str:
    """SHA-256 of which videos a split has (key, label, attack type, person), whatever their order and scores."""
    columns = (scores.key, scores.label, scores.attack_type, scores.group)
    rows = sorted(json.dumps([str(value) for value in row]) for row in zip(*columns, strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _criterion(settings: VerdictConfig) -> tuple[str, float, float, float]:
    """(name, max_apcer, attack_cost, live_cost), 0 for those that the criterion does not use."""
    name = settings.criterion
    cost = name == "cost"
    return (
        name,
        settings.max_apcer if name == "max_apcer" else 0.0,
        settings.attack_cost if cost else 0.0,
        settings.live_cost if cost else 0.0,
    )
