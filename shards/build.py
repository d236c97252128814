"""Building a shard folder: read labels, split, probe all videos, plan the shards, write them, then the index.

    videos + label.csv ── labels ▶ split ▶ probe ▶ plan ▶ write (one worker a shard) ▶ index.arrow, dataset.json

While a build is under way the folder holds `.build/`: the request (to refuse other options), a line for each probed
video, a record for each finished shard. A killed build therefore continues where it stopped; `dataset.json` is written
last and `.build/` then removed. Probing comes first and decodes every video, which costs a second read of each source,
and buys that bad videos are known, and the shards planned, before anything large is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from livetrain.core import worker_pool
from livetrain.core.engines import ONE_PROCESS, Engine
from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256, write_json, write_text
from livetrain.core.progress import progress
from shards import build_checks, existing, shard_plan, split
from shards.bucket import Bucket, sizes_at_start
from shards.existing import Kept
from shards.format import index_table, manifest
from shards.format import rejected as rejected_
from shards.format.tar import shard_name
from shards.labels import Columns, Label, Labels, read_labels
from shards.probing import PRELOAD, Probed, contents, probe_all
from shards.shard_writer import BUILD_FOLDER, ShardTask, record_path, write_shard
from shards.stores import StoreOptions
from shards.videos import Folder, Video, find

KEPT = "kept.csv"  # in the build folder
REQUEST = "request.json"  # there too
OUR_FILES = (
    "dataset.json", "shard-*.tar", "shard-*.idx", "index.arrow", "index.parquet", "rejected.csv", "faces.arrow",
    "faces_missing.csv", ".*.tmp",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What decides the content of the shard folder, besides the videos and labels."""

    media: StoreOptions = StoreOptions()
    shard_mb: float = 256  # 10^6 bytes of samples a shard; a larger video gets a shard of its own
    seed: int = 0
    fractions: str = "0.6,0.2,0.2"  # train, dev, test
    folds: int = 0  # above 0: splits fold0, fold1, … of equal size in their place
    columns: Columns = field(default_factory=Columns)
    check: str = "decode"  # "probe": see probe.probe's `quick`
    domain: str = ""  # of all videos; empty: as the label file says
    skip_unlabelled: bool = False
    allow_leak: bool = False  # a split column that has a person in two splits
    protocol: str = split.STRATIFIED  # see shards.split
    keep: Path | None = None  # whoever has a split there keeps it: see shards.existing
    reassign: bool = False  # also in `out` itself, which is replaced

    def as_dict(self) -> dict[str, Any]:
        """As dataset.json tells them; what columns are called decides nothing but what the labels say."""
        columns = {f"columns_{name}": value for name, value in asdict(self.columns).items()}
        return {**asdict(self.media), **columns, **self.decisive()}

    def decisive(self) -> dict[str, Any]:
        """What makes another build, beside labels and videos."""
        rest: dict[str, Any] = {"shard_mb": self.shard_mb, "seed": self.seed, "folds": self.folds}
        rest |= {"fractions": list(self.shares().values()), "check": self.check, "domain": self.domain}
        rest |= {"protocol": self.protocol, "keep": file_sha256(existing.file_of(self.keep)) if self.keep else ""}
        return {**asdict(self.media), **rest}

    def shares(self) -> dict[str, float]:
        """The share of each split to be."""
        return split.fold_fractions(self.folds) if self.folds else split.parse_fractions(self.fractions)


