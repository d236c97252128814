"""Does the exported file say what the model says? p_live on real clips by both; size and latency of both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from livetrain.config.split_spec import ALL
from livetrain.core.errors import UserError
from livetrain.core.machine import num_cores
from livetrain.core.progress import progress
from livetrain.core.world import World
from livetrain.data import Dataset, Loader, VideoFiles, eval_loader, files_loader
from livetrain.data.clip_plan import evaluation_batch_size
from livetrain.data.isolated_decode import Workers
from livetrain.evaluation.scoring import autocast
from livetrain.inference import onnx_scorer
from livetrain.inference.export.write import Scorer
from livetrain.inference.onnx_scorer import INPUT, OUTPUT
from livetrain.inference.package import Trained
from livetrain.inference.video_scorer import face_options
from livetrain.model import p_live
from shards.videos import find_videos

Score = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # clips [B,F,3,S,S] → p_live [B]

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}  # of p_live
LATENCY_BATCHES = (1, 8)
WARMUP, ROUNDS = 2, 7


@dataclass(frozen=True)
class Parity:
    """p_live of the same clips by three computations, float64 [n] each.

    By the model in float32, by the model as it is evaluated (with the precision of the scores that set its threshold),
    and by the exported file.
    """

    model: NDArray[np.float64]
    evaluated: NDArray[np.float64]
    exported: NDArray[np.float64]
    threshold: float | None

    @property
    def difference(self) -> float:
        """The largest |Δp_live| between file and model, both computing as exactly as they can."""
        return float(np.abs(self.model - self.exported).max())

    @property
    def difference_evaluated(self) -> float:
        """The largest |Δp_live| between file and the model as it is evaluated."""
        return float(np.abs(self.evaluated - self.exported).max())

    @property
    def num_other_decisions(self) -> int:
        """Clips that the exported file decides differently than the scores that set the threshold.

        At 0.5 where there is no threshold.
        """
        at = 0.5 if self.threshold is None else self.threshold
        return int(((self.evaluated >= at) != (self.exported >= at)).sum())


def runtime(file: Path) -> Score:
    """What runs an exported file, by its suffix: .onnx by ONNX Runtime on the CPU, .pt2 by torch."""
    if file.suffix == ".onnx":
        session = onnx_scorer.session(file, file, torch.get_num_threads())
        return lambda clips: np.asarray(session.run([OUTPUT], {INPUT: clips})[0])
    module = torch.export.load(file).module()
    return lambda clips: module(torch.from_numpy(clips)).detach().numpy()


def of_model(trained: Trained) -> Score:
    """The model itself, in float32, on the CPU."""
    network = Scorer(trained.model)
    return lambda clips: network(torch.from_numpy(clips)).detach().numpy()


def as_evaluated(trained: Trained) -> Score:
    """The model as `evaluate` scores with it, on the CPU: by the precision of its configuration."""
    model = trained.model.eval()

    def score(clips: NDArray[np.float32]) -> NDArray[np.float32]:
        with autocast(trained.config, torch.device("cpu")):
            return p_live(model(torch.from_numpy(clips))).float().numpy()

    return score


def compare(trained: Trained, exported: Score, where: Path, num_clips: int) -> Parity:
    """Both on the first `num_clips` clips of a shard folder or a folder of videos. Raises UserError without any."""
    sides = of_model(trained), as_evaluated(trained), exported
    found: list[tuple[float, ...]] = []
    count, batches = _clips(trained, where)
    with torch.inference_mode(), progress("checking", min(num_clips, count), "clips") as advance:
        for clips in batches:
            clips = clips[: num_clips - len(found)]
            found += zip(*(side(clips).tolist() for side in sides), strict=True)
            advance(len(clips))
            if len(found) >= num_clips:
                break
    if not found:
        raise UserError(f"--check {where}: no video there can be decoded")
    both = np.array(found, np.float64)
    return Parity(both[:, 0], both[:, 1], both[:, 2], trained.threshold)


def latency(score: Score, clip: NDArray[np.float32], batch: int) -> float:
    """Milliseconds a clip [F,3,S,S], in batches of `batch`: the median of a few rounds."""
    clips = np.repeat(clip[None], batch, axis=0)
    times = []
    with torch.inference_mode():
        for number in range(WARMUP + ROUNDS):
            started = time.perf_counter()
            score(clips)
            if number >= WARMUP:
                times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times) / batch


def table(rows: dict[str, tuple[Score, float]], clip: NDArray[np.float32]) -> str:
    """Size and latency of each of `rows` (name → how it is run, MB), as a Markdown table."""
    batches = [f"batch {batch}, ms a clip" for batch in LATENCY_BATCHES]
    lines = [f"| | MB | {' | '.join(batches)} |", "|---|---:|" + "---:|" * len(batches)]
    for name, (score, megabytes) in rows.items():
        times = [f"{latency(score, clip, batch):.1f}" for batch in LATENCY_BATCHES]
        lines.append(f"| {name} | {megabytes:.2f} | {' | '.join(times)} |")
    return "\n".join(lines)


def _clips(trained: Trained, where: Path) -> tuple[int, Iterator[NDArray[np.float32]]]:
    """(number of clips, batches of them as the model sees them, float32 [B,F,3,S,S]).

    Without those that cannot be decoded.
    """
    count, loader = _loader(trained, where)

    def batches() -> Iterator[NDArray[np.float32]]:
        with loader:
            for batch in loader:
                yield batch.clips[batch.valid].float().numpy()

    return count, batches()


def _loader(trained: Trained, where: Path) -> tuple[int, Loader]:
    config, cpu = trained.config, torch.device("cpu")
    mean, std = trained.model.mean, trained.model.std
    if (where / "dataset.json").exists():
        dataset = Dataset.open(where)
        loader = eval_loader(dataset, config, ALL, world=World(cpu), mean=mean, std=std)
        return len(dataset), loader
    paths = [where / name for name in find_videos(where)]
    files = VideoFiles(paths, Workers(config.data.threads or num_cores()), face_options([trained]))
    rows = np.arange(len(files))
    size = evaluation_batch_size(config)
    loader = files_loader(files, config, rows, batch_size=size, world=World(cpu), mean=mean, std=std)
    return len(files), loader
