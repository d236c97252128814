"""Test videos: small files whose frames tell their own number."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from shards.format.colour import ToRgb


def numbered_frames(num_frames: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames uint8 [height, width, 3] with a bar that moves, over a gradient; no two alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    frames = []
    for number in range(num_frames):
        frame = np.stack([rows * 255 // height, columns * 255 // width, np.full_like(rows, 40)], axis=2).astype(
            np.uint8
        )
        left = number * width // max(1, num_frames)
        frame[:, left : left + 4] = (255, 255, 255)
        frame[: height // 4, :, 2] = number * 200 // max(1, num_frames)
        frames.append(frame)
    return frames


def rgb(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame in the colours it states (tests/shards/format/test_colour.py): uint8 [height, width, 3]."""
    return ToRgb()(frame, (frame.height, frame.width))


def write_video(
    path: Path,
    num_frames: int = 20,
    *,
    codec: str = "libx264",
    height: int = 48,
    width: int = 64,
    fps: int = 25,
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
) -> Path:
    """Encode `numbered_frames` into `path` (container by its suffix)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else pixel_format
        for picture in numbered_frames(num_frames, height, width):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
