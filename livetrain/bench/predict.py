"""`livetrain bench predict`: scoring raw videos, against a script of a page with the same network.

The script decodes with PyAV (all threads that FFmpeg takes) up to the last frame it needs, resizes with torchvision and
calls the network on batches as large. Warm: model loaded, workers up. Cold: from the start of a process to its end.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from livetrain.bench.corpus import clip_sets, make_task
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import race, ratio

OURS, ONNX, SCRIPT = "livetrain predict", "livetrain predict --onnx", "PyAV + timm script"
BACKBONE, SIZE, FRAMES, BATCH = "mobilenetv2_100", 224, 8, 8


@dataclass(frozen=True)
class Work:
    """package: a model; exported: the same as .onnx, or None. videos: a folder of them; `num` files."""

    package: Path
    exported: Path | None
    videos: Path
    num: int
    workers: int


def run(options: Options) -> Report:
    """Clips a second of each side, warm and cold, and how far the scores of the exported model are apart."""
    what = clip_sets(options)[0]
    task = make_task(what, options, "resize")
    with tempfile.TemporaryDirectory(prefix="livetrain-bench-") as folder:
        package, exported = _models(Path(folder))
        videos = Path(folder) / "videos"
        videos.mkdir()
        num = 8 if options.quick else 48
        for number in range(num):
            shutil.copy(task.videos[number % len(task.videos)], videos / f"{number:03d}.mp4")
        work = Work(package, exported, videos, num, options.workers)
        warm_sides = {OURS: warm, SCRIPT: script} | ({ONNX: warm_onnx} if exported else {})
        cold_sides = {OURS: cold, SCRIPT: cold_script} | ({ONNX: cold_onnx} if exported else {})
        found = race(warm_sides, [work], rounds=options.rounds, title="predict, warm")
        cold_found = {} if options.quick else race(cold_sides, [work], rounds=options.rounds, title="predict, cold")
    tables, ratios = [], {}
    for title, sides in (("Warm", found), ("Cold", cold_found)):
        table = Table(
            f"{title}: {num} clips of {what.name}, {FRAMES} frames of each, {BACKBONE} at {SIZE}.",
            ("side", "livetrain's ratio", "clips/s", "memory, GiB", "remark"),
        )
        for name, side in sides.items():
            table.rows.append((name, ratio(sides[OURS], side), side.rate, side.memory / 2**30, side.error))
            if name != SCRIPT and not side.error:
                ratios[f"{title.lower()}: {name} over script"] = ratio(side, sides[SCRIPT])
        tables += [table] if sides else []
    apart = found[ONNX].facts.get("apart", float("nan")) if ONNX in found else float("nan")
    summary = "; ".join(f"{name}: {value:.2f}" for name, value in ratios.items())
    summary += f". Scores of the exported model are within {apart:.1g} of the model's."
    return Report("Prediction", summary, tables, ratios, ("onnxruntime",))


def _models(folder: Path) -> tuple[Path, Path | None]:
    """A package of an untrained network, and the same exported where ONNX is installed."""
    import torch

    from livetrain.config import load_config
    from livetrain.core.errors import UserError
    from livetrain.inference.export.write import to_onnx
    from livetrain.inference.package import Trained, load, write
    from livetrain.model import build_model

    keys = ["data.shards=none", f"model.backbone={BACKBONE}", f"data.image_size={SIZE}", f"eval.num_frames={FRAMES}"]
    config = load_config([], [*keys, f"eval.batch_size={BATCH}", "train.precision=fp32"], warn=lambda line: None)
    torch.manual_seed(0)
    model = build_model(config.model, config.loss, SIZE).eval()
    package = write(Trained(folder, config, model, 0.5), folder / "package")
    try:
        to_onnx(load(package), "fp32", folder / "model.onnx")
    except UserError:
        return package, None
    return package, folder / "model.onnx"


_loaded: dict[Path, Any] = {}  # of this process, from pass to pass


def _scores(work: Work, model: Path) -> tuple[float, list[float]]:
    """(clips a second, scores) of this process's scorer, which stays for the next pass."""
    from livetrain.inference.score_folder import scorer_of

    if model not in _loaded:
        _loaded[model] = scorer_of(model, [f"data.threads={work.workers}"])
    started = time.perf_counter()
    found = _loaded[model].predict(_files(work))
    rate = work.num / (time.perf_counter() - started)
    assert all(item.p_live is not None for item in found)
    return rate, [float(item.p_live or 0) for item in found]


def _files(work: Work) -> list[Path]:
    return sorted(work.videos.glob("*.mp4"))


def warm(work: Work) -> float:
    """livetrain.load_model(…).predict(…)."""
    return _scores(work, work.package)[0]


def warm_onnx(work: Work) -> tuple[float, dict[str, float]]:
    """The exported model; `apart`: the largest difference of its scores and the model's."""
    assert work.exported is not None
    rate, scores = _scores(work, work.exported)
    _, own = _scores(work, work.package)
    return rate, {"apart": float(np.abs(np.array(scores) - np.array(own)).max())}


def script(work: Work) -> float:
    """What one would write without livetrain."""
    import timm
    import torch

    from livetrain.bench.peers import MEAN, STD

    if work.videos not in _loaded:
        _loaded[work.videos] = timm.create_model(BACKBONE, num_classes=1).eval()
    network = _loaded[work.videos]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    files = _files(work)
    started = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(files), BATCH):
            pictures = np.stack([_frames(path) for path in files[first : first + BATCH]])
            clips = (torch.from_numpy(pictures).permute(0, 1, 4, 2, 3).float() / 255 - mean) / std
            network(clips.flatten(0, 1)).view(len(clips), FRAMES).mean(1).sigmoid().tolist()
    return work.num / (time.perf_counter() - started)


def _frames(path: Path) -> np.ndarray:
    """Frames from the middle of equal parts of a video, resized: uint8 [FRAMES, SIZE, SIZE, 3]."""
    import av
    import torch
    from torchvision.transforms.v2.functional import resize

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        wanted = {int((k + 0.5) * stream.frames / FRAMES) for k in range(FRAMES)}
        found = []
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                found.append(torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1))
            if len(found) == len(wanted):
                break
    return resize(torch.stack(found), [SIZE, SIZE], antialias=True).permute(0, 2, 3, 1).numpy()


def cold(work: Work) -> float:
    """`livetrain predict --checkpoint`."""
    return _process(work, ["--checkpoint", str(work.package)])


def cold_onnx(work: Work) -> float:
    """`livetrain predict --onnx`."""
    return _process(work, ["--onnx", str(work.exported)])


def _process(work: Work, model: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        words = ["--videos", str(work.videos), "--out", f"{folder}/out.csv", f"data.threads={work.workers}"]
        return _timed(work, [sys.executable, "-m", "livetrain.predict", *model, *words])


def cold_script(work: Work) -> float:
    """The script in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from livetrain.bench.predict import Work, script; "
        "script(Work(Path(), None, Path(sys.argv[1]), int(sys.argv[2]), 0))"
    )
    return _timed(work, [sys.executable, "-c", code, str(work.videos), str(work.num)])


def _timed(work: Work, command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return work.num / (time.perf_counter() - started)
