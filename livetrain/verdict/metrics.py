"""Error rates of presentation attack detection, by ISO/IEC 30107-3:2023. Pure functions of NumPy arrays.

A presentation is accepted as live when p_live >= threshold. BPCER is the share of live presentations that are refused;
APCER of an attack type (PAI species) is the share of its presentations that are accepted, and the largest over types
is the headline. Presentations without a score (failures to acquire) are excluded from these rates and reported beside
them, as the standard requires.

EER is the linear interpolation between the points of the ROC; two other definitions that participants of the Zalo AI
Challenge 2022 used are reported beside it, since they differ on small sets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.verdict.scores import NO_FACE, Scores

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BPCER_AT_APCER = (0.10, 0.05, 0.01)
TPR_AT_FPR = (0.01, 0.001)


def error_curves(live: Bools, p_live: Floats) -> tuple[Floats, Floats, Floats]:
    """(thresholds, FPR, FNR) at every threshold where one of them changes, from refusing all to accepting all.

    live: bool [n], p_live: float [n]. FPR: attacks accepted, FNR: live refused; each [m]. The first threshold is
    infinity. Raises ValueError when one class is missing or a score is NaN.
    """
    _check(live, p_live)
    from sklearn.metrics import roc_curve  # 2 s, and training begins without

    fpr, tpr, thresholds = roc_curve(live, p_live, drop_intermediate=False)
    return thresholds, fpr, 1 - tpr


def error_counts(live: Bools, p_live: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """(thresholds, attacks accepted, live refused) at the points of `error_curves`, the last two as int64 [m].

    Two rates are compared by cross-multiplied counts: fractions that are equal on paper differ as floats.
    """
    thresholds, fpr, fnr = error_curves(live, p_live)
    return thresholds, np.rint(fpr * (~live).sum()).astype(np.int64), np.rint(fnr * live.sum()).astype(np.int64)


def auc(live: Bools, p_live: Floats) -> float:
    """Area under the ROC: the probability that a live clip scores above an attack, ties counting half."""
    _check(live, p_live)
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(live, p_live))


def eer(live: Bools, p_live: Floats) -> float:
    """Equal error rate: where the ROC, its points joined by straight lines, crosses FPR = FNR."""
    _, accepted, refused = error_counts(live, p_live)
    num_live, num_attack = int(live.sum()), int((~live).sum())
    gap = accepted * num_live - refused * num_attack  # of the rates, times both numbers
    after = int(np.argmax(gap >= 0))  # the first point at or past the crossing; the last point has FPR 1, FNR 0
    if gap[after] == 0:
        return float(accepted[after] / num_attack)
    before = after - 1
    part = -gap[before] / (gap[after] - gap[before])
    return float((accepted[before] + part * (accepted[after] - accepted[before])) / num_attack)


def eer_variants(live: Bools, p_live: Floats) -> dict[str, float]:
    """The EER in three readings.

    `interpolated` (see `eer`), `mean` of FPR and FNR at the closest point, and `fpr` there.
    """
    _, accepted, refused = error_counts(live, p_live)
    closest = _closest(live, accepted, refused)
    fpr, fnr = accepted[closest] / (~live).sum(), refused[closest] / live.sum()
    return {"interpolated": eer(live, p_live), "mean": float((fpr + fnr) / 2), "fpr": float(fpr)}


def eer_threshold(live: Bools, p_live: Floats) -> float:
    """The threshold whose FPR and FNR are closest, moved by `midway`; of several the highest that none dominates."""
    thresholds, accepted, refused = error_counts(live, p_live)
    return midway(p_live, float(thresholds[_closest(live, accepted, refused)]))


def cost_threshold(live: Bools, p_live: Floats, attack_cost: float, live_cost: float) -> float:
    """The threshold with the least attack_cost * FPR + live_cost * FNR.

    Moved by `midway`; of several the highest that none dominates.
    """
    thresholds, accepted, refused = error_counts(live, p_live)
    # Times both numbers: exact for whole costs. Other costs that are equal on paper differ in the last digits.
    cost = attack_cost * (accepted * int(live.sum())) + live_cost * (refused * int((~live).sum()))
    least = np.flatnonzero(cost <= cost.min() * (1 + 4 * np.finfo(np.float64).eps))
    return midway(p_live, float(thresholds[_highest(least, accepted)]))


def _closest(live: Bools, accepted: NDArray[np.int64], refused: NDArray[np.int64]) -> int:
    """The point of `error_counts` whose FPR and FNR are closest."""
    gap = np.abs(accepted * int(live.sum()) - refused * int((~live).sum()))
    return _highest(np.flatnonzero(gap == gap.min()), accepted)


def _highest(tied: NDArray[np.int64], accepted: NDArray[np.int64]) -> int:
    """Of equally good points, the one with the highest threshold.

    Unless a lower one accepts no more attacks: that one rejects fewer live people.
    """
    return int(tied[accepted[tied] == accepted[tied[0]]][-1])


def apcer_threshold(attack_type: NDArray[Any], live: Bools, p_live: Floats, target: float) -> float:
    """The lowest threshold at which no attack type has an APCER above `target`.

    So it has the least BPCER. Moved by `midway`. Where that takes refusing everything, it is above the highest score.
    """
    thresholds, _, _ = error_curves(live, p_live)
    within = _worst_apcer(attack_type, live, p_live, thresholds) <= target
    return midway(p_live, float(thresholds[within].min()))


def midway(p_live: Floats, threshold: float) -> float:
    """A threshold moved half-way to the next lower score, where errors stay the same.

    The middle of the gap is as far as can be from scores on both sides, so the threshold carries over to other data
    best. Infinity (refuse all) becomes the next number above all scores.
    """
    if not np.isfinite(threshold):
        return float(np.nextafter(p_live.max(), np.inf))
    # Scores below `threshold` are refused there; any threshold above the next lower score refuses the same.
    lower = p_live[p_live < threshold]
    if not len(lower):
        return threshold
    middle = float((threshold + lower.max()) / 2)
    return middle if middle > lower.max() else threshold  # next to each other: no number between


def apcer(attack_type: NDArray[Any], live: Bools, p_live: Floats, threshold: float) -> dict[str, float]:
    """APCER of each attack type: its share of presentations with p_live >= threshold. Empty without attacks."""
    attacks = ~live
    return {
        str(kind): float((p_live[attacks & (attack_type == kind)] >= threshold).mean())
        for kind in sorted(set(attack_type[attacks].tolist()))
    }


def bpcer(live: Bools, p_live: Floats, threshold: float) -> float | None:
    """BPCER: the share of live presentations with p_live < threshold; None without any."""
    return float((p_live[live] < threshold).mean()) if live.any() else None


def bpcer_at_apcer(attack_type: NDArray[Any], live: Bools, p_live: Floats, target: float) -> float:
    """The smallest BPCER at which the APCER of no attack type is above `target` (BPCER10 is that at 0.10)."""
    thresholds, _, fnr = error_curves(live, p_live)
    return float(fnr[_worst_apcer(attack_type, live, p_live, thresholds) <= target].min())


def tpr_at_fpr(live: Bools, p_live: Floats, target: float) -> float:
    """The largest TPR (live accepted) at an FPR (attacks accepted) of at most `target`.

    FPR is over all attack types together.
    """
    _, fpr, fnr = error_curves(live, p_live)
    return float(1 - fnr[fpr <= target].min())


def operating_threshold(scores: Scores, family: str, target: float) -> float:
    """Where "bpcer_at_apcer" or "tpr_at_fpr" of the scored rows is read: the lowest threshold within `target`."""
    live, p_live, kinds = _scored(scores)
    # An FPR is the APCER of all attacks as if of one type.
    types = kinds if family == "bpcer_at_apcer" else np.full(len(kinds), "", dtype=object)
    return apcer_threshold(types, live, p_live, target)


def at_threshold(scores: Scores, threshold: float) -> dict[str, Any]:
    """All rates of the scored rows at a threshold chosen elsewhere. A rate is None where its class is missing."""
    live, p_live, kinds = _scored(scores)
    by_type = apcer(kinds, live, p_live, threshold)
    worst = max(by_type.values()) if by_type else None
    refused = bpcer(live, p_live, threshold)
    pooled = float((p_live[~live] >= threshold).mean()) if (~live).any() else None
    return {
        "apcer": by_type,
        "apcer_max": worst,
        "apcer_pooled": pooled,
        "bpcer": refused,
        "hter": None if pooled is None or refused is None else (pooled + refused) / 2,
        "acer_legacy_max": None if worst is None or refused is None else (worst + refused) / 2,
        "acer_legacy_pooled": None if pooled is None or refused is None else (pooled + refused) / 2,
        "apcer_plus_bpcer": None if worst is None or refused is None else worst + refused,
        "with_failures": _with_failures(scores, worst, by_type, refused),
    }


def summary(scores: Scores) -> dict[str, float | None]:
    """Threshold-free figures of a split: AUC, EER, and HTER at its own EER threshold.

    None where a class is missing.
    """
    live, p_live, _ = _scored(scores)
    if live.all() or not live.any():
        return {"auc": None, "eer": None, "hter": None}
    own = at_threshold(scores, eer_threshold(live, p_live))
    return {"auc": auc(live, p_live), "eer": eer(live, p_live), "hter": own["hter"]}


def ranking(scores: Scores) -> dict[str, Any]:
    """AUC, the three readings of the EER, BPCER10/20/100 and TPR at FPR; None where a class is missing.

    A BPCER at an APCER of x is None where a type has fewer than 1/x attacks, a TPR at an FPR of x where all types have:
    one attack that passes would be more than x.
    """
    live, p_live, kinds = _scored(scores)
    if live.all() or not live.any():
        return dict.fromkeys(("auc", "eer", "eer_variants", "bpcer_at_apcer", "tpr_at_fpr"))
    variants = eer_variants(live, p_live)
    num_attack = int((~live).sum())
    fewest = min(np.unique(kinds[~live].astype(str), return_counts=True)[1].tolist())

    def enough(num: int, target: float) -> bool:
        return num >= round(1 / target)

    return {
        "auc": auc(live, p_live),
        "eer": variants["interpolated"],
        "eer_variants": variants,
        "bpcer_at_apcer": {
            f"{target:g}": bpcer_at_apcer(kinds, live, p_live, target) if enough(fewest, target) else None
            for target in BPCER_AT_APCER
        },
        "tpr_at_fpr": {
            f"{target:g}": tpr_at_fpr(live, p_live, target) if enough(num_attack, target) else None
            for target in TPR_AT_FPR
        },
    }


def failures(scores: Scores) -> dict[str, Any]:
    """Failures to acquire: number and share.

    Of all presentations, of the live (the standard's BPNRR), of all attacks, and of each attack type (APNRR).
    num_no_face: those that have no face and are left out for it (data.face_missing=skip).
    """
    failed = ~scores.scored
    kinds = sorted({str(kind) for kind in scores.attack_type[~scores.live]})
    return {
        "num": int(failed.sum()),
        "num_no_face": int((scores.status == NO_FACE).sum()),
        "rate": _share(failed),
        "rate_live": _share(failed[scores.live]),
        "rate_attack": _share(failed[~scores.live]),
        "rate_by_type": {kind: _share(failed[~scores.live & (scores.attack_type == kind)]) for kind in kinds},
    }


def _with_failures(
    scores: Scores, worst: float | None, by_type: dict[str, float], refused: float | None
) -> dict[str, float | None]:
    """Error rates over all presentations, with a failure to acquire as a rejection.

    The largest APCER falls, the BPCER rises. What the user of a whole system meets, beside the rates of the standard.
    """
    failed = failures(scores)
    apcers = [rate * (1 - failed["rate_by_type"][kind]) for kind, rate in by_type.items()]
    lost = failed["rate_live"]
    return {
        "apcer_max": None if worst is None else max(apcers),
        "bpcer": lost if refused is None else lost + (1 - lost) * refused,
    }


def _worst_apcer(attack_type: NDArray[Any], live: Bools, p_live: Floats, thresholds: Floats) -> Floats:
    """The largest APCER over attack types at each threshold."""
    worst = np.zeros(len(thresholds))
    for kind in set(attack_type[~live].tolist()):
        ordered = np.sort(p_live[~live & (attack_type == kind)])
        accepted = len(ordered) - np.searchsorted(ordered, thresholds, side="left")
        worst = np.maximum(worst, accepted / len(ordered))
    return worst


def _share(flags: Bools) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _scored(scores: Scores) -> tuple[Bools, Floats, NDArray[Any]]:
    rows = scores.scored
    return scores.live[rows], scores.p_live[rows], scores.attack_type[rows]


def _check(live: Bools, p_live: Floats) -> None:
    if np.isnan(p_live).any():
        raise ValueError("a score is NaN")
    if live.all() or not live.any():
        raise ValueError("error curves need live and attack presentations both")
