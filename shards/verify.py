"""Verify a shard folder by reading all of it, and name what is damaged: files, and samples within tars.

Checked: the manifest's own checksum and the SHA-256 of every file. A tar that differs is looked into (a thorough check
looks into all): its structure against its .idx and the index, each sample's media against its checksum (that of the
original, or the one in its JSON), and that the media decode to the number of frames the index states.
"""

from __future__ import annotations

import functools
import io
import json
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from livetrain.core import worker_pool
from livetrain.core.columns import Lazy
from livetrain.core.engines import ONE_PROCESS, Engine
from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256
from livetrain.core.progress import progress
from livetrain.core.remote import Folder, Url
from shards.at_hand import at_hand, tars_in
from shards.format import index_table, manifest
from shards.format.probe import RejectedVideo, probe
from shards.format.tar import Member, index_text, payload_offsets, payload_sha256, read_members

Row = Mapping[str, Any]
# Not the split: `shards split` changes it in the index, and leaves the tars as they are.
FIELDS = ("domain", "subject", "attack_type", "video", "num_frames", "width", "height", "rotation", "coded_width",
          "coded_height", "codec", "pixel_format", "is_interlaced", "is_regular")  # fmt: skip


@dataclass(frozen=True)
class CheckTask:
    """One shard: its entry in the manifest and its rows of the index (None: the index itself is damaged)."""

    folder: Folder
    shard: Mapping[str, Any]
    rows: Sequence[Row] | None
    thorough: bool


def verify(folder: Folder, *, engine: Engine = ONE_PROCESS, thorough: bool = False) -> list[str]:
    """A line for each finding of damage in a shard folder, in the order of its files; empty when it is as built.

    What has the checksum it had when it was built is believed to be what was built, unless `thorough`. Raises UserError
    when `folder` holds no finished build, or is a URL that cannot be read.
    """
    try:
        content = read_manifest(folder)
    except ValueError as error:
        return [f"{manifest.FILE_NAME}: damaged ({error}); the other files cannot be checked without it"]
    index = None
    with at_hand(folder, content["files"]) as here:
        damage = _check_files(here, content)
        if not any(line.startswith(index_table.FILE_NAME) for line in damage):
            index = index_table.read(here / index_table.FILE_NAME)
    damage += _strays(folder, content)
    shards = content["shards"]
    task = functools.partial(_task, folder, shards, index, thorough)

    tasks = Lazy(len(shards), task)
    if isinstance(folder, Path):
        engine = engine.sharing(folder / manifest.FILE_NAME)
    findings: dict[int, list[str]] = {}
    with progress("verify", content["num_samples"], "samples") as advance:
        for position, found in engine.unordered(check_shard, tasks, ("shards.verify",)):
            name = shards[position]["name"]
            if isinstance(found, worker_pool.WorkerDied):
                found = [f"{name}: the decoder crashed on it"]
            findings[position] = found
            advance(shards[position]["num_samples"], name)
    return damage + [line for position in sorted(findings) for line in findings[position]]


def read_manifest(folder: Folder) -> dict[str, Any]:
    """What `manifest.read` returns and raises."""
    with at_hand(folder, [manifest.FILE_NAME]) as here:
        if isinstance(folder, Url) and not (here / manifest.FILE_NAME).exists():
            raise UserError(f"{folder}: no {manifest.FILE_NAME} there; it holds no shards, or their build goes on")
        return manifest.read(here)


def _task(
    folder: Folder, shards: Sequence[Mapping[str, Any]], index: pa.Table | None, thorough: bool, number: int
) -> CheckTask:
    rows = None
    if index is not None:
        first, last = np.searchsorted(index["shard"].to_numpy(), [number, number + 1])  # they are in ascending order
        rows = index.slice(first, last - first).to_pylist()
    return CheckTask(folder, shards[number], rows, thorough)


def _check_files(folder: Path, content: Mapping[str, Any]) -> list[str]:
    """The small files beside the shards."""
    damage = []
    for name, sha256 in sorted(content["files"].items()):
        problem = _file_problem(folder / name, sha256)
        if problem:
            damage.append(f"{name}: {problem}")
    return damage


def _strays(folder: Folder, content: Mapping[str, Any]) -> list[str]:
    """Shards that do not belong."""
    strays = tars_in(folder) - {shard["name"] for shard in content["shards"]}
    return [f"{name}: not part of this build" for name in sorted(strays)]


