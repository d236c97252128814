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
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.core.machine import num_cores
from livetrain.core.world import World
from livetrain.data import Loader, VideoFiles, face_tracks, files_loader
from livetrain.data.isolated_decode import Workers
from livetrain.data.plan import evaluation_batch_size
from livetrain.evaluation.scoring import autocast, precision, rendered, score_clips
from livetrain.inference.package import Trained, load, packaged_config, read_config
from livetrain.verdict.scores import FAILED, OK
from livetrain.verdict.scores import NO_FACE as NO_FACE_STATUS
from livetrain.verdict.threshold import scoring_of
from shards.faces.find import NO_FACE, FaceOptions

ENSEMBLE = "ensemble.json"


@dataclass(frozen=True)
class Prediction:
    """What is said of one video.

    p_live: probability of a live person, None when the video could not be scored (`status` failed_to_acquire or
    no_face, `reason` says why). live: p_live at or above the threshold; False when there is no score, None when there
    is no threshold. seconds: this video's share of the wall time of its batch, reading and decoding included.
    """

    video: str
    p_live: float | None
    live: bool | None
    threshold: float | None
    num_frames: int
    seconds: float
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Member:
    """A model of the ensemble, and its weight in the mean of p_live."""

    trained: Trained
    weight: float


class Predictor:
    """One model, or several whose p_live is averaged by weight. Not for several threads at once."""

    def __init__(
        self, members: Sequence[Member], threshold: float | None, device: str | torch.device | None = None
    ) -> None:
        """`device`: None takes CUDA where there is one."""
        assert members, "a predictor needs a model"
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.threshold = threshold
        self._workers: Workers | None = None
        self.groups = _groups(members)
        self._faces = face_options(members)
        self._needs_face = any(member.trained.config.data.face_missing != "whole" for member in members)
        self.batch_size = min(evaluation_batch_size(member.trained.config) for member in members)
        self.failed_score = members[0].trained.config.predict.failed_score
        for member in members:
            member.trained.model.to(self.device)

    @overload
    def predict(self, video: str | Path) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, video: Sequence[str | Path]) -> list[Prediction]: ...
    def predict(self, video: str | Path | Sequence[str | Path]) -> Prediction | list[Prediction]:
        """Score a video file, or several. A file that cannot be decoded is a Prediction with its reason, no error."""
        if isinstance(video, str | Path):
            return self.predict([video])[0]
        files = self.files([Path(item) for item in video])
        rows, size = np.arange(len(files)), min(len(files), self.batch_size)
        batches = self.score(files, rows, batch_size=size) if size else []
        return [prediction for batch in batches for prediction in batch]

    def score(
        self, files: VideoFiles, rows: NDArray[np.int64], *, batch_size: int, local_size: int = 1
    ) -> Iterator[list[Prediction]]:
        """Predictions of the files `rows`, in order, `batch_size` at a time; `local_size`: processes here."""
        config = self.groups[0][0].trained.config
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
                        self._prediction(files, row, total[i] if good[i] else None, reasons, config, seconds)
                        for i, row in enumerate(here)
                    ]

    def files(self, paths: Sequence[Path], local_size: int = 1) -> VideoFiles:
        """Files for `score`, of `local_size` predictors on this machine."""
        needs_face = self._faces is not None and self._needs_face
        return VideoFiles(paths, self.workers(local_size), self._faces, needs_face=needs_face)

    def workers(self, local_size: int = 1) -> Workers:
        """The processes that probe and decode, of `local_size` predictors on this machine; one pool for all calls."""
        if self._workers is None:
            config = self.groups[0][0].trained.config
            self._workers = Workers(config.data.threads or max(1, num_cores() // local_size))
        return self._workers

    def identity(self) -> str:
        """What decides the scores: weights, configuration, shares; a change of it is a change of this text."""
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

    def _prediction(
        self,
        files: VideoFiles,
        row: int,
        p: float | None,
        reasons: dict[str, str],
        config: Config,
        seconds: float,
    ) -> Prediction:
        name, threshold = str(files.paths[row]), self.threshold
        if p is None:
            reason = files.reasons.get(row) or reasons.get(name, "")
            status = NO_FACE_STATUS if reason == NO_FACE else FAILED
            return Prediction(name, None, None if threshold is None else False, threshold, 0, seconds, status, reason)
        if not math.isfinite(p):
            reason = "the model's score is NaN or Inf"
            return Prediction(name, None, None if threshold is None else False, threshold, 0, seconds, FAILED, reason)
        p = min(1.0, max(0.0, p))  # weights that sum to 1 but for rounding
        live = None if threshold is None else bool(p >= threshold)
        num_frames = config.eval.num_frames or int(files.column("num_frames")[row])
        return Prediction(name, float(p), live, threshold, num_frames, seconds, OK)


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


def face_options(members: Sequence[Member]) -> FaceOptions | None:
    """How the members' faces are found; None where they see whole frames.

    Raises UserError where they cannot be found in that way here.
    """
    about: dict[str, Any] | None = None
    for member in members:
        trained = member.trained
        if trained.config.data.crop != "face":
            continue
        known = trained.facts.get("faces")
        if known is None:
            raise UserError(f"{trained.path} sees faces, and does not say how they were found; make the package again")
        if about is not None:
            face_tracks.check_same(known, about, f"the faces of {trained.path}", "another model of the ensemble")
        about = known
    if about is None:
        return None
    options = FaceOptions.of(about)
    if options.about() != about:
        raise UserError(
            f"{members[0].trained.path} was trained on faces found by {about['detector']}; here is "
            f"{options.about()['detector']}, whose boxes are others: install that version"
        )
    return options


def _groups(members: Sequence[Member]) -> list[list[Member]]:
    """The members, those together that see the same clips, so that these are decoded once."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        config, model = member.trained.config, member.trained.model
        shown = [config.data, config.eval, model.mean, model.std, precision(config) == "fp32"]
        groups.setdefault(repr(shown), []).append(member)
    return list(groups.values())
