"""Several models as one: the mean of their p_live, by weights fitted on dev and frozen.

    livetrain ensemble RUN RUN … --out DIR [--weights fitted|uniform]

Each RUN is a run directory with scores, or a checkpoint's folder, which is scored first. The weights are those with
the least log loss on dev that are at least 0 and sum to 1; the problem is convex, so there is one answer. Runs that
hold out different videos for dev (folds of one data set) are averaged evenly: each dev video is scored by the run that
did not learn from it. A video that one of the runs could not score counts as a failure to acquire.

DIR is read by `livetrain report` (scores/, verdict.json, config.yaml) and by `livetrain predict --checkpoint DIR`:
ensemble.json, with a package of each member whose weight is above 0.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livetrain.checkpoint import folders
from livetrain.config import Config, VerdictConfig
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import write_json
from livetrain.tracking.run_dir import RunDir
from livetrain.training import resume
from livetrain.verdict import scores, verdict
from livetrain.verdict.scores import OK, Scores

Floats = NDArray[np.float64]

EPSILON = 1e-7  # p_live is kept so far from 0 and 1 in the log loss
SMALL = 1e-4  # a weight below it is none


def fit_weights(p_live: Floats, live: NDArray[np.bool_]) -> Floats:
    """Weights [m] on the simplex with the least mean log loss of `weights @ p_live`; p_live [m,n], live bool [n].

    Starts at equal weights. Weights below SMALL become 0.
    """
    from scipy.optimize import minimize

    members = len(p_live)
    clipped = np.clip(p_live, EPSILON, 1 - EPSILON)

    def loss(weights: Floats) -> tuple[float, Floats]:
        p = np.clip(weights @ clipped, EPSILON, 1 - EPSILON)
        slope = np.where(live, -1 / p, 1 / (1 - p)) / len(live)
        return float(-np.where(live, np.log(p), np.log(1 - p)).mean()), clipped @ slope

    found = minimize(
        loss,
        np.full(members, 1 / members),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(members)},
        options={"maxiter": 500, "ftol": 1e-10},
    )
    weights = np.where(found.x < SMALL, 0, found.x)
    return np.asarray(weights / weights.sum(), np.float64)


def combine(members: Sequence[Scores], weights: Floats) -> Scores:
    """The ensemble's scores of the videos that all `members` have rows of. `seconds` add up."""
    rows = []
    lookup = [dict(zip(one.key.tolist(), range(len(one)), strict=True)) for one in members]
    used = [number for number, weight in enumerate(weights) if weight]
    for index, key in enumerate(members[0].key.tolist()):
        all_rows = [members[number].row(lookup[number][key]) for number in used]
        good = all(row["status"] == OK for row in all_rows)
        # Weights sum to 1 but for rounding; the mean of scores is a score.
        p = np.clip(weights[used] @ [row["p_live"] for row in all_rows], 0, 1) if good else None
        seconds = sum(row["seconds"] for row in all_rows)
        frames = max(row["num_frames"] for row in all_rows)
        rows.append(
            members[0].row(index)
            | {"p_live": p, "status": _status(all_rows), "seconds": seconds, "num_frames": frames if good else 0}
        )
    return Scores.from_rows(rows)


def _status(rows: Sequence[dict[str, object]]) -> str:
    """Of a video that several have scored: the first failure, if any."""
    return next((str(row["status"]) for row in rows if row["status"] != OK), OK)


def dev_and_weights(names: Sequence[str], devs: Sequence[Scores], how: str) -> tuple[Scores, Floats]:
    """(the ensemble's dev scores, weights), see the module. Raises UserError when dev splits overlap in part."""
    uniform = np.full(len(devs), 1 / len(devs))
    keys = [set(one.key.tolist()) for one in devs]
    if all(some == keys[0] for some in keys):
        weights = uniform
        if how == "fitted":
            order = [dict(zip(one.key.tolist(), one.p_live.tolist(), strict=True)) for one in devs]
            p_live = np.array([[column[key] for key in devs[0].key] for column in order])
            good = ~np.isnan(p_live).any(axis=0)
            if len(set(devs[0].live[good].tolist())) < 2:
                raise UserError(f"{names[0]}: the scored dev videos are of one class; fitting weights needs both")
            weights = fit_weights(p_live[:, good], devs[0].live[good])
        return combine(devs, weights), weights
    if sum(len(some) for some in keys) == len(set().union(*keys)):
        rows = [one.row(index) for one in devs for index in range(len(one))]
        return Scores.from_rows(rows), uniform
    other = next(name for name, some in zip(names, keys, strict=True) if some != keys[0])
    raise UserError(
        f"{names[0]} and {other} have different dev videos that overlap: weights cannot be fitted; evaluate both on "
        "the same shards (livetrain evaluate RUN data.shards=DIR), or give runs of separate folds"
    )


