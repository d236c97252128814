"""A corpus of clips in which a photographed face moves, with what is known of where it is."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from shards import cli
from shards.demo.corpus import with_rotation
from tests.shards.clips import write_labels
from tests.shards.faces.portrait import portrait

WIDTH, HEIGHT, NUM_FRAMES = 320, 240, 12
SCALE = 0.4
FACE = np.array([137, 161, 353, 377]) * SCALE  # in the scaled portrait, as the detector boxes it
NO_FACE = "empty.mp4"
TURNED = "turned.mp4"  # coded lying, 90 degrees clockwise to upright


def offset(index: int) -> int:
    """Columns by which the portrait has moved in frame `index`."""
    return 9 * index


def true_box(index: int) -> NDArray[np.float64]:
    """The face's box in frame `index`, top, left, bottom, right in [0, 1] of the upright frame."""
    return (FACE + [0, offset(index), 0, offset(index)]) / [HEIGHT, WIDTH, HEIGHT, WIDTH]


def frames(tint: float = 1.0, face: bool = True) -> list[NDArray[np.uint8]]:
    """Upright RGB frames, uint8 [240, 320, 3]."""
    from PIL import Image

    picture = np.asarray(Image.fromarray(portrait()).resize((round(512 * SCALE), HEIGHT)))
    out = []
    for index in range(NUM_FRAMES):
        frame = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
        if face:
            frame[:, offset(index) : offset(index) + picture.shape[1]] = (picture * tint).astype(np.uint8)
        out.append(frame)
    return out


def corpus(folder: Path) -> Path:
    """folder/videos and folder/label.csv: three people, live and print, and the two special clips."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    rows = []
    for person, split in enumerate(("train", "dev", "test")):
        for number, (name, tint) in enumerate((("live", 1.0), ("print", 0.8))):
            video = f"{split}-{name}.mp4"
            (videos / video).write_bytes(encode(frames(tint - 0.05 * person)))
            rows.append([video, 1 - number, name, f"p{person}", split])
    (videos / NO_FACE).write_bytes(encode(frames(face=False)))
    lying = encode([np.rot90(frame) for frame in frames()])
    (videos / TURNED).write_bytes(with_rotation(lying, 90, HEIGHT, WIDTH))
    rows += [[NO_FACE, 1, "live", "p2", "test"], [TURNED, 1, "live", "p0", "train"]]
    names = ("fname", "liveness_score", "attack_type", "subject", "split")
    write_labels(folder / "label.csv", [dict(zip(names, row, strict=True)) for row in rows], names)
    return folder


def build(folder: Path, out: Path, *options: str) -> Path:
    """The shards of a corpus, faces not yet looked for."""
    arguments = ["build", "--videos", folder / "videos", "--labels", folder / "label.csv", "--out", out]
    assert cli.main([str(a) for a in [*arguments, "--workers", "1", "--shard-mb", "0.05", *options]]) == 0
    return out


def encode(pictures: list[NDArray[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=12, options={"crf": "20"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
