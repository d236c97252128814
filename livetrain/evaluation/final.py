"""The end of a run: dev and test scored with the chosen weights, the verdict, the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from livetrain.checkpoint.folders import weights_sha256
from livetrain.config import Config
from livetrain.config.split_spec import Selection
from livetrain.core.files import write_json
from livetrain.data import Dataset, face_notices, leaks
from livetrain.data.clip_pictures import Pictures, clip_pictures
from livetrain.data.perturb import PERTURBATIONS, Shifts
from livetrain.evaluation import lost_clips
from livetrain.evaluation.evaluator import NO_HOOKS, Evaluation, Hooks, evaluate
from livetrain.evaluation.finish import finish
from livetrain.model import LivenessModel
from livetrain.report import page
from livetrain.tracking.run_dir import RunDir
from livetrain.tracking.wandb_run import Wandb
from livetrain.verdict import clip_metadata, robustness, threshold, verdict
from livetrain.verdict.intervals import Settings
from livetrain.verdict.slices import table


@dataclass(frozen=True)
class Origin:
    """What is evaluated, and where its threshold is from.

    step: updates behind the weights. checkpoint: their folder. stored: a threshold frozen before (default: the one in
    that folder). may_fit: whether the dev split is the run's own, so that a threshold may be chosen on it. record:
    the folder that a new threshold is written to (default: `checkpoint`). home: the run whose weights these are, where
    the evaluation is counted (default: the run directory).
    """

    step: int
    checkpoint: Path
    stored: threshold.Threshold | None = None
    may_fit: bool = True
    record: Path | None = None
    home: Path | None = None


def final_evaluation(
    accelerator: Accelerator,
    config: Config,
    dataset: Dataset,
    model: LivenessModel,
    origin: Origin,
    *,
    wandb: Wandb | None = None,
    hooks: Hooks = NO_HOOKS,
) -> Path:
    """Score dev and test, write scores/, verdict.json and report.html, print the verdict. Returns the report's path.

    A stored threshold is applied as it is. Where there is none, or another criterion is asked for, or the scores are
    made in another way, it is chosen on dev, if that is allowed (see `threshold.choose`). Shards of another data set
    may have no dev split. With eval.robustness the test split is scored under each perturbation too, into
    robustness.json. All processes call it; the first one writes.
    """
    run = RunDir.of(config)
    stored = origin.stored or threshold.read(origin.checkpoint)
    data = config.data

    def score(split: str, shifts: Shifts | None = None) -> Evaluation:
        return evaluate(accelerator, config, dataset, split, model, hooks=hooks, shifts=shifts)

    has_dev = Selection.parse(data.dev_split).which(dataset.codes("split")[1], "split").any()
    dev = score(data.dev_split) if has_dev or stored is None else Evaluation.empty()
    test = score(data.test_split)
    wanted = PERTURBATIONS if config.eval.robustness else ()
    perturbed = {item.name: (item.text, score(data.test_split, Shifts.same(item)).scores) for item in wanted}
    if not accelerator.is_main_process:
        return run.report
    clip_metadata.write(run.details("dev"), dev.details)
    clip_metadata.write(run.details("test"), test.details)
    digest = weights_sha256(origin.checkpoint)
    chosen = threshold.choose(
        dev.scores, test.scores, config.verdict, stored=stored, may_fit=origin.may_fit,
        made=threshold.Made(
            data.dev_split, (data.test_split,), threshold.scoring_of(config), origin.checkpoint.name, digest
        ),
    )  # fmt: skip
    if chosen != stored or origin.record:
        threshold.write(origin.record or origin.checkpoint, chosen)
    splits = [data.dev_split] * bool(has_dev) + [data.test_split]
    notices = [*leaks.check(dataset, config), *face_notices(dataset, config, splits)]
    notices += lost_clips.notices(origin.home or run.path)
    if config.eval.watch:
        notices.append(f"eval.watch={config.eval.watch} was scored at every evaluation: what it chooses is flattered")
    weights = {origin.checkpoint.name: digest}
    found = finish(run, config, dev.scores, test.scores, chosen, weights=weights, notices=notices, home=origin.home)
    if perturbed:
        how = Settings.of(found["intervals"])
        write_json(run.robustness, robustness.build(test.scores, perturbed, found["threshold"], how))
    pictures = clip_pictures(dataset)
    content = page.read(run.path)
    page.write(content, pictures=pictures, worst_clips=config.tracking.worst_clips)
    if wandb and wandb.is_running:
        _send(wandb, origin.step, content, pictures, config.tracking.worst_clips)
    print(verdict.format_text(found))
    if origin.home is None:  # a run, not an evaluation of one
        print(f"next: livetrain predict --checkpoint {run.path} --videos DIR --out submission.csv")
    print(run.report, flush=True)
    return run.report


def _send(wandb: Wandb, step: int, content: page.Content, pictures: Pictures, worst_clips: int) -> None:
    """The report's figures to W&B."""
    tables: dict[str, Any] = {"verdict": verdict.table(content.verdict), "slices": table(content.slices)}
    if content.robustness:
        tables["robustness"] = robustness.table(content.robustness)
    worst = page.worst(content.test, content.verdict["threshold"], worst_clips)
    wandb.log_verdict(step, content.verdict["test"], content.drawn, tables, worst, lambda key: pictures(key, ()))
