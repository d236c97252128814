"""Scores of raw videos by an exported model (.onnx), on machines without torch, timm and DALI.

    model = OnnxScorer("mine.onnx")          # of `livetrain export --format onnx`
    model.predict("video.mp4")               # Prediction(p_live=0.98, live=True, …)

The pictures are those of evaluation on the CPU, to the bit but for rounding of the normalisation; what the exported
network makes of them, `livetrain export --check` compares.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config, config_from, to_dict
from livetrain.core.errors import UserError, first_line
from livetrain.core.files import file_sha256
from livetrain.core.machine import num_cores
from livetrain.data import PADDING, DecodeError, FetchError, VideoFiles
from livetrain.data.clip_plan import ClipPlan, evaluation_batch_size
from livetrain.data.crop import Cut
from livetrain.inference.video_scorer import Prediction, VideoScorer
from livetrain.verdict import threshold as stored_threshold

INPUT, OUTPUT, METADATA = "clips", "p_live", "livetrain"
NETWORK = ("model", "loss", "train")  # sections of the configuration that say what the network is, and how it computes


@dataclass(frozen=True)
class Exported:
    """What an exported file says of its model."""

    path: Path
    config: Config
    facts: dict[str, Any]


class OnnxScorer(VideoScorer):
    """An exported model. ONNX Runtime computes on the CPU, with as many threads as cores."""

    def __init__(self, file: str | Path, overrides: Sequence[str] = ()) -> None:
        """`overrides`: `key=value` of the configuration, as eval.num_frames=16. Raises UserError."""
        path = Path(file)
        self._session = session(path, path, num_cores())
        exported, threshold = _described(self._session, path, overrides)
        super().__init__([exported], threshold, evaluation_batch_size(exported.config))
        shown = exported.facts["preprocessing"]
        self._offset = (255 * np.array(shown["mean"], np.float32)).reshape(3, 1, 1)
        self._scale = (1 / (255 * np.array(shown["std"], np.float32))).reshape(3, 1, 1)
        self._identity = f"{file_sha256(path)} {to_dict(exported.config)!r} {threshold!r}"

    def identity(self) -> str:
        """See VideoScorer."""
        return self._identity

    def score(
        self, files: VideoFiles, rows: NDArray[np.int64], *, batch_size: int, local_size: int = 1
    ) -> Iterator[list[Prediction]]:
        """See VideoScorer."""
        plans = files.plans(self.config, rows, batch_size)
        with ThreadPoolExecutor(self.num_threads(local_size)) as pool:  # they wait for the processes that decode
            ahead: deque[tuple[ClipPlan, list[Future[NDArray[np.float32]] | None]]] = deque()
            started = time.perf_counter()
            while True:
                while len(ahead) <= self.config.data.prefetch and (plan := next(plans, None)) is not None:
                    ahead.append((plan, self._submitted(pool, files, plan)))
                if not ahead:
                    return
                plan, clips = ahead.popleft()
                here = rows[plan.step * batch_size :][:batch_size].tolist()
                found = self._scored(clips[: len(here)])
                seconds = (time.perf_counter() - started) / len(here)
                started = time.perf_counter()
                yield [
                    self.prediction(files, row, p, reason, seconds)
                    for row, (p, reason) in zip(here, found, strict=True)
                ]

    def _submitted(
        self, pool: ThreadPoolExecutor, files: VideoFiles, plan: ClipPlan
    ) -> list[Future[NDArray[np.float32]] | None]:
        """The clips of a plan on their way; None for padding."""
        rows = plan.rows.tolist()
        return [None if row == PADDING else pool.submit(self._clip, files, plan, i) for i, row in enumerate(rows)]

    def _clip(self, files: VideoFiles, plan: ClipPlan, index: int) -> NDArray[np.float32]:
        """One clip as the network takes it, [F, 3, S, S]. Raises DecodeError, FetchError."""
        window = plan.params["window"][index] if "window" in plan.params else None
        cut = Cut(plan.params["box"][index], self.config.data.image_size, window)
        pictures = files.decode(int(plan.rows[index]), plan.frames[index], cut)
        quarters = round(float(plan.params["angle"][index]) / 90) % 4
        upright = np.rot90(pictures, quarters, axes=(1, 2)).transpose(0, 3, 1, 2)
        return np.asarray((upright - self._offset) * self._scale, np.float32)

    def _scored(self, clips: Sequence[Future[NDArray[np.float32]] | None]) -> list[tuple[float | None, str]]:
        """(p_live, "") of each clip, or (None, why there is none)."""
        places: list[int] = []
        arrived: list[NDArray[np.float32]] = []
        scores: list[float | None] = [None] * len(clips)
        reasons = [""] * len(clips)
        for place, clip in enumerate(clips):
            if clip is None:
                continue
            try:
                arrived.append(clip.result())
                places.append(place)
            except (DecodeError, FetchError) as error:
                reasons[place] = str(error)
        if arrived:
            batch = np.stack(arrived)
            try:
                (found,) = self._session.run([OUTPUT], {INPUT: batch})
            except Exception as error:  # its errors have no common base
                raise UserError(
                    f"the exported model does not take clips {list(batch.shape)}: {first_line(error)}"
                ) from error
            for place, p in zip(places, found.astype(np.float64).tolist(), strict=True):
                scores[place] = p
        return list(zip(scores, reasons, strict=True))


def session(file: Path, source: Path, num_threads: int) -> Any:
    """An ONNX Runtime session of a file, on the CPU. Raises UserError, naming `source`, where it cannot be loaded."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError("ONNX files need ONNX Runtime: pip install onnxruntime") from None
    if not file.is_file():
        raise UserError(f"{source}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        raise UserError(f"{source}: ONNX Runtime cannot load this model ({first_line(error)})") from error


def _described(onnx: Any, path: Path, overrides: Sequence[str]) -> tuple[Exported, float | None]:
    """What the file says, with the configuration changed, and the threshold if it holds. Raises UserError."""
    try:
        facts = json.loads(onnx.get_modelmeta().custom_metadata_map[METADATA])
        values, threshold, _ = facts["config"], facts["threshold"], facts["preprocessing"]["mean"]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is no model of `livetrain export --format onnx`: it does not say how") from None
    made, config = (config_from(values, str(path), words, warn=lambda line: None) for words in ((), overrides))
    other = [f"{name}.…" for name in NETWORK if to_dict(made)[name] != to_dict(config)[name]]
    if other or made.data.image_size != config.data.image_size:
        key = other[0] if other else "data.image_size"
        raise UserError(f"{path}: {key} is fixed in an exported model; leave it out, or export again with it")
    averaged = config.data.face_multi_scale if config.data.crop == "face" else []
    if (config.eval.aggregate, config.eval.tta) != ("model", "none") or averaged:
        what = f"eval.aggregate={config.eval.aggregate}, eval.tta={config.eval.tta}"
        what += f", data.face_multi_scale={averaged}" if averaged else ""
        print(f"warning: {path}: an exported model does without {what}: it scores one view of a clip", file=sys.stderr)
        threshold = None
    scoring = stored_threshold.scoring_of(config)
    threshold = stored_threshold.usable(path, threshold, stored_threshold.scoring_of(made), scoring)
    return Exported(path, config, facts), threshold
