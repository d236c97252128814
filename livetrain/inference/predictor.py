"""Scores of raw videos in Python.

    from livetrain import load_model
    model = load_model("runs/mine")          # or a model package, a checkpoint's folder, an ensemble
    model.predict("video.mp4")               # Prediction(p_live=0.98, live=True, …); a list for a list of files

The way from file to score is that of evaluation on shards: the same frames, pixels and arithmetic.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from livetrain.core.world import World
from livetrain.data import Loader, VideoFiles, files_loader
from livetrain.data.clip_plan import evaluation_batch_size
from livetrain.evaluation.scoring import autocast, precision, rendered, score_clips
from livetrain.inference.package import Trained, load, packaged_config, read_config
from livetrain.inference.video_scorer import Prediction, VideoScorer
from livetrain.verdict.threshold import scoring_of

ENSEMBLE = "ensemble.json"


@dataclass(frozen=True)
class Member:
    """A model of the ensemble, and its weight in the mean of p_live."""

    trained: Trained
    weight: float


class Predictor(VideoScorer):
    """One model, or several whose p_live is averaged by weight. Not for several threads at once."""

    def __init__(
        self, members: Sequence[Member], threshold: float | None, device: str | torch.device | None = None
    ) -> None:
        """`device`: None takes CUDA where there is one."""
        assert members, "a predictor needs a model"
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        batch_size = min(evaluation_batch_size(member.trained.config) for member in members)
        super().__init__([member.trained for member in members], threshold, batch_size)
        self.groups = _groups(members)
        for member in members:
            member.trained.model.to(self.device)

    def score(
        self, files: VideoFiles, rows: NDArray[np.int64], *, batch_size: int, local_size: int = 1
    ) -> Iterator[list[Prediction]]:
        """See VideoScorer."""
        with contextlib.ExitStack() as stack:
            loaders = [
                stack.enter_context(self._loader(group, files, rows, batch_size, local_size)) for group in self.groups
            ]
            started = time.perf_counter()
            with torch.inference_mode():
                for batches in zip(*loaders, strict=True):
                    total = np.zeros(len(batches[0].rows))
                    for group, batch in zip(self.groups, batches, strict=True):
                        for member in group:
                            with autocast(member.trained.config, self.device):
                                p = score_clips(member.trained.model, batch.clips, member.trained.config)
                            total += member.weight * p.double().cpu().numpy()
                    here = rows[batches[0].step * batch_size :][:batch_size].tolist()
                    good = np.logical_and.reduce([batch.valid.cpu().numpy() for batch in batches])
                    reasons = {failure.key: failure.reason for batch in batches for failure in batch.failures}
                    seconds = (time.perf_counter() - started) / len(here)
                    started = time.perf_counter()
                    yield [
                        self.prediction(
                            files, row, total[i] if good[i] else None, reasons.get(str(files.paths[row]), ""), seconds
                        )
                        for i, row in enumerate(here)
                    ]

    def identity(self) -> str:
        """See VideoScorer."""
        parts = []
        for group in self.groups:
            for member in group:
                digest = hashlib.sha256()
                for name, tensor in sorted(member.trained.model.state_dict().items()):
                    digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
                shown = packaged_config(member.trained.config)
                parts.append(f"{digest.hexdigest()} {member.weight!r} {shown!r}")
        return f"{parts!r} {self.threshold!r}"

    def _loader(
        self, group: list[Member], files: VideoFiles, rows: NDArray[np.int64], batch_size: int, local_size: int
    ) -> Loader:
        trained = group[0].trained
        return files_loader(
            files,
            rendered(trained.config),
            rows,
            batch_size=batch_size,
            world=World(self.device, local_size=local_size),
            mean=trained.model.mean,
            std=trained.model.std,
        )


def load_model(path: str | Path, *overrides: str, device: str | torch.device | None = None) -> Predictor:
    """A predictor from a model package, a run directory, a checkpoint's folder, or an ensemble's folder.

    `overrides`: `key=value` of the configuration, as eval.num_frames=16. Raises UserError.
    """
    folder = Path(path)
    if not (folder / ENSEMBLE).exists():
        trained = load(folder, overrides)
        return Predictor([Member(trained, 1.0)], trained.threshold, device)
    try:
        content = json.loads((folder / ENSEMBLE).read_text(encoding="utf-8"))
        wanted = [(folder / item["path"], float(item["weight"])) for item in content["members"]]
        threshold = content["threshold"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / ENSEMBLE} cannot be read ({type(error).__name__}: {error})") from None
    members = [Member(load(item, overrides), weight) for item, weight in wanted if weight]
    if any(scoring_of(member.trained.config) != scoring_of(read_config(member.trained.path)) for member in members):
        threshold = None  # `load` has warned: it was chosen on scores made in another way
    return Predictor(members, threshold, device)


def _groups(members: Sequence[Member]) -> list[list[Member]]:
    """The members, those together that see the same clips, so that these are decoded once."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        config, model = member.trained.config, member.trained.model
        shown = [config.data, config.eval, model.mean, model.std, precision(config) == "fp32"]
        groups.setdefault(repr(shown), []).append(member)
    return list(groups.values())
