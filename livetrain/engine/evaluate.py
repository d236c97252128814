"""The evaluation pass: a split through the model, over all processes, into one row a video."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from livetrain.config import Config
from livetrain.data import Batch, Dataset, Failure, eval_loader
from livetrain.data.perturb import Perturbation
from livetrain.engine.memory import advice_for_evaluation, told_to_the_user
from livetrain.engine.score import autocast, rendered, scored_frames
from livetrain.engine.sharded import is_sharded
from livetrain.model import LivenessModel, p_live
from livetrain.progress import progress
from livetrain.verdict.details import Details
from livetrain.verdict.scores import Scores

MAX_NAMED = 20  # clips without a finite score that are named one by one
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a split, one row a video of the label file; key → details; mean loss of the labelled; clips that could
    not be decoded."""

    scores: Scores
    details: dict[str, Details]
    loss: float
    failures: list[Failure]


def evaluate(
    accelerator: Accelerator,
    config: Config,
    dataset: Dataset,
    split: str,
    model: LivenessModel,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    after_batch: Callable[[], None] = lambda: None,
    perturbation: Perturbation | None = None,
) -> Evaluation:
    """Score every video of `split` with the unwrapped `model`. All processes call it and all get the whole result.

    `after_batch` is called after each batch, equally often on all processes; what it raises ends the evaluation.

    Videos rejected by the shard builder, clips that cannot be decoded and clips whose score is NaN or Inf are rows with
    status failed_to_acquire; the last are named in a warning.
    `seconds` is the wall time of a clip's batch, data included, over the batch's clips.
    """
    was_training = model.training
    model.eval()
    mine: list[tuple[int, float, float, float, dict[str, Any]]] = []
    loader = eval_loader(
        dataset,
        rendered(config),
        split,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        local_world=local_world(accelerator),
        device=accelerator.device,
        mean=model.mean,
        std=model.std,
        perturbation=perturbation,
    )
    title = f"scoring {split}" + (f", {perturbation.name}" if perturbation else "")
    # Gathered shards would be tensors that training cannot use any more.
    without_gradients = torch.no_grad() if is_sharded(model) else torch.inference_mode()
    bar = progress(title, len(loader), "batches", enabled=accelerator.is_main_process)
    with loader, bar as advance, without_gradients:
        started = time.perf_counter()
        for batch in loader:
            with autocast(config, accelerator.device), told_to_the_user(title, advice_for_evaluation(config)):
                logits, frames, shares = scored_frames(model, batch.clips, config)
            scores, losses = p_live(logits).double().tolist(), loss(logits.float(), batch.labels).double().tolist()
            seen = _seen(model, batch, frames, shares)
            seconds = (time.perf_counter() - started) / max(1, int(batch.valid.sum()))
            mine += [
                (row, scores[i], losses[i], seconds, seen[i])
                for i, (row, good) in enumerate(zip(batch.rows.tolist(), batch.valid.tolist(), strict=True))
                if good
            ]
            after_batch()
            started = time.perf_counter()
            advance()
        failures = loader.failures
    model.train(was_training)
    scored = {int(row): rest for row, *rest in gather_object(mine)}
    not_finite = [row for row, (score, *_) in scored.items() if not math.isfinite(score)]
    for row in not_finite:
        del scored[row]
    if accelerator.is_main_process:
        _warn_not_finite(title, [dataset.text("key", row) for row in sorted(not_finite)])
    rows = [_row(dataset, config, int(row), scored.get(int(row))) for row in dataset.rows(split)]
    details = {
        dataset.text("key", row): _details(dataset, row, scored[row][3] if row in scored else {})
        for row in dataset.rows(split).tolist()
    }
    details |= {item["video"]: _rejected_details(item) for item in dataset.rejected(split)}
    rows += [_rejected_row(item) for item in dataset.rejected(split)]
    losses = [item[1] for item in scored.values() if item[1] == item[1]]
    mean_loss = sum(losses) / len(losses) if losses else float("nan")
    return Evaluation(Scores.from_rows(rows), details, mean_loss, gather_object(failures))


def _warn_not_finite(title: str, keys: list[str]) -> None:
    for key in keys[:MAX_NAMED]:
        print(f"warning: {title}: the score of {key} is NaN or Inf; counted as failure to acquire", file=sys.stderr)
    if len(keys) > MAX_NAMED:
        print(f"warning: {title}: and {len(keys) - MAX_NAMED} more scores are NaN or Inf", file=sys.stderr)


def local_world(accelerator: Accelerator) -> int:
    """How many processes share this machine (torchrun's LOCAL_WORLD_SIZE)."""
    import os

    return int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))


def _row(dataset: Dataset, config: Config, row: int, scored: list[Any] | None) -> dict[str, Any]:
    p, _, seconds, _ = scored or (None, None, None, None)
    return {
        "video": dataset.text("video", row),
        "key": dataset.text("key", row),
        "p_live": p,
        "label": float(dataset.column("label")[row]),
        "group": dataset.text("group", row),
        "attack_type": dataset.text("attack_type", row),
        "num_frames": (config.eval.num_frames or int(dataset.column("num_frames")[row])) if scored else 0,
        "seconds": seconds if scored else 0.0,
        "status": "ok" if scored else "failed_to_acquire",
    }


def _seen(model: LivenessModel, batch: Batch, frames: torch.Tensor, shares: torch.Tensor) -> list[dict[str, Any]]:
    """What the pass itself tells of each clip of a batch: its frames' scores and shares, its brightness."""
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
    ]


def _details(dataset: Dataset, row: int, seen: dict[str, Any]) -> Details:
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
        **seen,
    )


def _rejected_details(item: dict[str, str]) -> Details:
    session, device, domain = (item.get(name) or "" for name in ("session", "device", "domain"))
    return Details(session, device, domain)


def _rejected_row(item: dict[str, str]) -> dict[str, Any]:
    return {
        "video": item["video"],
        "key": item["video"],
        "p_live": None,
        "label": float(item["label"]),
        "group": item["group"],
        "attack_type": item["attack_type"],
        "num_frames": 0,
        "seconds": 0.0,
        "status": "failed_to_acquire",
    }
