"""The verdict of a run: the threshold chosen on dev, frozen, and what it does on test. Goes into verdict.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from livetrain.config import VerdictConfig
from livetrain.core import display_names
from livetrain.verdict import calibration, intervals, metrics
from livetrain.verdict import threshold as threshold_
from livetrain.verdict.intervals import Settings, format_interval
from livetrain.verdict.scores import Scores
from livetrain.verdict.threshold import Threshold

DEFINITIONS = {
    "threshold": "p_live from which a clip is accepted, chosen on dev by the criterion, midway to the next lower score",
    "notices": "what a reader must know before any figure",
    "apcer": "share of an attack type's presentations accepted as live (ISO/IEC 30107-3)",
    "apcer_max": "largest APCER over attack types (ISO/IEC 30107-3)",
    "bpcer": "share of live presentations refused (ISO/IEC 30107-3)",
    "hter": "mean of BPCER and the APCER of all attacks together",
    "auc": "area under the ROC",
    "eer": "equal error rate, interpolated on the ROC; of its own split, so no threshold is carried over",
    "eer_variants": "readings of the EER: interpolated; mean of FPR and FNR at the closest point; FPR there",
    "bpcer_at_apcer": "smallest BPCER with no attack type's APCER above the target (BPCER10, 20, 100); none where a "
    "type has fewer attacks than 1 / target; indicative where people are too few to show that the APCER is kept",
    "tpr_at_fpr": "largest share of live accepted with the share of attacks accepted (all types) not above the target; "
    "none and indicative as above",
    "acer_legacy_max": "mean of BPCER and the largest APCER; no part of the standard",
    "acer_legacy_pooled": "mean of BPCER and the APCER of all attacks together (= hter); no part of the standard",
    "apcer_plus_bpcer": "largest APCER + BPCER; not the RIAPAR of ISO/IEC 30107-3:2023, which takes the decisions of a "
    "comparator",
    "ece": "expected calibration error of p_live, 15 bins: raw, and after temperature scaling fitted on dev",
    "failure_to_acquire": "videos that gave no score (undecodable, or without a face); outside of the other rates, "
    "reported beside them: "
    "share of all, of live (BPNRR), of attacks and of each type (APNRR)",
    "with_failures": "largest APCER and BPCER of all videos, when a video without a score counts as a rejection",
    "trained_on": "training clips by attack type in the first pass; synthetic ones are made of live clips, never of "
    "those of dev or test",
    "chain": "SHA-256 of weights, lists of videos and scores; way of scoring; commit of the code when it was submitted "
    "or started; how many different evaluations of this run on this test split there were up to this one",
    "intervals": "two-sided, over people and one more who was not seen: who always errs for the upper bound, never "
    "for the lower; of apcer_max from the types' own bounds; on dev the threshold counts as given",
}

HEADLINE = ("apcer_max", "bpcer", "hter", "eer", "auc")


def build(
    dev: Scores,
    test: Scores,
    threshold: Threshold | None = None,
    settings: VerdictConfig | None = None,
    *,
    notices: Sequence[str] = (),
    seed: int = 0,
    chain: Mapping[str, Any] | None = None,
    trained_on: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The verdict as a JSON-able dict; rates that do not exist are None.

    threshold: frozen before; without one it is chosen on dev as `settings` say, and UserError is raised when dev has
    scores of one class only. notices: lines that come first wherever the verdict is shown. seed: of the draws.
    chain: what the scores were made of (livetrain.verdict.provenance). trained_on: training clips by attack type.
    """
    settings = settings or VerdictConfig()
    threshold = threshold or threshold_.fit(dev, settings)
    how = Settings(settings.confidence, seed=seed)
    return {
        "format": 4,
        "notices": list(notices),
        "threshold": threshold.threshold,
        "threshold_from": {**dataclasses.asdict(threshold), "criterion_text": threshold.describe()},
        "intervals": how.describe(),
        "chain": dict(chain or {}),
        "trained_on": dict(trained_on or {}),
        "dev": split_figures(dev, threshold, how),
        "test": split_figures(test, threshold, how),
        "definitions": DEFINITIONS,
    }


def split_figures(scores: Scores, threshold: Threshold, how: Settings) -> dict[str, Any]:
    """Counts, rates at the threshold, threshold-free figures, intervals, calibration and failures of one split."""
    people = set(scores.subject.tolist()) - {""}
    kinds = sorted(set(scores.attack_type[~scores.live].tolist()))
    live, p_live = scores.live[scores.scored], scores.p_live[scores.scored]
    calibrated = calibration.apply_temperature(p_live, threshold.temperature)
    return {
        "num_clips": len(scores),
        "num_live": int(scores.live.sum()),
        "num_attack": int((~scores.live).sum()),
        "num_subjects": len(people) if people else None,
        "num_by_type": {kind: int((~scores.live & (scores.attack_type == kind)).sum()) for kind in kinds},
        **metrics.at_threshold(scores, threshold.threshold),
        **metrics.ranking(scores),
        "intervals": intervals.of_scores(scores, threshold.threshold, how),
        "ece": {
            "raw": calibration.expected_calibration_error(live, p_live),
            "calibrated": calibration.expected_calibration_error(live, calibrated),
            "temperature": threshold.temperature,
        },
        "failure_to_acquire": metrics.failures(scores),
    }


