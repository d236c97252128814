"""Small real videos for the tests of shards, and a corpus of them."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np

from livetrain.core.files import file_sha256
from shards import cli
from shards.demo.corpus import with_rotation
from shards.format import index_table, manifest

PEOPLE = ("ann", "bob", "cleo", "dan", "eve")
CODECS = {"h264": "libx264", "vp9": "libvpx-vp9", "mjpeg": "mjpeg"}


def pictures(num_frames: int, width: int, height: int, seed: int) -> Iterable[np.ndarray]:
    """uint8 RGB [height, width, 3]: a bright upper left corner in a noisy frame, darker frame by frame."""
    random = np.random.default_rng(seed)
    for index in range(num_frames):
        picture = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
        picture[: height // 3, : width // 3] = 250 - 10 * index
        yield picture


def video(
    num_frames: int = 6, width: int = 64, height: int = 48, fps: int = 20, seed: int = 0, kind: str = "mp4",
    codec: str = "h264", rotation: int = 0, options: dict[str, str] | None = None,
) -> bytes:  # fmt: skip
    """The bytes of a video file; `rotation` is written as metadata (mp4 only)."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind, options=options or {}) as container:
        stream: Any = container.add_stream(CODECS[codec], rate=fps)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for picture in pictures(num_frames, width, height, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    data = buffer.getvalue()
    return with_rotation(data, rotation, width, height) if rotation else data


def marked(mp4: bytes, number: int) -> bytes:
    """The same video as another file: a box that says nothing at its end."""
    return mp4 + struct.pack(">I4sQ", 16, b"free", number)


def moov_first(mp4: bytes) -> bytes:
    """The file with its index in front of the media data, chunk offsets moved accordingly."""
    boxes, position = [], 0
    while position < len(mp4):
        (size,) = struct.unpack_from(">I", mp4, position)
        boxes.append(mp4[position : position + size])
        position += size
    kinds = [box[4:8] for box in boxes]
    moov = bytearray(boxes[kinds.index(b"moov")])
    at = moov.index(b"stco") + 4
    (count,) = struct.unpack_from(">I", moov, at + 4)
    for entry in range(count):
        (offset,) = struct.unpack_from(">I", moov, at + 8 + 4 * entry)
        struct.pack_into(">I", moov, at + 8 + 4 * entry, offset + len(moov))
    rest = [box for box, kind in zip(boxes, kinds, strict=True) if kind not in (b"ftyp", b"moov")]
    return boxes[0] + bytes(moov) + b"".join(rest)


def corpus(folder: Path, *, clips_per_person: int = 4, columns: Iterable[str] = ("attack_type", "subject")) -> Path:
    """folder/videos and folder/label.csv: five people, live, print and replay, several formats. Returns `folder`."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    rows = []
    for person in PEOPLE:
        for number in range(clips_per_person):
            seed = len(rows)
            kind, codec = [("mp4", "h264"), ("matroska", "vp9"), ("avi", "mjpeg"), ("mov", "h264")][number % 4]
            suffix = {"matroska": "mkv"}.get(kind, kind)
            size = [(64, 48), (48, 64), (80, 48)][seed % 3]
            name = f"{person}-{number}.{suffix}"
            (videos / name).write_bytes(
                video(4 + seed % 5, *size, fps=15 + seed % 3 * 5, seed=seed, kind=kind, codec=codec)
            )
            attack_type = ["live", "print", "live", "replay"][number % 4]
            rows.append(
                {
                    "fname": name,
                    "liveness_score": int(attack_type == "live"),
                    "attack_type": attack_type,
                    "subject": person,
                }
            )
    write_labels(folder / "label.csv", rows, ("fname", "liveness_score", *columns))
    return folder


def write_labels(path: Path, rows: Iterable[dict[str, Any]], columns: Iterable[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def build(folder: Path, out: Path, *options: str | int | float) -> int:
    """`shards build` of a corpus into `out`, one worker by default; the exit code."""
    fixed = ["build", "--videos", folder / "videos", "--labels", folder / "label.csv", "--out", out, "--workers", 1]
    return cli.main([str(argument) for argument in [*fixed, *options]])


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, hidden ones too."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def note_changes(folder: Path) -> None:
    """Have dataset.json say that the files beside the shards are what they are now."""
    content = manifest.read(folder)
    content["files"] = {name: file_sha256(folder / name) for name in content["files"]}
    manifest.write(folder, content)


def copied(folder: Path, to: Path) -> Path:
    """A copy of a shard folder whose index says that its videos are other files."""
    shutil.copytree(folder, to)
    table = index_table.read(to / index_table.FILE_NAME)
    digests = [hashlib.sha256(f"{to.name} {sha256}".encode()).hexdigest() for sha256 in table["sha256"].to_pylist()]
    position = table.schema.get_field_index("sha256")
    index_table.write_table(
        to / index_table.FILE_NAME, table.set_column(position, index_table.SCHEMA.field("sha256"), [digests])
    )
    note_changes(to)
    return to
