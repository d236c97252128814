"""The end of a run: dev and test scored with the chosen weights, the verdict, the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from livetrain.checkpoint.folders import weights_sha256
from livetrain.config import Config
from livetrain.config.split_spec import Selection
from livetrain.core.files import write_json
from livetrain.data import Dataset, leaks
from livetrain.data.perturb import PERTURBATIONS, Perturbation
from livetrain.data.pictures import clip_pictures
from livetrain.evaluation import lost_clips
from livetrain.evaluation.evaluator import Evaluation, evaluate
from livetrain.evaluation.scoring import precision
from livetrain.model import LivenessModel
from livetrain.report import page, plots
from livetrain.tracking.environment import code_version
from livetrain.tracking.metrics_log import read_metrics
from livetrain.tracking.run_dir import RunDir
from livetrain.tracking.wandb_run import Wandb
from livetrain.verdict import clip_metadata, provenance, robustness, scores, threshold, verdict
from livetrain.verdict.intervals import Settings
from livetrain.verdict.scores import Scores
from livetrain.verdict.slices import slices, table


def conclude(
    accelerator: Accelerator,
    config: Config,
    dataset: Dataset,
    model: LivenessModel,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    step: int,
    checkpoint: Path,
    stored: threshold.Threshold | None = None,
    record: Path | None = None,
    home: Path | None = None,
    may_fit: bool = True,
    wandb: Wandb | None = None,
    after_batch: Callable[[], None] = lambda: None,
    after_scoring: Callable[[], None] = lambda: None,
) -> Path:
    """Score dev and test, write scores/, verdict.json and report.html, print the verdict. Returns the report's path.

    The threshold `stored` (default: the one in the folder `checkpoint`) is applied as it is; where there is none, or
    another criterion is asked for, or the scores are made in another way, it is fitted on dev and stored in the folder
    `record` (default: `checkpoint`), if the split is that of the run (`may_fit`; see `threshold.choose`). Shards of
    another data set may have no dev split. With eval.robustness the test split is scored under each perturbation
    too, into robustness.json. home: the run whose weights these are, where the evaluation is counted (default: the run
    directory).

    All processes call it; the main one writes. `after_batch`, `after_scoring`: see `evaluate`.
    """
    run_dir = Path(config.run_dir)
    report_path = RunDir(run_dir).report
    stored = stored or threshold.read(checkpoint)
    dev_split, test_split = config.data.dev_split, config.data.test_split

    def score(split: str, perturbation: Perturbation | None = None) -> Evaluation:
        options: dict[str, Any] = {"after_batch": after_batch, "after_scoring": after_scoring}
        options |= {"perturbation": perturbation}
        return evaluate(accelerator, config, dataset, split, model, loss, **options)

    has_dev = Selection.parse(dev_split).which(dataset.codes("split")[1], "split").any()
    nothing = Evaluation(Scores.from_rows([]), {}, float("nan"), [])
    found = {"dev": score(dev_split) if has_dev or stored is None else nothing, "test": score(test_split)}
    wanted = PERTURBATIONS if config.eval.robustness else ()
    perturbed = {item.name: (item.text, score(test_split, item).scores) for item in wanted}
    if not accelerator.is_main_process:
        return report_path
    for name, one in found.items():
        scores.write(RunDir(run_dir).scores(name), one.scores)
        clip_metadata.write(RunDir(run_dir).details(name), one.details)
    dev, test = found["dev"].scores, found["test"].scores
    scoring, weights = threshold.scoring_of(config), weights_sha256(checkpoint)
    chosen = threshold.choose(
        dev, test, config.verdict, stored=stored, may_fit=may_fit, dev_split=dev_split, test_split=test_split,
        scoring=scoring, checkpoint=checkpoint.name, weights_sha256=weights,
    )  # fmt: skip
    if chosen != stored or record:
        threshold.write(record or checkpoint, chosen)
    made_of = provenance.of(
        run_dir, dev, test, weights={checkpoint.name: weights}, scoring=scoring, precision=precision(config),
        code=code_version(), home=home,
    )  # fmt: skip
    figures = verdict.build(
        dev,
        test,
        chosen,
        config.verdict,
        notices=[*leaks.check(dataset, config), *lost_clips.notices(home or run_dir)],
        chain=made_of,
    )
    write_json(RunDir(run_dir).verdict, figures)
    how = Settings.of(figures["intervals"])
    hardened = robustness.build(test, perturbed, figures["threshold"], how) if perturbed else None
    if hardened:
        write_json(RunDir(run_dir).robustness, hardened)
    pictures = clip_pictures(dataset)
    page.write(run_dir, pictures=pictures, worst_clips=config.tracking.worst_clips)
    if wandb:
        drawn = plots.figures(dev, test, figures, read_metrics(RunDir(run_dir).metrics))
        tables = {"verdict": verdict.table(figures)}
        tables |= {"slices": table(slices(test, found["test"].details, figures["threshold"], how))}
        if hardened:
            tables["robustness"] = robustness.table(hardened)
        worst = page.worst(test, figures["threshold"], config.tracking.worst_clips)
        wandb.log_verdict(step, figures["test"], drawn, tables, worst, lambda key: pictures(key, ()))
    print(verdict.format_text(figures))
    print(report_path, flush=True)
    return report_path