def build(sources: Sequence[Path], out: Path, how: str = "fitted") -> dict[str, float]:
    """Write the ensemble `out`; returns member → weight. Raises UserError."""
    from livetrain.evaluation.finish import finish
    from livetrain.inference import package
    from livetrain.inference.predictor import ENSEMBLE

    if len(sources) < 2:
        raise UserError("an ensemble needs two runs or more: livetrain ensemble RUN RUN … --out DIR")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: holds something already; choose a new folder, or remove it first")
    names = [str(source) for source in sources]
    devs, tests = zip(*(scored(source) for source in sources), strict=True)
    for name, test in zip(names, tests, strict=True):
        if set(test.key.tolist()) != set(tests[0].key.tolist()):
            raise UserError(f"{names[0]} and {name} have different test videos; evaluate both on the same shards")
    dev, weights = dev_and_weights(names, devs, how)
    test = combine(tests, weights)
    config = package.load(sources[0]).config
    digests = {name: package.weights_sha256(source) for name, source in zip(names, sources, strict=True)}
    judged = dataclasses.replace(config, verdict=verdict_settings(sources))
    figures = finish(RunDir(out), judged, dev, test, None, weights=digests, notices=notices(sources))
    members = []
    for number, (source, weight) in enumerate(zip(sources, weights.tolist(), strict=True)):
        if weight:
            folder = Path("members") / f"{number:02d}"
            package.write(package.load(source), out / folder)
            members.append({"path": str(folder), "weight": weight, "from": str(source)})
    _write_config(config, out)
    content = {
        "format": 1, "members": members, "threshold": figures["threshold"], "weights": how, "sources": names,
        "sources_sha256": digests,
    }  # fmt: skip
    write_json(out / ENSEMBLE, content)
    return dict(zip(names, weights.tolist(), strict=True))


def verdict_settings(sources: Sequence[Path]) -> VerdictConfig:
    """The members' settings `verdict.*`. Raises UserError where they differ: one threshold has one criterion."""
    from livetrain.inference import package

    found = [package.read_config(source).verdict for source in sources]
    for source, other in zip(sources[1:], found[1:], strict=True):
        if other != found[0]:
            name = next(
                f.name for f in dataclasses.fields(other) if getattr(other, f.name) != getattr(found[0], f.name)
            )
            raise UserError(
                f"{sources[0]} and {source} have different verdict.{name} ({getattr(found[0], name)} and "
                f"{getattr(other, name)}); run `livetrain evaluate RUN verdict.{name}=…` so that they agree"
            )
    return found[0]


def notices(sources: Sequence[Path]) -> list[str]:
    """What the verdicts of the members begin with (a leak that was allowed): it holds for the ensemble too."""
    found: dict[str, None] = {}
    for path in (RunDir(source).verdict for source in sources):
        if path.exists():
            found |= dict.fromkeys(json.loads(path.read_text(encoding="utf-8")).get("notices", []))
    return list(found)


def scored(source: Path) -> tuple[Scores, Scores]:
    """(dev, test) scores of a run as it wrote them, or of a checkpoint, made now. Raises UserError."""
    from livetrain.inference import package

    if not (source / folders.MANIFEST).exists():
        dev, test = (scores.read(RunDir(source).scores(split)) for split in ("dev", "test"))
        return dev, test
    from accelerate import Accelerator

    from livetrain.evaluation.evaluator import evaluate
    from livetrain.evaluation.scoring import mixed_precision

    trained = package.load(source)
    config = trained.config
    accelerator = Accelerator(mixed_precision=mixed_precision(config))
    dataset = package.open_shards(config, source)
    package.check_faces(trained, dataset)
    model = trained.model.to(accelerator.device)
    dev, test = (
        evaluate(accelerator, config, dataset, split, model).scores
        for split in (config.data.dev_split, config.data.test_split)
    )
    return dev, test


def _write_config(first: Config, out: Path) -> None:
    """The first member's configuration, so that `livetrain report` finds the videos."""
    resume.write_config(dataclasses.replace(first, run_dir=str(out), name=out.name))


def parser() -> Parser:
    """The command line of `livetrain ensemble`."""
    parser = Parser("ensemble", __doc__)
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", choices=("fitted", "uniform"), default="fitted")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    options = parser().parse(arguments)
    weights = build(options.sources, options.out, options.weights)
    for name, weight in weights.items():
        print(f"{weight:.4f}  {name}")
    print(verdict.format_text(json.loads(RunDir(options.out).verdict.read_text(encoding="utf-8"))))
    print(options.out, flush=True)
    return 0
