"""audit.json and audit.csv: the findings for programs, and for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.audit import copies as copying
from shards.audit.clips import Clips
from shards.audit.findings import Findings, counts, splits, summary, where

FORMAT = 1
OF_CLIP = ("folder", "video", "kind", "subject", "split")
COLUMNS = ("finding", "detail", "value", *OF_CLIP, *(f"other_{name}" for name in OF_CLIP))
SHARES = (0.0, 0.05, 0.5, 0.95, 1.0)  # quantiles of a table


def as_json(findings: Findings) -> str:
    """All findings, as JSON."""
    clips = findings.clips
    content = {
        "format": FORMAT,
        "folders": [str(folder) for folder in clips.folders],
        "builds": [content["files"] for content in clips.contents],
        "num_clips": len(clips),
        "summary": summary(findings),
        "copies": {
            "num_pairs_compared": findings.num_compared,
            "counts": [{"where": name, "same_file": a, "same_recording": b} for name, a, b in counts(findings)],
            "pairs": [
                {"where": where(clips, pair), "kind": pair.kind, "how": pair.how}
                | {"clips": [of_clip(clips, row) for row in (pair.first, pair.second)]}
                for pair in findings.copies
            ],
            "groups": [[clips.name(row) for row in rows] for rows in copying.groups(findings.copies)],
        },
        "same_person": {
            "not_measurable": findings.same_person.reason or None,
            "pairs": [
                {
                    "first": pair.first_name, "second": pair.second_name, "distance": round(pair.distance, 4),
                    "likelihood": round(pair.likelihood, 3), "across": splits(clips, pair.first, pair.second),
                    "clips": [of_clip(clips, row) for row in (pair.first, pair.second)],
                }
                for pair in findings.same_person.pairs
            ],
        },
        "shortcuts": [
            {
                "cue": probe.cue, "auc": probe.auc, "low": probe.low, "high": probe.high,
                "flagged": probe.flagged, "goes_with": probe.goes_with or None,
                "num_units": probe.num_people, "unit": probe.unit, "not_measurable": probe.reason or None,
            }
            for probe in findings.probes
        ],
        "outliers": {kind: [clips.name(row) for row in rows] for kind, rows in findings.outliers.items()},
        "tables": tables(findings),
    }  # fmt: skip
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(findings: Findings) -> str:
    """A line for each pair of copies, each two who may be one person, each cue, each outlier."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_lines(findings))
    return out.getvalue()


def of_clip(clips: Clips, row: int) -> dict[str, str]:
    """What OF_CLIP names, of a clip."""
    words = {name: str(clips.words[name][row]) for name in ("video", "subject", "split")}
    return {"folder": str(clips.folders[clips.folder[row]]), "kind": str(clips.kinds[row]), **words}


def _lines(findings: Findings) -> Iterator[dict[str, Any]]:
    clips = findings.clips

    def both(first: int, second: int) -> dict[str, str]:
        other = of_clip(clips, second)
        return of_clip(clips, first) | {f"other_{name}": other[name] for name in OF_CLIP}

    for pair in findings.copies:
        detail = ", ".join(word for word in (pair.kind, pair.how) if word)
        yield {"finding": f"copy: {where(clips, pair)}", "detail": detail, **both(pair.first, pair.second)}
    for same in findings.same_person.pairs:
        value = f"{same.likelihood:.3f}"
        detail = f"faces {same.distance:.3f} apart"
        yield {"finding": "same person", "detail": detail, "value": value, **both(same.first, same.second)}
    for probe in findings.probes:
        if probe.auc is not None:
            mark = "flagged" if probe.flagged else f"goes with {probe.goes_with}" if probe.goes_with else ""
            name = f"{probe.cue} ({mark})" if mark else probe.cue
            detail = f"{name}: AUC, 95 % [{probe.low:.3f}, {probe.high:.3f}]"
            yield {"finding": "shortcut", "detail": detail, "value": f"{probe.auc:.4f}"}
        else:
            yield {"finding": "shortcut", "detail": f"{probe.cue}: {probe.reason}"}
    for kind, rows in findings.outliers.items():
        for row in rows:
            yield {"finding": "outlier", "detail": kind, **of_clip(clips, row)}


def tables(findings: Findings) -> dict[str, list[dict[str, Any]]]:
    """Lengths, sizes, frame rates and heights of faces, a line for live clips and each attack type: SHARES of each."""
    numbers = findings.clips.numbers
    columns = {
        "seconds": numbers["duration_seconds"],
        "short side, pixels": np.minimum(numbers["width"], numbers["height"]),
        "frames a second": numbers["fps"],
        "face, share of the height": findings.face_heights,
    }
    return {name: _of_kinds(findings.clips, values) for name, values in columns.items()}


def _of_kinds(clips: Clips, values: NDArray[np.float64]) -> list[dict[str, Any]]:
    kinds = clips.kinds
    lines = []
    for kind in sorted(set(kinds), key=lambda kind: (kind != "live", kind)):
        known = values[(kinds == kind) & ~np.isnan(values)]
        if len(known):
            quantiles = [round(float(value), 3) for value in np.quantile(known, SHARES)]
            lines.append({"kind": kind or "unlabelled", "num_clips": len(known), "quantiles": quantiles})
    return lines
