"""report.html: a run's verdict as one file that needs nothing else, for a browser, a phone, a printer, an auditor."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from livetrain.core import display_names
from livetrain.core.files import write_text
from livetrain.data.clip_pictures import Pictures
from livetrain.report import curve, plots, slider, summary_text
from livetrain.tracking.metrics_log import read_metrics
from livetrain.tracking.run_dir import RunDir
from livetrain.verdict import clip_metadata, robustness, scores
from livetrain.verdict.clip_metadata import Details
from livetrain.verdict.intervals import Settings
from livetrain.verdict.scores import Scores
from livetrain.verdict.slices import Slice, slices

SALIENCY = "saliency"  # a folder of the run directory, written by livetrain.inference.saliency
MAX_FAILURES_LISTED = 50
MAX_SLICES_LISTED = 60
MAX_PICTURES = 4  # of a worst clip

CAPTIONS = {
    "det": "DET: live people refused over attacks accepted, on normal-deviate (probit) axes",
    "roc": "ROC: live people accepted over attacks accepted",
    "histogram": "Scores of the test split, by kind of presentation",
    "reliability": "Reliability: share of live clips over p_live, ten bins of equally many clips, 95 % intervals",
    "training": "Training: loss and dev EER",
}


@dataclass
class Content:
    """What a report shows of a run; each figure is computed once, when it is first asked for.

    details: key → what is known of a test clip.
    """

    run: RunDir
    dev: Scores
    test: Scores
    verdict: dict[str, Any]
    details: Mapping[str, Details]

    @functools.cached_property
    def drawn(self) -> dict[str, Figure]:
        """Plots by name."""
        return plots.figures(self.dev, self.test, self.verdict, read_metrics(self.run.metrics))

    @functools.cached_property
    def slices(self) -> list[Slice]:
        """Slices of the test split."""
        how = Settings.of(self.verdict.get("intervals", {}))
        return slices(self.test, self.details, self.verdict["threshold"], how)

    @functools.cached_property
    def robustness(self) -> dict[str, Any] | None:
        """Figures under perturbations; None where they were not measured."""
        return robustness.read(self.run.robustness, self.verdict)


def read(run_dir: Path) -> Content:
    """Read scores/ and verdict.json of a run; robustness.json and metrics.jsonl may be missing or cut short.

    Raises UserError when scores or verdict are missing or damaged.
    """
    run = RunDir(run_dir)
    dev, test = (scores.read(run.scores(split)) for split in ("dev", "test"))
    details = clip_metadata.read(run.details("test"), test.key.tolist())
    return Content(run, dev, test, run.read_verdict(), details)


def write(run: Path | Content, *, pictures: Pictures | None = None, worst_clips: int = 16) -> Path:
    """Write report.html of a run, from its folder or from what `read` found there. Returns the path.

    pictures: key, frames → JPEG bytes of each (no frames: of the middle one), [] where there is none. What is missing
    but for scores and verdict is not on the page. Raises UserError as `read` does.
    """
    content = run if isinstance(run, Content) else read(run)
    verdict, test, threshold = content.verdict, content.test, content.verdict["threshold"]
    slid = slider.data(test, threshold) if test.scored.any() else None
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            name=content.run.path.name,
            verdict=verdict,
            sentence=summary_text.sentence(verdict, test).replace(" %", "\N{NO-BREAK SPACE}%"),
            notices=summary_text.notices(verdict, test),
            kinds=sorted({*verdict["dev"]["apcer"], *verdict["test"]["apcer"]}),
            figures=[(CAPTIONS[name], _png(content.drawn[name])) for name in CAPTIONS if name in content.drawn],
            slider=slid,
            page_slider={key: value for key, value in slid.items() if key != "kinds"} if slid else None,
            slices=content.slices,
            max_slices=MAX_SLICES_LISTED,
            robustness=content.robustness,
            clips=[_clip(item, content.details, threshold, pictures) for item in worst(test, threshold, worst_clips)],
            curve=curve,
            saliency=_saliency(content.run.path / SALIENCY),
            failed=[
                (split, part.row(i)) for split, part in (("dev", content.dev), ("test", test)) for i in _failed(part)
            ],
            max_failures=MAX_FAILURES_LISTED,
            chain=verdict.get("chain"),
            config=_text(content.run.config),
            environment=_text(content.run.environment),
        )
    )
    write_text(content.run.report, page)
    return content.run.report


def worst(split: Scores, threshold: float, num: int) -> list[dict[str, Any]]:
    """Rows of the `num` scored clips farthest from their label, |p_live - label|, worst first.

    Each is a row of the scores with `distance` and `wrong` (on the wrong side of `threshold`).
    """
    distance = np.where(split.scored, np.abs(split.p_live - split.label), -1.0)
    order = np.argsort(-distance, kind="stable")[: min(num, int(split.scored.sum()))]
    return [
        split.row(int(i))
        | {"distance": float(distance[i]), "wrong": bool((split.p_live[i] >= threshold) != split.live[i])}
        for i in order
    ]


def _clip(
    row: dict[str, Any], of: Mapping[str, Details], threshold: float, pictures: Pictures | None
) -> dict[str, Any]:
    item = of.get(row["key"], Details())
    frames = curve.shown_frames(item, MAX_PICTURES)
    found = pictures(row["key"], frames) if pictures else []
    message = [item.device and f"device {item.device}", item.session and f"session {item.session}"]
    if item.width and item.height:
        message.append(f"{item.width:g}x{item.height:g}")
    return row | {
        "pictures": [base64.b64encode(data).decode() for data in found],
        "curve": curve.drawing(item, threshold),
        "facts": [word for word in message if word],
    }


def _saliency(folder: Path) -> dict[str, Any] | None:
    """saliency.json with the pictures it names, or None: there is none, or it is not whole."""
    try:
        found = json.loads((folder / "saliency.json").read_text(encoding="utf-8"))
        for clip in found["clips"]:
            clip["picture"] = base64.b64encode((folder / clip["file"]).read_bytes()).decode()
    except (OSError, ValueError, KeyError):
        return None
    return found


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("livetrain.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["name"] = display_names.shown
    environment.filters["percent"] = lambda rate: "–" if rate is None else f"{100 * rate:.2f}\N{NO-BREAK SPACE}%"
    environment.filters["points"] = lambda rate: "–" if rate is None else f"{100 * rate:+.2f}"
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.4f}"
    return environment


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    return base64.b64encode(buffer.getvalue()).decode()


def _failed(part: Scores) -> list[int]:
    return np.flatnonzero(~part.scored).tolist()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
