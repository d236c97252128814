"""A build that is asked for: its options, its labels as read, the splits that are kept, and the digest of it all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256
from livetrain.core.progress import watched
from shards import build_checks, existing, split
from shards.bucket import Bucket
from shards.existing import Kept
from shards.format import manifest
from shards.labels import Columns, Labels, read_labels
from shards.shard_writer import BUILD_FOLDER
from shards.stores import StoreOptions
from shards.videos import Folder, Video, find

KEPT = "kept.csv"  # in the build folder


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
    sizes: NDArray[np.int64]
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
        if options.keep and before and not any(before.of(labels)):
            build_checks.warn(
                f"--keep {options.keep}: knows no name or person among these videos; who has the same file as a video "
                "there will keep its split, and nobody else"
            )
        rows = watched(labels.rows, len(labels.rows), "look at files", "videos")
        sizes = np.fromiter((Video(videos, row.video).size() for row in rows), np.int64, len(labels.rows))
        digest = _digest(options.decisive(), labels, sizes)
        request = Request(videos, out, options, labels, before, sizes, digest, bucket)
        request.assigned(labels)
        return request

    def assigned(self, labels: Labels) -> Sequence[str]:
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


def _digest(decisive: dict[str, Any], labels: Labels, sizes: NDArray[np.int64]) -> str:
    """SHA-256 of the JSON text [decisive, [row, …], [size, …]], of which a piece is in memory at once."""
    digest = hashlib.sha256()
    for piece in _texts(decisive, labels, sizes):
        digest.update(piece.encode())
    return digest.hexdigest()


def _texts(decisive: dict[str, Any], labels: Labels, sizes: NDArray[np.int64]) -> Iterator[str]:
    yield f"[{json.dumps(decisive, sort_keys=True)}, ["
    for place, row in enumerate(watched(labels.rows, len(labels.rows), "checksum of labels", "rows")):
        yield (", " if place else "") + json.dumps(vars(row), sort_keys=True)
    yield "], ["
    for place, size in enumerate(sizes):
        yield f"{', ' if place else ''}{size}"
    yield "]]"


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
