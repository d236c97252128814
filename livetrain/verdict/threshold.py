"""The threshold: chosen on dev by a named criterion, kept beside the checkpoint, applied frozen everywhere else.

    checkpoints/best-00001000/threshold.json

It holds all that deciding about a video takes beside the weights: accept when p_live >= threshold; a calibrated score
is sigmoid(logit(p_live) / temperature).

A threshold is valid for one way of scoring (`scoring_of`): the maximum over frames is higher than their mean, so a
threshold chosen for one does not apply to the other. It is stored with these settings, and used only for such scores.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from livetrain.config import Config, VerdictConfig
from livetrain.core.errors import UserError
from livetrain.core.files import write_json
from livetrain.verdict import calibration, metrics
from livetrain.verdict.older import upgraded
from livetrain.verdict.scores import Scores

FILE_NAME = "threshold.json"
FORMAT, FORMATS_READ = 4, (1, 2, 3, 4)  # up to 3: dev_num_people
EVALUATIONS = "evaluations"  # a folder of the run directory: evaluations on other data or with other settings


@dataclass(frozen=True)
class Threshold:
    """A frozen threshold and where it comes from.

    threshold: p_live from which a video is accepted. criterion: as verdict.criterion, with the value of its parameters
    (0 where it has none). temperature: fitted on the same videos. dev_*: the split it was fitted on; dev_sha256 is
    `digest` of its rows. scoring: `scoring_of` the scores it was chosen on. checkpoint, weights_sha256: name of the
    folder that holds their weights, and their digest. The last three are empty where an older version wrote the file.
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
    dev_num_subjects: int
    scoring: dict[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    weights_sha256: str = ""

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


def scoring_of(config: Config) -> dict[str, Any]:
    """What turns a video into a score beside the weights: key → value.

    Keys that have no effect under the others are not in it.
    """
    settings, data = config.eval, config.data
    found = {
        "data.image_size": data.image_size,
        "data.fit": data.fit,
        "data.apply_sar": data.apply_sar,
        "data.sampling": data.sampling,
        "eval.num_frames": settings.num_frames,
        "eval.aggregate": settings.aggregate,
        "eval.tta": settings.tta,
        "eval.use_ema": settings.use_ema,
        "train.precision": config.train.precision,
    }
    if data.crop == "face":
        found |= {"data.crop": data.crop, "data.face_missing": data.face_missing}
        scales = {"data.face_multi_scale": list(data.face_multi_scale)}
        found |= scales if data.face_multi_scale else {"data.face_scale": data.face_scale}
    if settings.aggregate == "topk":
        found["eval.top_frames"] = settings.top_frames
    if settings.aggregate == "trimmed":
        found["eval.trim"] = settings.trim
    if data.sampling == "stride":
        found["data.frame_stride"] = data.frame_stride
    if data.sampling == "interval":
        found["data.frame_interval_seconds"] = data.frame_interval_seconds
    return found


def other_scoring(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs between two ways of scoring, "eval.aggregate=model, not max"; empty where nothing does."""
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return "; ".join(f"{key}={one.get(key, 'unset')}, not {other.get(key, 'unset')}" for key in keys)


def usable(path: Path, threshold: float | None, chosen: Mapping[str, Any], scoring: Mapping[str, Any]) -> float | None:
    """The threshold, or None with a warning where it was `chosen` on scores made in another way than `scoring`."""
    other = other_scoring(chosen, scoring)
    if threshold is None or not other:
        return threshold
    print(
        f"warning: {path}: its threshold was chosen on scores made with {other}; there is none for these scores: "
        "`livetrain evaluate RUN` with the same key=value chooses one on dev",
        file=sys.stderr,
    )
    return None


@dataclass(frozen=True)
class Made:
    """How scores were made: the names of the splits, and the fields of Threshold of the same names."""

    dev_split: str = "dev"
    test_splits: Sequence[str] = ("test",)
    scoring: Mapping[str, Any] | None = None
    checkpoint: str = ""
    weights_sha256: str = ""


def fit(dev: Scores, settings: VerdictConfig, made: Made | None = None) -> Threshold:
    """Choose the threshold and the temperature on the scored videos of dev.

    Raises UserError when dev is a test split by its name, or has scores of one class only.
    """
    made = made or Made()
    dev_split = made.dev_split
    shared = set(dev_split.split("+")) & {part for split in made.test_splits for part in split.split("+")}
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
        dev_num_subjects=len(set(dev.subject.tolist()) - {""}),
        scoring=dict(made.scoring or {}),
        checkpoint=made.checkpoint,
        weights_sha256=made.weights_sha256,
    )


def choose(
    dev: Scores,
    test: Scores,
    settings: VerdictConfig,
    *,
    stored: Threshold | None,
    may_fit: bool = True,
    made: Made | None = None,
) -> Threshold:
    """The stored threshold, or a new one chosen on dev.

    A new one is chosen where none is stored, another criterion is asked for, or the scores were made in another way or
    with other weights.

    A new one is fitted on the split of the stored one, or on a run's own dev split (`may_fit`), and nowhere else:
    another data set is judged by the threshold that was frozen before it was seen. Raises UserError.
    """
    made = made or Made()
    other = ""
    if stored and stored.scoring and made.scoring is not None:
        other = other_scoring(stored.scoring, made.scoring)
    if stored and stored.weights_sha256 and made.weights_sha256 and stored.weights_sha256 != made.weights_sha256:
        other = "; ".join(item for item in (other, f"other weights ({stored.checkpoint})") if item)
    if stored is not None and not stored.differs(settings) and not other:
        return stored
    own = may_fit if stored is None else digest(dev) == stored.dev_sha256
    if not own:
        why = "the checkpoint has no threshold" if stored is None else f"its threshold is frozen ({stored.describe()})"
        why += f" and belongs to scores made with {other}" if other else ""
        wanted = "the same settings" if other else "that verdict.criterion"
        raise UserError(
            f"{why}, and this dev split is not the one that it was trained with; run `livetrain evaluate RUN` with its "
            f"own shards and {wanted} first"
        )
    if digest(dev) == digest(test):
        raise UserError("dev and test hold the same videos; a threshold is never fitted on a test split")
    return fit(dev, settings, made)


def find(
    run_dir: Path,
    checkpoint: Path,
    scoring: Mapping[str, Any],
    *,
    trained: Mapping[str, Any],
    settings: VerdictConfig | None = None,
    weights_sha256: str = "",
) -> Threshold | None:
    """The threshold that fits scores of `checkpoint` made by `scoring`.

    Stored beside the weights, or with an evaluation of them in run_dir/evaluations; with `settings` also of that
    criterion. Where none fits, the one beside the weights, or None.

    trained: the run's own way of scoring, which that of an older version's file is taken to be. weights_sha256: of
    `checkpoint`; without it, or in older files, weights are known by the name of their folder. Raises UserError.
    """
    own = read(checkpoint)
    if own is not None and not own.scoring:
        own = dataclasses.replace(own, scoring=dict(trained), checkpoint=checkpoint.name)
    others = [read(path.parent) for path in sorted((run_dir / EVALUATIONS).glob(f"*/{FILE_NAME}"))]

    def same_weights(item: Threshold) -> bool:
        if item.weights_sha256 and weights_sha256:
            return item.weights_sha256 == weights_sha256
        return item.checkpoint == checkpoint.name

    for item in [own, *(item for item in others if item and same_weights(item))]:
        if item and item.scoring == scoring and not (settings and item.differs(settings)):
            return item
    return own


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
        content = upgraded(json.loads(path.read_text(encoding="utf-8")))
        if content.pop("format") not in FORMATS_READ:
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
    columns = (scores.key, scores.label, scores.attack_type, scores.subject)
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
