"""dataset.json: what a shard folder holds. Written last, so a folder that has it is complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256, write_text
from shards.format import index_table, rejected
from shards.format.tar import shard_name

FILE_NAME = "dataset.json"
FORMAT = 6  # 5: the index has the colours and the uneven times of videos; 6: `subject` instead of `group`
RENAMED = {"group_column": "subject_column", "has_groups": "has_subjects", "num_groups": "num_subjects"}  # since 5


def describe(
    out: Path,
    records: Sequence[Mapping[str, Any]],
    rows: pa.Table,
    num_rejected: int,
    subject_column: str,
    request: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest of a folder whose other files are all written. `rows`: the index."""
    options = request["options"]
    return {
        "format": FORMAT,
        "store": options["store"],
        "seed": options["seed"],
        "subject_column": subject_column,
        "has_subjects": bool(subject_column),
        "num_samples": len(rows),
        "num_rejected": num_rejected,
        "splits": split_counts(rows),
        "shards": shard_entries(out, records),
        "files": {
            name: file_sha256(out / name)
            for name in (index_table.FILE_NAME, index_table.PARQUET_NAME, rejected.FILE_NAME)
        },
        "options": options,
        "request": request["request"],
    }


def shard_entries(out: Path, records: Sequence[Mapping[str, Any]], first: int = 0) -> list[dict[str, Any]]:
    """What the manifest says of shards that are written, numbered from `first`."""
    return [
        {
            "name": f"{shard_name(number)}.tar",
            "sha256": record["sha256"],
            "idx_sha256": file_sha256(out / f"{shard_name(number)}.idx"),
            "bytes": record["bytes"],
            "num_samples": record["num_samples"],
        }
        for number, record in enumerate(records, first)
    ]


def split_counts(index: pa.Table) -> dict[str, dict[str, int]]:
    """Samples, live ones, attacks and people of each split; of an index's columns split, label, domain, subject."""
    split, domain, subject = (index[name].unify_dictionaries().combine_chunks() for name in _PEOPLE)
    live = np.asarray(index["label"]) >= 0.5
    # A number for each person: domain and subject; none where the name is "".
    person = np.asarray(domain.indices).astype(np.int64) * len(subject.dictionary) + np.asarray(subject.indices)
    unknown = pc.index(subject.dictionary, "").as_py()
    counts = {}
    for code, name in enumerate(split.dictionary.to_pylist()):
        member = np.asarray(split.indices) == code
        if num_samples := int(member.sum()):
            known = person[member & (np.asarray(subject.indices) != unknown)]
            num_live = int(live[member].sum())
            counts[name] = {
                "num_samples": num_samples,
                "num_live": num_live,
                "num_attack": num_samples - num_live,
                "num_subjects": len(np.unique(known)),
            }
    return {name: counts[name] for name in sorted(counts)}


_PEOPLE = ("split", "domain", "subject")


def before(path: Path) -> Path:
    """Where the old content of a file is while several files of a shard folder change.

    With dataset.json as it was, it is the complete old folder.
    """
    return path.with_name(f".{path.name}.before")


def current(path: Path, sha256: str) -> Path:
    """The file at `path`, or its old content, whichever has this SHA-256.

    The old one after a change that did not reach dataset.json. Raises UserError where neither has; FileNotFoundError
    where there is none.
    """
    if file_sha256(path) == sha256:
        return path
    if before(path).exists() and file_sha256(before(path)) == sha256:
        return before(path)
    raise UserError(
        f"{path} is not the file that {FILE_NAME} there is about: the folder was copied in part, or changed; copy it "
        "whole, or build it again"
    )


@contextlib.contextmanager
def changing(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Change files that dataset.json names, and dataset.json last.

    A reader has all of them as they were, or all as they are to be, also if this process is killed in between.
    """
    content = read(folder)
    for name in names:
        path, old = folder / name, before(folder / name)
        # What an earlier change that was killed has left is kept: it is what dataset.json is about.
        if path.exists() and file_sha256(path) == content["files"].get(name):
            old.unlink(missing_ok=True)
            os.link(path, old)
    yield
    for name in names:
        before(folder / name).unlink(missing_ok=True)


def write(out: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest with a checksum over itself."""
    write_text(out / FILE_NAME, text_of(content))


def read(out: Path) -> dict[str, Any]:
    """The manifest of a shard folder. UserError when there is none; ValueError, with the reason, when it is damaged."""
    path = out / FILE_NAME
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{path}: no such file; {out} is not a shard folder, or its build was stopped: run the build again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror or error}") from error
    content = parse(text)
    return upgraded(content, path)


def upgraded(content: Mapping[str, Any], path: object) -> dict[str, Any]:
    """The content of a dataset.json with today's names. UserError, naming `path`, when its format is not read."""
    if content.get("format") == FORMAT:
        return dict(content)
    if content.get("format") != 5:
        raise UserError(
            f"{path}: format {content.get('format')!r}, this version reads 5 and {FORMAT}; build the shards again: "
            "livetrain shards build"
        )
    splits = {name: _renamed(counts) for name, counts in content["splits"].items()}
    return {**_renamed(content), "splits": splits, "format": FORMAT}


def _renamed(content: Mapping[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(name, name): value for name, value in content.items()}


def parse(text: str) -> dict[str, Any]:
    """The manifest in the text of a dataset.json, of whatever format. Raises ValueError when it is damaged."""
    content = json.loads(text)
    if not isinstance(content, dict) or text != text_of(content):
        raise ValueError("its checksum does not match its content")
    return content


def text_of(content: Mapping[str, Any]) -> str:
    """What is in dataset.json: the manifest with a checksum over itself."""
    body = {name: value for name, value in content.items() if name != "checksum"}
    checksum = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "checksum": checksum}, indent=2, sort_keys=True) + "\n"