TABLE = ("figure", "dev", "test", "test, low", "test, high")


def table(verdict: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the headline figures, for W&B."""
    dev, test = verdict["dev"], verdict["test"]
    bounds = test["intervals"]

    def row(name: str, a: Any, b: Any, interval: dict[str, Any] | None) -> list[Any]:
        return [name, a, b, *((interval["low"], interval["high"]) if interval else (None, None))]

    rows = [
        row(f"apcer {kind}", dev["apcer"].get(kind), rate, bounds["apcer"].get(kind))
        for kind, rate in test["apcer"].items()
    ]
    rows += [row(name, dev[name], test[name], bounds[name]) for name in ("apcer_max", "bpcer", "hter", "eer", "auc")]
    failed, threshold = "failure_to_acquire", verdict["threshold"]
    rows += [row(failed, dev[failed]["rate"], test[failed]["rate"], None), row("threshold", threshold, threshold, None)]
    return list(TABLE), rows


def format_text(verdict: dict[str, Any]) -> str:
    """The verdict as a small table for a terminal: dev, test, and the interval of test."""
    dev, test = verdict["dev"], verdict["test"]
    bounds = test["intervals"]
    level = f"{100 * verdict['intervals']['confidence']:g} % interval of test"
    lines = [*verdict["notices"], f"{'':<24}{'dev':>9}{'test':>9}  {level}"]

    def add(name: str, a: Any, b: Any, interval: str = "") -> None:
        lines.append(f"{name:<24}{a:>9}{b:>9}  {interval}".rstrip())

    def rate(name: str, key: str) -> None:
        add(name, _percent(dev[key]), _percent(test[key]), format_interval(bounds[key]))

    add("clips", dev["num_clips"], test["num_clips"])
    add("people", dev["num_subjects"] or "unknown", test["num_subjects"] or "unknown")
    add("AUC", _number(dev["auc"]), _number(test["auc"]), format_interval(bounds["auc"], percent=False))
    rate("EER", "eer")
    lines.append(f"at the threshold {verdict['threshold']:.4f}: {verdict['threshold_from']['criterion_text']}")
    for kind in sorted({*dev["apcer"], *test["apcer"]}):
        interval = format_interval(bounds["apcer"].get(kind))
        add(
            f"  APCER {display_names.shown(kind, 16)}",
            _percent(dev["apcer"].get(kind)),
            _percent(test["apcer"].get(kind)),
            interval,
        )
    rate("  APCER, largest", "apcer_max")
    rate("  BPCER", "bpcer")
    rate("  HTER", "hter")
    add("failures to acquire", dev["failure_to_acquire"]["num"], test["failure_to_acquire"]["num"])
    no_face = [split["failure_to_acquire"].get("num_no_face", 0) for split in (dev, test)]
    if any(no_face):
        add("  of them without a face", *no_face)
    lines += _about_intervals(verdict)
    if counts := verdict.get("trained_on"):
        lines.append("trained on: " + ", ".join(f"{display_names.shown(kind, 32)} {n:,}" for kind, n in counts.items()))
    looks = verdict.get("chain", {}).get("test_evaluations", 1)
    if looks > 1:
        lines.append(f"evaluation {looks} of this run on this test split: what was chosen after the first is flattered")
    if test["num_subjects"] is None:
        lines.append("warning: no person is known; people may be in train and test both, and these figures too good")
    return "\n".join(lines)


def _about_intervals(verdict: dict[str, Any]) -> list[str]:
    """What the intervals are over, and how narrow they were if people were not alike in all their videos."""
    bounds = verdict["test"]["intervals"]
    units = intervals.names_of_units(bounds[name] for name in HEADLINE)
    lines = [f"intervals: over {units}, and one more who was not seen"]
    if units == "videos":
        lines = ["intervals: over videos; too narrow where people have several of them"]
    apart = [
        f"{text} {format_interval(part['if_videos_were_independent'])}"
        for name, text in (("apcer_pooled", "all attacks"), ("bpcer", "BPCER"))
        if (part := bounds[name]) and "if_videos_were_independent" in part
    ]
    return lines + ([f"if videos of a person were independent: {', '.join(apart)}"] if apart else [])


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
