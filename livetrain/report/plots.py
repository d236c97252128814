"""Figures of a run, as matplotlib objects: the report embeds them, W&B gets the same."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FixedLocator, FuncFormatter

from livetrain.core import display_names
from livetrain.verdict import metrics
from livetrain.verdict.intervals import clopper_pearson
from livetrain.verdict.scores import Scores

# Okabe and Ito's palette: distinguished by all common kinds of colour vision.
LIVE_COLOR, DEV_COLOR, TEST_COLOR = "#009E73", "#E69F00", "#0072B2"
ATTACK_COLORS = ("#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#8B4513", "#777777")
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "Hiragino Sans",
    "SimHei",
)
MAX_LABEL = 32
DET_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)


def figures(dev: Scores, test: Scores, verdict: dict[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """All figures that the data allow, by name: roc, det, histogram, reliability, training."""
    splits = {name: scores for name, scores in (("dev", dev), ("test", test)) if _both_classes(scores)}
    drawn = {}
    if splits:
        drawn = {"roc": roc(splits), "det": det(splits)}
    if test.scored.any():
        drawn["histogram"] = histogram(test, verdict["threshold"])
        drawn["reliability"] = reliability(test)
    if any(record.get("loss") is not None for record in records):
        drawn["training"] = training_curves(records)
    return drawn


def roc(splits: dict[str, Scores]) -> Figure:
    """Share of live people accepted over share of attacks accepted, a line a split."""
    figure, axes = _figure("attacks accepted (FPR)", "live accepted (1 - FNR)")
    for name, fpr, fnr in _curves(splits):
        axes.plot(fpr, 1 - fnr, color=_color(name), label=name)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(loc="lower right", frameon=False)
    return figure


def det(splits: dict[str, Scores]) -> Figure:
    """Detection error trade-off on normal-deviate axes (Martin et al., 1997); rates of 0 and 1 are at the edge."""
    figure, axes = _figure("attacks accepted (FPR)", "live refused (FNR)")
    normal, edge = NormalDist(), DET_TICKS[0] / 2
    low, high = normal.inv_cdf(edge), normal.inv_cdf(1 - edge)
    for name, fpr, fnr in _curves(splits):
        x, y = ([normal.inv_cdf(value) for value in np.clip(rate, edge, 1 - edge)] for rate in (fpr, fnr))
        axes.plot(x, y, color=_color(name), label=name, drawstyle="steps-post")
    axes.plot([low, high], [low, high], color="#999999", linewidth=0.8, linestyle=":")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([normal.inv_cdf(tick) for tick in DET_TICKS]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * normal.cdf(value):.3g} %"))
    axes.tick_params(axis="x", labelrotation=40)
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.legend(loc="upper right", frameon=False)
    return figure


def histogram(scores: Scores, threshold: float) -> Figure:
    """How many clips have which score, by kind, and the threshold."""
    figure, axes = _figure("p_live", "clips")
    rows = scores.scored
    kinds = sorted(set(scores.attack_type[rows & ~scores.live].tolist()))
    parts = {"live": rows & scores.live, **{kind: rows & ~scores.live & (scores.attack_type == kind) for kind in kinds}}
    colors = [LIVE_COLOR, *(ATTACK_COLORS[i % len(ATTACK_COLORS)] for i in range(len(kinds)))]
    axes.hist(
        [scores.p_live[part] for part in parts.values()],
        bins=np.linspace(0, 1, 41).tolist(),
        stacked=True,
        color=colors,
        label=[legible(name) for name in parts],
    )
    axes.axvline(threshold, color="black", linewidth=1, linestyle="--", label=f"threshold {threshold:.3f}")
    axes.set_xlim(0, 1)
    axes.legend(frameon=False, prop=FontProperties(family=_families()))
    return figure


def legible(name: str) -> str:
    """A name as matplotlib draws it literally.

    No formula between `$`, no hidden entry for a leading `_`, and U+4E2D instead of a character that no font here has.
    """
    known = _characters(tuple(_families()))
    text = "".join(c if ord(c) in known else f" U+{ord(c):04X}" for c in display_names.shown(name, MAX_LABEL))
    return f" {text}".replace("$", r"\$") if text.startswith("_") else text.replace("$", r"\$")


@functools.cache
def _families() -> list[str]:
    """The default font, and those that are here of some that have Chinese, Japanese and Korean."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in CJK_FONTS if name in installed)]


@functools.cache
def _characters(families: tuple[str, ...]) -> frozenset[int]:
    """Code points that one of the fonts has."""
    files = [font_manager.findfont(FontProperties(family=family)) for family in families]
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())


def reliability(scores: Scores, num_bins: int = 10) -> Figure:
    """Share of live clips over p_live, in bins of equally many clips.

    With 95 % intervals (Clopper and Pearson, clips as independent). On the diagonal p_live is a probability, for live
    and attack as frequent as in this split.
    """
    figure, axes = _figure("p_live, mean of a bin", "live clips in the bin")
    order = np.argsort(scores.p_live[scores.scored], kind="stable")
    p_live, live = scores.p_live[scores.scored][order], scores.live[scores.scored][order]
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    for part in np.array_split(np.arange(len(order)), min(num_bins, len(order))):
        share, (low, high) = live[part].mean(), clopper_pearson(int(live[part].sum()), len(part), 0.95)
        x = p_live[part].mean()
        axes.plot([x, x], [low, high], color=TEST_COLOR, linewidth=1.2)
        axes.plot([x], [share], "o", color=TEST_COLOR, markersize=5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return figure


def training_curves(records: Sequence[dict[str, Any]]) -> Figure:
    """Loss of training and dev, and EER of dev and of shifted dev, over updates."""
    figure, axes = _figure("updates", "loss")
    for kind, color, style in (("train", TEST_COLOR, "-"), ("dev", DEV_COLOR, "o-")):
        points = [(r["step"], r["loss"]) for r in records if r["kind"] == kind and r.get("loss") is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=color, markersize=3, label=f"{kind} loss")
    handles = axes.get_legend_handles_labels()
    named = {"dev": ("dev EER", "s--"), "shifted": ("shifted dev EER", "^:")}
    of = {
        kind: [(r["step"], 100 * r["eer"]) for r in records if r["kind"] == kind and r.get("eer") is not None]
        for kind in named
    }
    if any(of.values()):
        right = axes.twinx()
        for kind, points in of.items():
            if points:
                label, style = named[kind]
                right.plot(*zip(*points, strict=True), style, color="#CC79A7", markersize=3, label=label)
        right.set_ylabel("EER, %")
        right.set_ylim(bottom=0)
        right.spines["top"].set_visible(False)
        handles = tuple(a + b for a, b in zip(handles, right.get_legend_handles_labels(), strict=True))  # type: ignore[assignment]
    axes.set_ylim(bottom=0)
    axes.legend(*handles, frameon=False)
    return figure


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _curves(splits: dict[str, Scores]) -> list[tuple[str, Any, Any]]:
    curves = []
    for name, scores in splits.items():
        _, fpr, fnr = metrics.error_curves(scores.live[scores.scored], scores.p_live[scores.scored])
        curves.append((name, fpr, fnr))
    return curves


def _color(split: str) -> str:
    return DEV_COLOR if split == "dev" else TEST_COLOR


def _both_classes(scores: Scores) -> bool:
    live = scores.live[scores.scored]
    return bool(live.any() and not live.all())
