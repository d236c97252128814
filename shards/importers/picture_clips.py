"""Data sets of pictures: sequences of them become clips first, Motion JPEG in AVI, JPEG files byte for byte."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from livetrain.core.files import atomic_write
from shards.importers.layout import Options

QUALITY = 95  # of pictures that are no JPEG files


def clips_folder(options: Options, layout: str) -> Path:
    """Where the clips go. Raises UserError where nobody said it."""
    if options.clips is None:
        raise UserError(f"{layout} holds pictures, no videos: name a folder for the clips with --clips DIR")
    return options.clips


def write_clip(path: Path, pictures: Sequence[Path], frames_per_second: int) -> None:
    """Write pictures of one size as the frames of a Motion JPEG AVI. Raises UserError.

    JPEG files are not decoded; pictures of another format are encoded with quality 95.
    """
    files = [_jpeg(picture) for picture in pictures]
    sizes = {size for _, size in files}
    if len(sizes) > 1:
        raise UserError(f"{pictures[0]} and those after it have different sizes: {sorted(sizes)}; move one away")
    _mux(path, [data for data, _ in files], sizes.pop(), frames_per_second)


def write_frames(path: Path, frames: Sequence[NDArray[np.uint8]], frames_per_second: int) -> None:
    """Write frames, uint8 RGB [height, width, 3] of one size, as a Motion JPEG AVI of quality 95."""
    from PIL import Image

    height, width = frames[0].shape[:2]
    _mux(path, [_encoded(Image.fromarray(frame)) for frame in frames], (width, height), frames_per_second)


def _mux(path: Path, jpegs: Sequence[bytes], size: tuple[int, int], frames_per_second: int) -> None:
    import av

    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="avi") as container:
        stream: Any = container.add_stream("mjpeg", rate=frames_per_second)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p"
        for number, data in enumerate(jpegs):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, frames_per_second), True
            container.mux(packet)


def _jpeg(path: Path) -> tuple[bytes, tuple[int, int]]:
    """The bytes of a picture as JPEG, and its width and height."""
    from PIL import Image

    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            if image.format == "JPEG":
                return path.read_bytes(), image.size
            return _encoded(image), image.size
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: no readable JPEG or PNG picture ({error}); move it away") from None


def _encoded(image: Any) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return out.getvalue()
