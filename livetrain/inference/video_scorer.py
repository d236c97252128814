"""What says of raw videos whether they are live: the part that all kinds of models share, without torch and DALI."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.core.machine import num_cores
from livetrain.data import VideoFiles, face_tracks
from livetrain.data.isolated_decode import Workers
from livetrain.verdict.scores import FAILED, OK
from livetrain.verdict.scores import NO_FACE as NO_FACE_STATUS
from shards.faces.find import NO_FACE, FaceOptions


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


class Source(Protocol):
    """A trained model, or what an exported file says of it: where it is, its configuration, how faces are found."""

    @property
    def path(self) -> Path: ...
    @property
    def config(self) -> Config: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...


class VideoScorer:
    """`predict` for callers, `files` and `score` for folders; a subclass scores. Not for several threads at once."""

    def __init__(self, sources: Sequence[Source], threshold: float | None, batch_size: int) -> None:
        """sources: of its models; the first one's configuration holds for all where the kind of model does not."""
        self.threshold, self.batch_size = threshold, batch_size
        self.config = sources[0].config
        self.failed_score = self.config.predict.failed_score
        self._faces = face_options(sources)
        self._needs_face = any(source.config.data.face_missing != "whole" for source in sources)
        self._workers: Workers | None = None

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
        raise NotImplementedError

    def identity(self) -> str:
        """What decides the scores: weights, configuration, shares; a change of it is a change of this text."""
        raise NotImplementedError

    def files(self, paths: Sequence[Path], local_size: int = 1) -> VideoFiles:
        """Files for `score`, of `local_size` predictors on this machine."""
        needs_face = self._faces is not None and self._needs_face
        return VideoFiles(paths, self.workers(local_size), self._faces, needs_face=needs_face)

    def workers(self, local_size: int = 1) -> Workers:
        """The processes that probe and decode, of `local_size` predictors on this machine; one pool for all calls."""
        if self._workers is None:
            self._workers = Workers(self.num_threads(local_size))
        return self._workers

    def num_threads(self, local_size: int) -> int:
        """Of each of `local_size` predictors on this machine."""
        return self.config.data.threads or max(1, num_cores() // local_size)

    def prediction(self, files: VideoFiles, row: int, p: float | None, reason: str, seconds: float) -> Prediction:
        """Of a file with score `p`; None: it has none, for the `reason`, or the one that `files` knows."""
        name, threshold = str(files.paths[row]), self.threshold
        rejected = None if threshold is None else False
        if p is None:
            reason = files.reasons.get(row) or reason
            status = NO_FACE_STATUS if reason == NO_FACE else FAILED
            return Prediction(name, None, rejected, threshold, 0, seconds, status, reason)
        if not math.isfinite(p):
            return Prediction(name, None, rejected, threshold, 0, seconds, FAILED, "the model's score is NaN or Inf")
        p = min(1.0, max(0.0, p))  # weights that sum to 1 but for rounding
        live = None if threshold is None else bool(p >= threshold)
        num_frames = self.config.eval.num_frames or int(files.column("num_frames")[row])
        return Prediction(name, float(p), live, threshold, num_frames, seconds, OK)


def face_options(sources: Sequence[Source]) -> FaceOptions | None:
    """How the models' faces are found; None where they see whole frames.

    Raises UserError where they cannot be found in that way here.
    """
    about: dict[str, Any] | None = None
    for source in sources:
        if source.config.data.crop != "face":
            continue
        known = source.facts.get("faces")
        if known is None:
            raise UserError(f"{source.path} sees faces, and does not say how they were found; make the package again")
        if about is not None:
            face_tracks.check_same(known, about, f"the faces of {source.path}", "another model of the ensemble")
        about = known
    if about is None:
        return None
    options = FaceOptions.of(about)
    if options.about() != about:
        raise UserError(
            f"{sources[0].path} was trained on faces found by {about['detector']}; here is "
            f"{options.about()['detector']}, whose boxes are others: install that version"
        )
    return options
