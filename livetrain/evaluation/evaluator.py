"""The evaluation pass: a split through the model, over all processes, into one row a video."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import distributed

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.core.progress import progress
from livetrain.core.world import World
from livetrain.data import Batch, Dataset, Failure, eval_loader
from livetrain.data.face_tracks import Faces
from livetrain.data.perturb import Shifts
from livetrain.distributed.fsdp import is_sharded
from livetrain.distributed.oom import advice_for_evaluation, oom_advice
from livetrain.evaluation.scoring import autocast, rendered, scored_frames
from livetrain.model import LivenessModel, build_loss, p_live
from livetrain.verdict.clip_metadata import Details
from livetrain.verdict.scores import FAILED, NO_FACE, OK, Scores

MAX_NAMED = 20  # clips without a finite score that are named one by one
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Evaluation:
    """What scoring a split gave.

    scores: one row a video of the label file. details: by key. loss: mean over labelled clips. failures: clips that
    could not be decoded.
    """

    scores: Scores
    details: dict[str, Details]
    loss: float
    failures: list[Failure]

    @staticmethod
    def empty() -> Evaluation:
        """Without a row."""
        return Evaluation(Scores.from_rows([]), {}, float("nan"), [])


@dataclass(frozen=True)
class Hooks:
    """What an evaluation calls on every process.

    after_batch: after each batch, equally often on all processes; what it raises ends the evaluation. after_scoring:
    when all batches are scored, before the results are joined.
    """

    after_batch: Callable[[], None] = lambda: None
    after_scoring: Callable[[], None] = lambda: None


NO_HOOKS = Hooks()


def evaluate(
    accelerator: Accelerator,
    config: Config,
    dataset: Dataset,
    split: str,
    model: LivenessModel,
    *,
    hooks: Hooks = NO_HOOKS,
    shifts: Shifts | None = None,
    with_details: bool = True,
) -> Evaluation:
    """Score every video of `split` with the unwrapped `model`.

    All processes call it; the first one gets the result, the others one without a row.

    shifts: scores every clip changed by the one it is under. with_details: clip metadata too, which a figure alone does
    not need. The loss is that of config.loss.

    Videos rejected by the shard builder, clips that cannot be decoded and clips whose score is NaN or Inf are rows with
    status failed_to_acquire; the last are named in a warning.
    `seconds` is the wall time of a clip's batch, data included, over the batch's clips.
    """
    was_training = model.training
    loss = build_loss(config.loss)
    model.eval()
    mine: list[_Part] = []
    loader = eval_loader(
        dataset,
        rendered(config),
        split,
        world=World.of(accelerator),
        mean=model.mean,
        std=model.std,
        shifts=shifts,
    )
    title = f"scoring {split}" + (f", {shifts.name}" if shifts else "")
    # Gathered shards would be tensors that training cannot use any more.
    without_gradients = torch.no_grad() if is_sharded(model) else torch.inference_mode()
    bar = progress(title, len(loader), "batches", enabled=accelerator.is_main_process)
    with loader, bar as advance, without_gradients:
        started = time.perf_counter()
        for batch in loader:
            with autocast(config, accelerator.device), oom_advice(title, advice_for_evaluation(config)):
                logits, frames, shares = scored_frames(model, batch.clips, config)
            scores, losses = (
                p_live(logits).double().cpu().numpy(),
                loss(logits.float(), batch.labels).double().cpu().numpy(),
            )
            good = batch.valid.cpu().numpy()
            seen = _seen(model, batch, frames, shares, good) if with_details else []
            seconds = np.full(int(good.sum()), (time.perf_counter() - started) / max(1, int(good.sum())))
            mine.append(_Part(batch.rows[good], scores[good], losses[good], seconds, seen))
            hooks.after_batch()
            started = time.perf_counter()
            advance()
        failures = loader.failures
    hooks.after_scoring()
    model.train(was_training)
    parts = _gathered(mine, accelerator)
    all_failures = _gathered(failures, accelerator)
    if not accelerator.is_main_process:
        return Evaluation.empty()
    return _joined(dataset, config, split, title, parts, all_failures, with_details=with_details)


@dataclass(frozen=True)
class _Part:
    """Results of the scored clips of a batch.

    rows int64 [n]; scores, losses and seconds float64 [n]; seen: clip metadata.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    losses: NDArray[np.float64]
    seconds: NDArray[np.float64]
    seen: list[dict[str, Any]]


def _gathered(mine: list[Any], accelerator: Accelerator) -> list[Any]:
    """The lists of all processes, one after the other, on the first one; [] on the others."""
    if accelerator.num_processes == 1:
        return mine
    found: list[Any] | None = [None] * accelerator.num_processes if accelerator.is_main_process else None
    distributed.gather_object(mine, found)
    return [item for part in found or () for item in part]