@dataclass(frozen=True)
class Request:
    """A build that is asked for: its labels as read, the splits that are kept, bytes of each video, its digest."""

    videos: Folder
    out: Path
    options: Options
    labels: Labels
    before: Kept | None
    sizes: list[int]
    digest: str
    bucket: Bucket | None = None

    @staticmethod
    def read(
        videos: Folder,
        labels_file: Path,
        out: Path,
        options: Options,
        *,
        overwrite: bool = False,
        bucket: Bucket | None = None,
    ) -> Request:
        """Raises UserError for bad input: what is wrong is known before hours of decoding."""
        labels = read_labels(labels_file, find(videos), options.columns, options.domain, options.skip_unlabelled)
        for notice in labels.notices:
            build_checks.warn(notice)
        build_checks.warn_without_subjects(labels, labels_file)
        before = _kept(out, options, overwrite, bucket)
        if labels.split_column:
            if options.keep or options.protocol != split.STRATIFIED:
                raise UserError(
                    f"{labels_file}: its column {labels.split_column!r} decides the splits, so --keep and --protocol "
                    "have no effect; leave them out, or let the builder split: --columns split="
                )
            before = None
        sizes = [Video(videos, row.video).size() for row in labels.rows]
        digest = _digest([options.decisive(), [vars(row) for row in labels.rows], sizes])
        request = Request(videos, out, options, labels, before, sizes, digest, bucket)
        request.assigned(labels)
        return request

    def assigned(self, labels: Labels) -> list[str]:
        """The split of each row."""
        return split.assign(
            labels, self.options.shares(), self.options.seed, protocol=self.options.protocol, kept=self.before,
            allow_leak=self.options.allow_leak,
        )  # fmt: skip

    @property
    def is_quick(self) -> bool:
        """Whether videos are probed without decoding all of them."""
        return self.options.check == "probe"

    def about(self) -> dict[str, Any]:
        """As request.json and dataset.json have it."""
        return {"options": self.options.as_dict(), "request": self.digest}


@dataclass(frozen=True)
class Plan:
    """What a build does when all videos are probed: its labels, splits, samples, what it rejects, its shards."""

    labels: Labels
    splits: list[str]
    samples: list[shard_plan.Sample]
    rejected: list[tuple[Label, str, str]]
    tasks: list[ShardTask]

    @staticmethod
    def of(request: Request, probed: Sequence[Probed]) -> Plan:
        """Pure: parts of a build plan the same."""
        labels = replace(request.labels, contents=contents(probed))
        splits = request.assigned(labels)
        keys = shard_plan.keys(row.video for row in labels.rows)
        samples, rejected = sort(labels.rows, splits, request.sizes, probed, keys)
        options, bucket = request.options, request.bucket.url if request.bucket else ""
        shards = shard_plan.assign_shards(samples, options.media, int(options.shard_mb * 1e6), options.seed)
        tasks = [
            ShardTask(number, shard, request.videos, request.out, options.media, request.digest, bucket)
            for number, shard in enumerate(shards)
        ]
        return Plan(labels, splits, samples, rejected, tasks)

    def report(self, out: Path) -> None:
        """Write rejected.csv, and warn of what is odd. Raises UserError where nothing useful is left."""
        write_text(out / rejected_.FILE_NAME, rejected_text(self.rejected))
        build_checks.refuse_useless(self.samples, self.rejected, out)
        build_checks.warn_about_splits(self.samples, self.splits)
        build_checks.warn_about_duplicates(self.samples)
        build_checks.suggest_audit(self.samples, self.labels, out)


def build(
    videos: Folder,
    labels_file: Path,
    out: Path,
    options: Options,
    *,
    engine: Engine = ONE_PROCESS,
    overwrite: bool = False,
    bucket: Bucket | None = None,
) -> dict[str, Any]:
    """Build the shard folder `out`, or finish a build that was killed; returns the content of dataset.json.

    With `bucket` the shard folder is there, and `out` is local and gone at the end.

    Raises UserError for bad input, for an `out` that holds another build (unless `overwrite`), cannot be written or is
    full; finished shards stay, so that the same command resumes.
    """
    request = Request.read(videos, labels_file, out, options, overwrite=overwrite, bucket=bucket)
    if bucket:
        sizes_at_start.cache_clear()
        (out / manifest.FILE_NAME).unlink(missing_ok=True)  # of a build that was killed before all was there
    there = None if overwrite or not bucket else bucket.finished()
    if bucket and there and same_content(there, request.about(), bucket.url):
        print(f"{bucket.url} is built already, from the same videos, labels and options", file=sys.stderr)
        return there
    with _claimed(out, request.about(), overwrite, request.before) as finished:
        if finished is not None:
            print(f"{out} is built already, from the same videos, labels and options; nothing to do", file=sys.stderr)
            if "resplit" in finished:
                print(f"its splits are those of `shards split` ({finished['resplit']})", file=sys.stderr)
            return finished
        if bucket:
            bucket.withdraw()  # now that the splits to keep are noted
        engine = engine.sharing(out / BUILD_FOLDER / REQUEST)
        probed = probe_all(videos, request.labels.rows, out, engine, quick=request.is_quick)
        plan = Plan.of(request, probed)
        if request.before is not None:
            _tell_kept(request.before, plan.labels)
        plan.report(out)
        return finish(request, plan, write_all(plan.tasks, engine))


