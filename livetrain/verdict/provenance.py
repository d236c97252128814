"""The provenance of a verdict: weights, videos, scores, code and scoring settings.

SHA-256 of the first three, and how often the test split was evaluated before.

    runs/mine/evaluations.jsonl      a line for each evaluation of the run's weights on a test split, wherever it went;
                                     one that is repeated, with the same scores, is no other look

An auditor who has the files can check each digest; without them, equal digests show that two verdicts are about the
same inputs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from livetrain.verdict.scores import Scores
from livetrain.verdict.threshold import digest

EVALUATED = "evaluations.jsonl"


def of(
    run_dir: Path,
    dev: Scores,
    test: Scores,
    *,
    weights: Mapping[str, str],
    scoring: Mapping[str, Any],
    precision: str,
    code: str | None,
    home: Path | None = None,
) -> dict[str, Any]:
    """The chain as verdict.json has it; counts this evaluation.

    run_dir: the folder that gets the verdict. weights: name → SHA-256 of each model that was scored.
    code: the commit, with "+changes" where the tree differed from it; None where it is not known. home: the folder of
    the run that was evaluated, which counts the evaluations of its weights (default: run_dir).
    """
    videos = {"dev": digest(dev), "test": digest(test)}
    made = {"dev": scores_digest(dev), "test": scores_digest(test)}
    return {
        "weights_sha256": dict(weights),
        "videos_sha256": videos,
        "scores_sha256": made,
        "scoring": dict(scoring),
        "precision": precision,
        "code": code,
        "test_evaluations": _count(home or run_dir, run_dir, videos["test"], made["test"]),
    }


def scores_digest(scores: Scores) -> str:
    """SHA-256 of each video's score, in any order.

    Of the lines "key,p_live,status" as the scores file has them, sorted. Times are not part of it: a run that is
    repeated to the bit has the same digest.
    """
    rows = zip(scores.key.tolist(), scores.p_live.tolist(), scores.status.tolist(), strict=True)
    lines = sorted(f"{key},{'' if p != p else repr(p)},{status}\n" for key, p, status in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _count(home: Path, run_dir: Path, videos: str, made: str) -> int:
    """Note these scores in the run's list, once; returns the place that they have among all of this test split."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / EVALUATED
    looks = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
            looks += [line["scores_sha256"]] if line["test_sha256"] == videos else []
        except (ValueError, KeyError, TypeError):
            continue  # a line that a kill cut
    if made in looks:
        return looks.index(made) + 1
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "folder": os.path.relpath(run_dir, home),
        "test_sha256": videos,
        "scores_sha256": made,
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return len(looks) + 1
