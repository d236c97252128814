"""A few frames as JPEGs, upright, in the colours that the video states (`shards.format.colour`)."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np

from shards.format.colour import RGB, ToRgb
from shards.format.probe import Probe, best_stream, decode, evenly_spaced, open_video
from shards.stores import QUALITY, Stored, StoreOptions
from shards.stores.pictures import aspect_at, scaled_size, upright_size

MAX_FRAMES = 999  # "<key>.000.jpg" to "<key>.998.jpg": the order of names is the order of frames


def num_stored(facts: Probe, media: StoreOptions) -> int:
    """How many JPEGs a video becomes: `num_frames`, or as many as its seconds times `frames_per_second`."""
    wanted = media.num_frames or round(facts.duration_seconds * media.frames_per_second)
    return max(1, min(wanted, facts.num_frames, MAX_FRAMES))


def store(data: bytes, facts: Probe, media: StoreOptions) -> Stored:
    """See shards.stores. JPEGs keep chroma at full size (4:4:4): moiré and halftone live there too."""
    from PIL import Image

    wanted = evenly_spaced(facts.num_frames, num_stored(facts, media))
    size = scaled_size(*upright_size(facts), media.short_side, media.long_side)
    jpegs: list[tuple[str, bytes]] = []
    times: list[float] = []
    chosen = set(wanted)
    first = 0.0
    to_rgb = ToRgb(facts.colours)
    with open_video(data) as container:
        for number, frame in enumerate(decode(container, best_stream(container))):
            if number == 0:
                first = frame.time or 0.0
            if number not in chosen:
                continue
            rgb = to_rgb(frame, (facts.height, facts.width))
            picture = Image.fromarray(np.ascontiguousarray(np.rot90(rgb, -facts.rotation // 90)))
            if picture.size != size:
                picture = picture.resize(size, Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            picture.save(buffer, format="JPEG", quality=media.quality or QUALITY["frames"], subsampling=0)
            times.append(round(number / facts.fps if frame.time is None else frame.time - first, 6))
            jpegs.append((f"{len(jpegs):03d}.jpg", buffer.getvalue()))
    described = replace(
        facts,
        num_frames=len(jpegs),
        fps=len(jpegs) / facts.duration_seconds,
        width=size[0],
        height=size[1],
        coded_width=size[0],
        coded_height=size[1],
        sample_aspect_ratio=aspect_at(facts, *size),
        rotation=0,
        codec="jpeg",
        pixel_format="rgb24",
        is_interlaced=False,
        is_regular=True,
        matrix=RGB,
        is_full_range=True,
        is_range_coded=True,
        frame_seconds=times,
    )
    return Stored(jpegs, described, "frames", wanted)