def finish(request: Request, plan: Plan, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the index and dataset.json of shards that are all there; returns the content of the latter."""
    out = request.out
    rows = index_table.joined([record["rows"] for record in records])
    index_table.write_table(out / index_table.FILE_NAME, rows)
    index_table.write_parquet(out / index_table.PARQUET_NAME, out / index_table.FILE_NAME)
    content = manifest.describe(out, records, rows, len(plan.rejected), plan.labels.subject_column, request.about())
    manifest.write(out, content)
    if request.bucket:
        request.bucket.publish(out, content)
        _remove_files(out)  # the records last: without them the folder would be somebody else's
        shutil.rmtree(out)
    else:
        shutil.rmtree(out / BUILD_FOLDER)
    return content


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _kept(out: Path, options: Options, overwrite: bool, bucket: Bucket | None) -> Kept | None:
    """The splits that are kept.

    Those of --keep, of the folder that is built again, or of the one that a killed build was replacing.
    """
    if options.keep is not None:
        return existing.read(options.keep)
    known = out / BUILD_FOLDER / KEPT
    if options.reassign:
        known.unlink(missing_ok=True)
        return None
    if known.exists():
        return existing.read(known)
    if bucket:
        return bucket.kept() if overwrite else None
    return existing.read(out) if overwrite and (out / manifest.FILE_NAME).exists() else None


def _tell_kept(before: Kept, labels: Labels) -> None:
    num_kept = sum(name is not None for name in before.of(labels))
    if num_kept:
        print(f"{num_kept:,} of {len(labels.rows):,} videos keep the split of {before.source}", file=sys.stderr)


@contextlib.contextmanager
def _claimed(
    out: Path, request: dict[str, Any], overwrite: bool, before: Kept | None
) -> Iterator[dict[str, Any] | None]:
    """Hold `out` for this build alone.

    Yields the manifest when the very same build is finished, else None. `before` outlasts what is replaced.
    """
    state = out / BUILD_FOLDER
    known = state / REQUEST
    try:
        if out.is_dir() and any(out.iterdir()) and not (state.exists() or (out / manifest.FILE_NAME).exists()):
            raise UserError(f"--out {out}: holds other files; choose a new or empty folder")
        finished = None if overwrite else same_build(out / manifest.FILE_NAME, request, out)
        if finished is not None:
            shutil.rmtree(state, ignore_errors=True)
            yield finished
            return
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "lock").open("w")
    except OSError as error:
        raise UserError(f"--out {out}: cannot write there: {error.strerror or error}; choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"--out {out}: another build is writing there; wait for it or go elsewhere") from error
        if overwrite:
            if before is not None:
                write_text(state / KEPT, before.text())
            _clear(out)
        same_build(known, request, out)
        for leftover in out.glob(".*.tmp"):  # of workers that were killed in the middle of a shard
            leftover.unlink()
        write_json(known, request)
        yield None


def same_build(path: Path, request: dict[str, Any], out: Path) -> dict[str, Any] | None:
    """The JSON at `path` if it is there and of the same request; UserError when it is of another."""
    if not path.exists():
        return None
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged; build again with --overwrite") from error
    return content if same_content(content, request, out) else None


def same_content(content: Mapping[str, Any], request: Mapping[str, Any], out: Path | str) -> bool:
    """True: what is in `out` is of the same request. Raises UserError where it is of another."""
    try:
        options, digest = content["options"], content["request"]
    except KeyError as error:
        raise UserError(f"{out}: its dataset.json is damaged; build again with --overwrite") from error
    if digest == request["request"]:
        return True
    changed = [name for name, value in request["options"].items() if options.get(name) != value]
    what = f"other options ({', '.join(changed)})" if changed else "other videos or labels"
    raise UserError(f"--out {out}: holds a build of {what}; give --overwrite to replace it, or choose another folder")


def _clear(out: Path) -> None:
    """Remove what a build leaves in `out`, and nothing else. The lock stays, and the splits that are kept."""
    _remove_files(out)
    for path in (out / BUILD_FOLDER).iterdir():
        if path.name not in ("lock", KEPT):
            path.unlink()


def _remove_files(out: Path) -> None:
    for pattern in OUR_FILES:
        for path in out.glob(pattern):
            path.unlink()


def write_all(tasks: Sequence[ShardTask], engine: Engine) -> list[dict[str, Any]]:
    """Write the shards that are not finished yet; the records of all, in order, their rows as tables."""
    records = {task.number: record for task in tasks if (record := finished_record(task)) is not None}
    todo = [task for task in tasks if task.number not in records]
    if records:
        print(f"continuing a stopped build: {len(records)} of {len(tasks)} shards are done", file=sys.stderr)
    with progress("write", sum(len(task.samples) for task in todo), "samples") as advance:
        for position, result in engine.unordered(write_shard, todo, PRELOAD):
            task = todo[position]
            if isinstance(result, worker_pool.WorkerDied):
                raise UserError(
                    f"the process that wrote {shard_name(task.number)} was killed, also on its own (is memory short?); "
                    "run the same command again with fewer --workers"
                )
            records[task.number] = result | {"rows": index_table.of_rows(result["rows"])}
            advance(len(task.samples), shard_name(task.number))
    return [records[task.number] for task in tasks]


def finished_record(task: ShardTask) -> dict[str, Any] | None:
    """The record of a shard that a stopped build finished, if it is of the same request and sources; rows: a table."""
    tar = task.out / f"{shard_name(task.number)}.tar"
    try:
        record: dict[str, Any] = json.loads(record_path(task.out, task.number).read_text(encoding="utf-8"))
        size = sizes_at_start(task.bucket).get(tar.name) if task.bucket else tar.stat().st_size
        if record["request"] != task.request or size != record["bytes"]:
            return None
        written = [(row["key"], row["split"], row["sha256"]) for row in record["rows"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    wanted = [(sample.key, sample.split, sample.sha256) for sample in task.samples]
    if written != wanted or not tar.with_suffix(".idx").exists():
        return None
    return record | {"rows": index_table.of_rows(record["rows"])}


def sort(
    rows: Sequence[Label],
    splits: Sequence[str],
    sizes: Sequence[int],
    probed: Sequence[Probed],
    keys: Mapping[str, str],
) -> tuple[list[shard_plan.Sample], list[tuple[Label, str, str]]]:
    """Labelled videos as samples for shards, and as rejected ones.

    Samples have splits, sizes in bytes, what probing found and keys; rejected are (label, split, reason).
    """
    samples, rejected = [], []
    for row, name, size, result in zip(rows, splits, sizes, probed, strict=True):
        if result.facts is None:
            rejected.append((row, name, result.reason))
        else:
            samples.append(shard_plan.Sample(keys[row.video], row, name, result.facts, size, result.sha256))
    return samples, rejected


def rejected_text(rejected: Sequence[tuple[Label, str, str]]) -> str:
    """The content of rejected.csv."""
    return rejected_.text(
        {**vars(row), "label": f"{row.label:g}", "split": name, "reason": reason} for row, name, reason in rejected
    )