def _file_problem(path: Path, sha256: str) -> str | None:
    try:
        return None if file_sha256(path) == sha256 else "SHA-256 differs from when it was built"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def check_shard(task: CheckTask) -> list[str]:
    """The damage in one shard and its .idx: the task of a worker process."""
    path = Path(task.shard["name"])
    with at_hand(task.folder, [path.name, path.with_suffix(".idx").name]) as here:
        return _check_shard(here / path, task)


def _check_shard(path: Path, task: CheckTask) -> list[str]:
    name = path.name
    problem = _file_problem(path, task.shard["sha256"])
    if problem and not problem.startswith("SHA-256"):
        return [f"{name}: {problem}"]
    if problem is None and not task.thorough:
        return _check_idx(path.with_suffix(".idx"), task.shard["idx_sha256"], None)
    damage = [f"{name}: {problem}"] if problem else []
    size = path.stat().st_size
    if size != task.shard["bytes"]:
        damage.append(f"{name}: {size} bytes, {task.shard['bytes']} when it was built")
    try:
        members = list(read_members(path))
    except (tarfile.TarError, EOFError, ValueError) as error:
        damage.append(f"{name}: tar structure damaged: {error}")
        members = []
    damage += _check_idx(path.with_suffix(".idx"), task.shard["idx_sha256"], None if damage else members)
    if task.rows is not None:
        by_key: dict[str, list[Member]] = {}
        for member in members:
            by_key.setdefault(member.key, []).append(member)
        with path.open("rb") as file:
            for row in task.rows:
                found = _check_sample(row, by_key.get(row["key"], []), file)
                damage += [f"{name}: sample {row['key']}: {found}"] if found else []
    return damage


def _check_idx(path: Path, sha256: str, members: Sequence[Member] | None) -> list[str]:
    """Damage to an .idx; `members` are those of its tar (None: the tar is damaged and says nothing about the .idx)."""
    problem = _file_problem(path, sha256)
    if problem is None and members is not None and path.read_bytes() != index_text(members).encode():
        problem = "does not describe its tar"
    return [f"{path.name}: {problem}"] if problem else []


def _check_sample(row: Row, members: Sequence[Member], file: io.BufferedReader) -> str | None:
    """What is wrong with one sample, whose members the tar says to be `members`: the first finding."""
    offsets = payload_offsets(row)
    if [(member.offset, member.size) for member in members[:-1]] != offsets:
        return "the tar's members are not where the index says"
    payloads = [_read(file, offset, size) for offset, size in offsets]
    description = members[-1]
    try:
        fields = json.loads(_read(file, description.offset, description.size))
        fields |= {new: fields[old] for old, new in index_table.RENAMED.items() if old in fields}
        stated = {name: fields[name] for name in (*FIELDS, "sha256")}
    except (ValueError, KeyError, TypeError):
        return "its JSON is damaged"
    sha256 = payload_sha256(payloads)
    as_stored = sha256 == stated["sha256"] and [zlib.crc32(payload) for payload in payloads] == row["crc32"]
    if not as_stored or (row["store"] == "original" and sha256 != row["sha256"]):
        return f"its media differ from what was stored of {row['video']}"
    differing = [name for name in FIELDS if stated[name] != row[name]]
    if differing:
        return f"its JSON and the index differ in {', '.join(differing)}"
    return _check_decoding(row, payloads)


def _read(file: io.BufferedReader, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _check_decoding(row: Row, payloads: Sequence[bytes]) -> str | None:
    try:
        if row["store"] == "frames":
            sizes = {_jpeg_size(payload) for payload in payloads}
            num_frames, size = len(payloads), sizes.pop() if len(sizes) == 1 else None
        else:
            facts = probe(payloads[0])
            num_frames, size = facts.num_frames, (facts.coded_width, facts.coded_height)
    except (RejectedVideo, OSError, SyntaxError) as error:
        return f"it does not decode: {error}"
    stated = (row["num_frames"], (row["coded_width"], row["coded_height"]))
    if (num_frames, size) != stated:
        return f"it decodes to (frames, (width, height)) {(num_frames, size)}, the index says {stated}"
    return None


def _jpeg_size(data: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.load()
        return image.size