def _joined(
    dataset: Dataset,
    config: Config,
    split: str,
    title: str,
    parts: list[_Part],
    failures: list[Failure],
    *,
    with_details: bool,
) -> Evaluation:
    """A row for each sample of the split, in the index's order, and for each video that was rejected."""
    nothing = _Part(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0), [])
    columns = [
        np.concatenate([getattr(part, name) for part in [nothing, *parts]])
        for name in ("rows", "scores", "losses", "seconds")
    ]
    finite = np.isfinite(columns[1])
    _warn_not_finite(title, sorted(dataset.texts("key", columns[0][~finite]).tolist()))
    seen = [item for part in parts for item in part.seen]
    seen_of = {int(row): item for row, item, good in zip(columns[0], seen, finite, strict=False) if good}
    found, scores, losses, seconds = (column[finite] for column in columns)

    rows = dataset.rows(split)  # ascending
    at = np.searchsorted(rows, found)
    p, took, is_scored = np.full(len(rows), np.nan), np.zeros(len(rows)), np.zeros(len(rows), np.bool_)
    p[at], took[at], is_scored[at] = scores, seconds, True
    num_frames = (
        np.full(len(rows), config.eval.num_frames) if config.eval.num_frames else dataset.column("num_frames")[rows]
    )
    keys = dataset.texts("key", rows)
    mine = Scores(
        dataset.texts("video", rows),
        keys,
        p,
        dataset.column("label")[rows].astype(np.float64),
        dataset.texts("subject", rows),
        dataset.texts("attack_type", rows),
        np.where(is_scored, num_frames, 0).astype(np.int64),
        took,
        np.where(is_scored, OK, _unscored(dataset, config, rows)).astype(object),
    )
    rejected = dataset.rejected(split)
    details = {}
    if with_details:
        faces = _faces_for_metadata(dataset)
        details = {
            key: _details(dataset, row, seen_of.get(row, {}), faces)
            for key, row in zip(keys, rows.tolist(), strict=True)
        }
        details |= {item["video"]: _rejected_details(item) for item in rejected}
    known = losses[~np.isnan(losses)]
    mean_loss = math.fsum(known.tolist()) / len(known) if len(known) else float("nan")
    return Evaluation(mine.followed_by(Scores.from_rows(map(_rejected_row, rejected))), details, mean_loss, failures)


def _unscored(dataset: Dataset, config: Config, rows: NDArray[np.int32]) -> NDArray[Any]:
    """The status of each row that got no score."""
    if (config.data.crop, config.data.face_missing) != ("face", "skip"):
        return np.full(len(rows), FAILED)
    return np.where(dataset.faces.known(rows), FAILED, NO_FACE)


def _warn_not_finite(title: str, keys: list[str]) -> None:
    for key in keys[:MAX_NAMED]:
        print(f"warning: {title}: the score of {key} is NaN or Inf; counted as failure to acquire", file=sys.stderr)
    if len(keys) > MAX_NAMED:
        print(f"warning: {title}: and {len(keys) - MAX_NAMED} more scores are NaN or Inf", file=sys.stderr)


def _seen(
    model: LivenessModel, batch: Batch, frames: torch.Tensor, shares: torch.Tensor, good: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """What the pass itself tells of each `good` clip of a batch: its frames' scores and shares, its brightness."""
    per_frame = frames.double().tolist()
    means = batch.clips.float().mean(dim=(1, 3, 4))
    mean, std, luma = (means.new_tensor(values) for values in (model.mean, model.std, LUMA))
    brightness = ((means * std + mean) @ luma).double().tolist()
    return [
        {
            "frames": tuple(batch.frames[i].tolist()),
            "frame_p_live": tuple(per_frame[i]),
            "frame_shares": tuple(share),
            "brightness": brightness[i],
        }
        for i, share in enumerate(shares.double().tolist())
        if good[i]
    ]


def _details(dataset: Dataset, row: int, seen: dict[str, Any], faces: Faces | None) -> Details:
    width, height, num_frames = (int(dataset.column(name)[row]) for name in ("width", "height", "num_frames"))
    if int(dataset.column("rotation")[row]) % 180:
        width, height = height, width
    seconds = float(dataset.column("duration_seconds")[row])
    known = math.isfinite(seconds) and seconds > 0
    return Details(
        session=dataset.text("session", row),
        device=dataset.text("device", row),
        domain=dataset.text("domain", row),
        width=width,
        height=height,
        video_seconds=seconds if known else None,
        frames_per_second=num_frames / seconds if known else None,
        face_height=_face_height(faces, row),
        **seen,
    )


def _faces_for_metadata(dataset: Dataset) -> Faces | None:
    """The faces, where there are any; what is wrong with them is no reason to end a run that does not crop to them."""
    try:
        return dataset.found_faces
    except UserError as error:
        print(f"warning: no face heights in the clip metadata: {error}", file=sys.stderr)
        return None


def _face_height(faces: Faces | None, row: int) -> float | None:
    """Of the face over the picture's, the median over the frames that were looked at; None where none is known."""
    track = faces.track(row) if faces else None
    return None if track is None else float(np.median(track.boxes[:, 2] - track.boxes[:, 0]))


def _rejected_details(item: dict[str, str]) -> Details:
    session, device, domain = (item.get(name) or "" for name in ("session", "device", "domain"))
    return Details(session, device, domain)


def _rejected_row(item: dict[str, str]) -> dict[str, Any]:
    return {
        "video": item["video"],
        "key": item["video"],
        "p_live": None,
        "label": float(item["label"]),
        "subject": item["subject"],
        "attack_type": item["attack_type"],
        "num_frames": 0,
        "seconds": 0.0,
        "status": "failed_to_acquire",
    }
