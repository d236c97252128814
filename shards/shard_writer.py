"""Writing one shard, the task of a worker process: its tar, index and record appear in this order, atomically."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from livetrain.core.errors import UserError
from livetrain.core.files import HashingFile, atomic_write, write_text
from livetrain.core.remote import Folder
from shards import stores
from shards.bucket import bucket_of
from shards.format import index_table
from shards.format.probe import Probe, RejectedVideo
from shards.format.tar import Member, SampleWriter, index_text, payload_sha256, shard_name
from shards.shard_plan import Sample
from shards.stores import Stored, StoreOptions
from shards.videos import Video

BUILD_FOLDER = ".build"  # in the shard folder while a build is under way


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs. `request` identifies the build: a record of another one is not taken for finished.

    bucket: URL that the shard is moved to when it is whole; empty: it stays in `out`.
    """

    number: int
    samples: Sequence[Sample]
    videos: Folder
    out: Path
    media: StoreOptions
    request: str
    bucket: str = ""


def record_path(out: Path, number: int) -> Path:
    """What `write_shard` returned for a shard that is finished."""
    return out / BUILD_FOLDER / f"{shard_name(number)}.json"


def rows_path(out: Path, number: int) -> Path:
    """Its rows of the index, as a file of index_table."""
    return out / BUILD_FOLDER / f"{shard_name(number)}.arrow"


def write_shard(task: ShardTask) -> dict[str, Any]:
    """Write a shard's tar and index, its rows, and last the record, which is returned: request, sha256, bytes, samples.

    Raises UserError when the folder cannot be written (nothing half-written is left), or a video changed or vanished.
    """
    tar = task.out / f"{shard_name(task.number)}.tar"
    rows: list[dict[str, Any]] = []
    members: list[Member] = []
    with (
        atomic_write(tar) as temporary,
        HashingFile(temporary) as file,
        contextlib.closing(SampleWriter(file)) as writer,
    ):
        for sample in task.samples:
            stored = _stored(_read(Video(task.videos, sample.label.video), sample), sample, task.media)
            # Untouched media were hashed when they were read.
            is_untouched = stored.store == "original"
            sha256 = sample.sha256 if is_untouched else payload_sha256([data for _, data in stored.payloads])
            description = _description(sample, stored.facts, sha256)
            written = writer.write(sample.key, stored.payloads, description)
            members += written
            rows.append(_row(sample, stored, written[:-1], task.number))
    write_text(tar.with_suffix(".idx"), index_text(members))
    record = {"request": task.request, "sha256": file.sha256, "bytes": tar.stat().st_size, "num_samples": len(rows)}
    if task.bucket:
        for path in (tar, tar.with_suffix(".idx")):
            bucket_of(task.bucket).put(path)
    index_table.write(rows_path(task.out, task.number), rows)
    write_text(record_path(task.out, task.number), json.dumps(record))
    if task.bucket:
        tar.unlink()
    return record


def _read(video: Video, sample: Sample) -> bytes:
    try:
        data = video.read()
    except OSError as error:
        raise UserError(f"{video}: cannot read it: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != sample.sha256:
        raise UserError(f"{video}: changed while the build was running; run the same command again")
    return data


def _stored(data: bytes, sample: Sample, media: StoreOptions) -> Stored:
    """What is kept of a video."""
    try:
        return stores.store(sample.label.video, data, sample.facts, media)
    except (RejectedVideo, av.FFmpegError) as error:
        raise UserError(
            f"{sample.label.video}: it decodes, but cannot be stored as {media.store}: {error}; move the video away"
        ) from error


def _description(sample: Sample, facts: Probe, sha256: str) -> bytes:
    """The sample's JSON, for those who read the tar without the index. `sha256` is that of the media stored here."""
    label = sample.label
    fields = {
        "label": label.label,
        "domain": label.domain,
        "subject": label.subject,
        "attack_type": label.attack_type,
        "split": sample.split,
        "video": label.video,
        **facts.stored(),
        "sha256": sha256,
    }
    del fields["duration_seconds"], fields["frame_seconds"]
    return json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()


def _row(sample: Sample, stored: Stored, members: Sequence[Member], shard: int) -> dict[str, Any]:
    """A row of index.arrow (see index_table.SCHEMA) for media that were written as `members`."""
    return {
        "key": sample.key,
        **vars(sample.label),
        "split": sample.split,
        "shard": shard,
        "offset": members[0].offset,
        "size": members[-1].offset + members[-1].size - members[0].offset,
        "frame_sizes": [member.size for member in members] if stored.store == "frames" else [],
        "crc32": [zlib.crc32(payload) for _, payload in stored.payloads],
        "store": stored.store,
        **stored.facts.stored(),
        "frame_numbers": list(stored.frame_numbers),
        "sha256": sample.sha256,
    }
