"""Adding videos to a shard folder: new shards behind the old ones, of which no byte changes.

Every split that was, stays; new people go where their classes are lacking. Videos that are there already, by name and
content, are passed over, so the whole of a grown collection can be given again. index.arrow, rejected.csv and
dataset.json are replaced last, all of them or none; a killed run continues with the same command.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from livetrain.core.columns import Lazy, Places, Strings, rows_of
from livetrain.core.engines import ONE_PROCESS, Engine
from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256, write_json, write_text
from livetrain.core.progress import progress
from livetrain.core.remote import Folder
from shards import build, build_checks, build_plan, probing, shard_plan, split
from shards.build_plan import Tasks
from shards.build_request import Options
from shards.existing import Kept
from shards.format import face_table, index_table, manifest
from shards.format import rejected as rejected_
from shards.labels import Label, LabelRows, Labels, read_labels
from shards.shard_writer import BUILD_FOLDER, ShardTask, record_path, rows_path
from shards.videos import Video, find

REQUEST = "append.json"  # in the build folder
SAME = ("label", "attack_type", "subject", "session", "device", "domain")  # of a video that is there already
NUM_SHOWN = 3

Row = Mapping[str, Any]


def append(
    videos: Folder, labels_file: Path, out: Path, options: Options, *, engine: Engine = ONE_PROCESS
) -> dict[str, Any]:
    """Add the labelled videos that the shard folder `out` does not have; returns the new content of dataset.json.

    Raises UserError for bad input, for other options than the folder was built with, and for videos whose content or
    label is not what it was.
    """
    try:
        content = manifest.read(out)
    except ValueError as error:
        raise UserError(f"{out / manifest.FILE_NAME}: damaged ({error}); build the shards again") from None
    _refuse_other_options(content, options)
    index_path, rejected_path = (
        manifest.current(out / name, content["files"][name]) for name in (index_table.FILE_NAME, rejected_.FILE_NAME)
    )
    index = index_table.read(index_path)
    old = _Old.of(index)
    rejected_before = rejected_.read(rejected_path)
    labels = read_labels(labels_file, find(videos), options.columns, options.domain, options.skip_unlabelled)
    if bool(labels.subject_column) != bool(content["subject_column"]):
        has, lacks = (labels_file, out) if labels.subject_column else (out, labels_file)
        raise UserError(f"{has} names people and {lacks} does not: nobody could know who is in which split")
    place_in_old = [old.place(row.video) for row in labels.rows]
    _refuse_changes(labels, place_in_old, old, videos, engine)
    new = LabelRows.of(row for row, place in zip(labels.rows, place_in_old, strict=True) if place is None)
    if not new:
        print(f"{out} has all of these videos already; nothing to do", file=sys.stderr)
        return content

    state = out / BUILD_FOLDER
    state.mkdir(exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"--out {out}: another build is writing there; wait for it or go elsewhere") from error
        digest = _digest(content["request"], options, new)
        first = len(content["shards"])
        _clear_other(out, digest, first)
        engine = engine.sharing(state / REQUEST)
        sizes = np.fromiter((Video(videos, row.video).size() for row in new), np.int64, len(new))
        probed = probing.probe_all(videos, new, sizes, out, engine, quick=options.check == "probe")
        added_labels = replace(labels, rows=new, contents=probing.contents(probed))
        both = old.with_new(added_labels)
        splits = _splits(old, rejected_before, both, options, out)
        taken = (row["key"] for row in rows_of(index.select(["key"])))
        keys = shard_plan.Keys(Strings.of(row.video for row in new), taken)
        samples, rejected = build_plan.sort(added_labels, splits, sizes, probed, keys)
        facts = build_checks.facts_of(samples)
        build_checks.warn_about_duplicates(samples, facts)
        num_known = build_checks.warn_about_known(samples, old.rows, old.contents)
        if num_known or build_checks.num_copies(facts):
            build_checks.warn_about_joined(both)
        build_checks.suggest_audit(facts, labels, out)

        shards = shard_plan.assign_shards(samples, options.media, int(options.shard_mb * 1e6), options.seed)
        tasks = Tasks(samples, shards, ShardTask(first, (), videos, out, options.media, digest), first)
        records = build.write_all(tasks, engine)
        added = (index_table.read(rows_path(out, number)) for number in tasks.numbers)
        num_added = sum(record["num_samples"] for record in records)
        names = {row["video"] for row in rejected_before}
        again = {row.video for row in new if row.video in names}
        stay = [row for row in rejected_before if row["video"] not in again]
        with manifest.changing(out, [rejected_.FILE_NAME, index_table.FILE_NAME, index_table.PARQUET_NAME]):
            write_text(out / rejected_.FILE_NAME, build_plan.rejected_text([*map(_rejection, stay), *rejected]))
            index_table.write_joined(out / index_table.FILE_NAME, itertools.chain([index], added), state)
            table = index_table.read(out / index_table.FILE_NAME)
            index_table.write_parquet(out / index_table.PARQUET_NAME, out / index_table.FILE_NAME)
            files = [name for name in content["files"] if name != face_table.FILE_NAME]
            content |= {
                "shards": [*content["shards"], *manifest.shard_entries(out, records, first)],
                "splits": manifest.split_counts(table),
                "num_samples": len(table),
                "num_rejected": len(stay) + len(rejected),
                "files": {name: file_sha256(out / name) for name in files},
                "request": digest,
                "appended": [*content.get("appended", []), num_added],
            }
            manifest.write(out, content)
        build_checks.warn_about_splits(build_checks.classes_of(table), content["splits"])
        for number in tasks.numbers:
            record_path(out, number).unlink()
        probed.close()
        build.remove_state(state)
    with contextlib.suppress(OSError):  # as in a build
        state.rmdir()
    if (out / face_table.FILE_NAME).exists():
        (out / face_table.FILE_NAME).unlink()
        print(f"{out}: new clips have no faces yet; run python -m shards faces {out} again", file=sys.stderr)
    print(f"{num_added:,} videos added, {len(labels.rows) - len(new):,} were there already", file=sys.stderr)
    return content


def _clear_other(out: Path, digest: str, first: int) -> None:
    """Remove the shards that another append, which was killed, has left behind those of the folder."""
    path = out / BUILD_FOLDER / REQUEST
    if not path.exists() or json.loads(path.read_text(encoding="utf-8")).get("request") != digest:
        for shard in out.glob("shard-*.*"):
            if int(shard.stem.partition("-")[2]) >= first:
                shard.unlink()
    write_json(path, {"request": digest})


def _refuse_other_options(content: Row, options: Options) -> None:
    before = content["options"]
    names = [*asdict(options.media), "fractions", "folds", "protocol", "seed", "check"]
    changed = [name for name in names if options.decisive().get(name) != before.get(name)]
    if changed:
        listed = ", ".join(f"{name}={before.get(name)!r}" for name in changed)
        raise UserError(f"--append: the folder was built with {listed}; give the same options")


@dataclass(frozen=True)
class _Old:
    """The videos that a folder has, as labels, with their content; `places` finds a name."""

    rows: LabelRows
    contents: probing.Contents
    names: Strings
    places: Places

    @staticmethod
    def of(index: pa.Table) -> _Old:
        rows = LabelRows.of(Label(**row) for row in rows_of(index.select([*SAME, "video", "split"])))
        contents = probing.Contents((row["sha256"] for row in rows_of(index.select(["sha256"]))), len(rows))
        names = Strings.of(row.video for row in rows)
        return _Old(rows, contents, names, Places(names))

    def place(self, video: str) -> int | None:
        """Where a video is among them."""
        return next(iter(self.places.exact(video, self.names)), None)

    def with_new(self, new: Labels) -> Labels:
        """These videos and new ones behind them, with the content of all."""
        contents = probing.Contents(itertools.chain(self.contents, new.contents), len(self.rows) + len(new.rows))
        return replace(new, rows=LabelRows.of(itertools.chain(self.rows, new.rows)), contents=contents)


def _refuse_changes(
    labels: Labels, place_in_old: Sequence[int | None], old: _Old, videos: Folder, engine: Engine
) -> None:
    """Videos that are there already must be what they were: their files, and what is said of them."""
    there = [(i, place) for i, place in enumerate(place_in_old) if place is not None]
    said, files = [], []
    for i, place in there:
        row, was = labels.rows[i], old.rows[place]
        row = replace(row, label=float(np.float32(row.label)))  # as the index has it
        if any(getattr(row, name) != getattr(was, name) for name in SAME):
            said.append(row.video)
    paths = Lazy(len(there), lambda n: Video(videos, labels.rows[there[n][0]].video))
    with progress("compare", len(there), "videos") as advance:
        for position, sha256 in engine.unordered(_sha256, paths, build.PRELOAD):
            i, place = there[position]
            if sha256 != old.contents[place]:
                files.append(labels.rows[i].video)
            advance(1, labels.rows[i].video)
    for changed, what in ((sorted(said), "are labelled otherwise than"), (sorted(files), "are other files than")):
        if changed:
            shown = ", ".join(changed[:NUM_SHOWN]) + (", …" if len(changed) > NUM_SHOWN else "")
            raise UserError(
                f"--append: {len(changed):,} videos {what} when they were added ({shown}); give new ones other names, "
                "or build again with --overwrite, which keeps the splits"
            )


def _sha256(video: Video) -> str:
    """The task of a worker process; "" for what cannot be read."""
    try:
        return hashlib.sha256(video.read()).hexdigest()
    except OSError:
        return ""


def _splits(old: _Old, rejected: Sequence[Row], both: Labels, options: Options, out: Path) -> Sequence[str]:
    """The splits of new rows, beside the old ones, which keep theirs."""
    was = (vars(row) | {"sha256": sha256} for row, sha256 in zip(old.rows, old.contents, strict=True))
    kept = Kept.of_rows(itertools.chain(was, rejected), str(out))
    splits = split.assign(
        both, options.shares(), options.seed, protocol=options.protocol, kept=kept, allow_leak=options.allow_leak
    )
    return splits[len(old.rows) :]


def _rejection(row: Row) -> tuple[Label, str, str]:
    names = ("video", "attack_type", "subject", "domain", "split")
    label = Label(**{name: row[name] for name in names}, label=float(row["label"]), session="", device="")
    return label, row["split"], row["reason"]


def _digest(request: str, options: Options, new: Sequence[Label]) -> str:
    """SHA-256 of what is added; a killed run of the same is continued."""
    digest = hashlib.sha256(repr([request, asdict(options.media)]).encode())
    for row in new:
        digest.update(repr(row).encode())
    return digest.hexdigest()
