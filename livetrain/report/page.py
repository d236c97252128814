"""report.html: a run's verdict as one file that needs nothing else, for a browser, a phone, a printer, an auditor."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from livetrain.core.errors import UserError
from livetrain.core.files import write_text
from livetrain.data.pictures import Pictures
from livetrain.report import curve, plots, slider, summary_text
from livetrain.tracking.run_dir import RunDir
from livetrain.verdict import clip_metadata, display_names, robustness, scores
from livetrain.verdict.clip_metadata import Details
from livetrain.verdict.intervals import Settings
from livetrain.verdict.scores import FAILED, Scores
from livetrain.verdict.slices import slices

FILE_NAME = "report.html"
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


def write(run_dir: Path, *, pictures: Pictures | None = None, worst_clips: int = 16) -> Path:
    """Write run_dir/report.html from scores/, verdict.json, robustness.json, saliency/, metrics.jsonl, config.yaml and
    environment.json.

    pictures: key, frames → JPEG bytes of each (no frames: of the middle one), [] where there is none. All but scores
    and verdict may be missing or cut short: their part of the page is then left out. Raises UserError when scores or
    verdict are missing or damaged. Returns the path.
    """
    dev, test = (scores.read(RunDir(run_dir).scores(split)) for split in ("dev", "test"))
    try:
        verdict = json.loads(RunDir(run_dir).verdict.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{run_dir / 'verdict.json'}: {error}; `livetrain evaluate {run_dir}` writes it") from None
    of = clip_metadata.read(RunDir(run_dir).details("test"), test.key.tolist())
    drawn = plots.figures(dev, test, verdict, _records(RunDir(run_dir).metrics))
    threshold = verdict["threshold"]
    slid = slider.data(test, threshold) if test.scored.any() else None
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            name=run_dir.name,
            verdict=verdict,
            sentence=summary_text.sentence(verdict, test).replace(" %", "\N{NO-BREAK SPACE}%"),
            notices=summary_text.notices(verdict, test),
            kinds=sorted({*verdict["dev"]["apcer"], *verdict["test"]["apcer"]}),
            figures=[(CAPTIONS[name], _png(drawn[name])) for name in CAPTIONS if name in drawn],
            slider=slid,
            page_slider={key: value for key, value in slid.items() if key != "kinds"} if slid else None,
            slices=slices(test, of, threshold, Settings.of(verdict.get("intervals", {}))),
            max_slices=MAX_SLICES_LISTED,
            robustness=robustness.read(run_dir, verdict),
            clips=[_clip(item, of, threshold, pictures) for item in worst(test, threshold, worst_clips)],
            curve=curve,
            saliency=_saliency(run_dir / SALIENCY),
            failed=[(split, part.row(i)) for split, part in (("dev", dev), ("test", test)) for i in _failed(part)],
            max_failures=MAX_FAILURES_LISTED,
            chain=verdict.get("chain"),
            config=_text(RunDir(run_dir).config),
            environment=_text(RunDir(run_dir).environment),
        )
    )
    write_text(run_dir / FILE_NAME, page)
    return run_dir / FILE_NAME


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
    told = [item.device and f"device {item.device}", item.session and f"session {item.session}"]
    if item.width and item.height:
        told.append(f"{item.width:g}x{item.height:g}")
    return row | {
        "pictures": [base64.b64encode(data).decode() for data in found],
        "curve": curve.drawing(item, threshold),
        "told": [word for word in told if word],
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
    return np.flatnonzero(part.status == FAILED).tolist()


def _records(path: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl that are whole; a run killed early leaves none, or a torn one."""
    records = []
    for line in _text(path).splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "kind" in record and "step" in record:
            records.append(record)
    return records


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
