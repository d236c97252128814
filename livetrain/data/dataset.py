"""Shard folders as the trainer sees them: the manifest, the columns of the index, and the bytes of any sample.

Reads are lazy: the index is memory-mapped, and a sample's bytes are one `pread` of its range. The ShardReader knows
whether a folder is on a disk or in a bucket. Several folders (`data.sources`) form one data set: their rows are
concatenated, keys and videos are named `FOLDER/…`, and subjects `DOMAIN/…`, because the same name in two data sets
means two people.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from livetrain.config import DataConfig
from livetrain.config.split_spec import ALL, Selection
from livetrain.core.columns import objects, whole
from livetrain.core.errors import UserError
from livetrain.core.remote import Folder, Url
from livetrain.data import decode, face_tracks
from livetrain.data.crop import Cut
from livetrain.data.decoders import colours_of
from livetrain.data.face_tracks import Faces
from livetrain.data.joined_index import joined
from livetrain.data.jpegs import decode_jpegs
from livetrain.data.shard_set import ShardSet, open_shard_set, read_rejected, shard_name, with_domain
from shards.format import index_table

ROWS_AT_ONCE = 2**20
MOST_IN_BETWEEN = 2  # frames are read at once, with what lies between them, up to so many times their bytes


class FetchError(Exception):
    """The bytes of a sample are not where the index says (missing or cut shard, changed payload)."""


@dataclass
class Dataset:
    """One shard folder, or several. Open it with `Dataset.of` or `open`; `len()` counts samples of all splits."""

    shard_sets: list[ShardSet]
    columns: pa.Table
    _arrays: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    _words: dict[str, tuple[NDArray[np.int32], NDArray[Any]]] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(config: DataConfig) -> Dataset:
        """Open `data.shards`, or all of `data.sources` as one data set.

        A folder without a domain is a domain of its own, of the folder's name. Raises UserError as `open`, and for
        folders of the same name or without any.
        """
        if not config.sources:
            return Dataset.open(config.shards, config)
        parts = [Dataset.open(where, config) for where in config.sources]
        names = [str(part.root).rstrip("/").rpartition("/")[2] for part in parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(
                f"data.sources: two folders are called {twice[0]!r}; their clips need names apart: rename one"
            )
        shard_sets: list[ShardSet] = []
        tables, first = [], 0
        for name, part in zip(names, parts, strict=True):
            shard_sets.append(dataclasses.replace(part.shard_sets[0], name=name, first_row=first))
            tables.append(with_domain(part.columns, name))
            first += len(part)
        made_of = [f"{source.name} {source.manifest['files'][index_table.FILE_NAME]}" for source in shard_sets]
        digest = hashlib.sha256(" ".join(made_of).encode()).hexdigest()
        return Dataset(shard_sets, joined(tables, digest, config))

    @staticmethod
    def open(where: str | Path, config: DataConfig | None = None) -> Dataset:
        """Open the shard folder `where`, a path or a URL; for a URL, `config` says how it is cached (None: defaults).

        Raises UserError when it cannot be read, or is not a finished shard folder of this format.
        """
        part = open_shard_set(where, config or DataConfig())
        with part.reader.file(index_table.FILE_NAME) as path:
            return Dataset([part], index_table.read(path))

    @property
    def root(self) -> Folder:
        """Where the data set is; of several folders, the first."""
        return self.shard_sets[0].root

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of dataset.json.

        Of several folders, with sums of counts, all shards, and `store` "mixed" where they differ.
        """
        all_of = [source.manifest for source in self.shard_sets]
        if len(all_of) == 1:
            return all_of[0]
        stores = {content["store"] for content in all_of}
        return {
            **all_of[0],
            "store": stores.pop() if len(stores) == 1 else "mixed",
            "has_subjects": all(content["has_subjects"] for content in all_of),
            "shards": [shard for content in all_of for shard in content["shards"]],
            "num_samples": sum(content["num_samples"] for content in all_of),
            "num_rejected": sum(content["num_rejected"] for content in all_of),
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        """The same for the same clips, labels and splits in the same order, wherever they are."""
        digests = [source.manifest["files"][index_table.FILE_NAME] for source in self.shard_sets]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def shard_set_of(self, row: int) -> ShardSet:
        """The folder that `row` is in."""
        return self.shard_sets[bisect.bisect_right(self.shard_sets, row, key=lambda source: source.first_row) - 1]

    def __len__(self) -> int:
        return self.columns.num_rows

    def column(self, name: str) -> NDArray[Any]:
        """A column of numbers as NumPy array [num_samples]: a view of the mapped file."""
        if name not in self._arrays:
            self._arrays[name] = whole(self.columns[name]).to_numpy()  # in one piece, as index_table writes it
        return self._arrays[name]

    def codes(self, name: str) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """A column of few different words as numbers, and the words.

        int32 [num_samples] (of one folder a view of the mapped file) and object [num_words] (some perhaps of no
        sample).
        """
        if name not in self._words:
            column = whole(self.columns[name])
            words = np.array(column.dictionary.to_pylist(), dtype=object)
            self._words[name] = column.indices.to_numpy(), words
        return self._words[name]

    def frame_seconds(self, row: int) -> NDArray[np.float32]:
        """Seconds of a sample's frames after the first: float32 [num_frames], or [0] where they are evenly spaced."""
        found: NDArray[np.float32] = self.columns["frame_seconds"][row].values.to_numpy()
        return found

    def text(self, name: str, row: int) -> str:
        """The value of a column of strings at `row`.

        Of several folders, a key and a video are named FOLDER/…; where there are several domains, a person is DOMAIN/….
        """
        value = str(self.columns[name][row].as_py())
        if name in ("key", "video"):
            return self._named(self.shard_set_of(row), value)
        if name == "subject" and value and len(self.domains) > 1:
            return f"{self.columns['domain'][row].as_py()}/{value}"
        return value

    def texts(self, name: str, rows: NDArray[np.integer]) -> NDArray[Any]:
        """`text` of many rows: object [n]."""
        words = objects(whole(self.columns[name].take(pa.array(rows))))
        if name in ("key", "video") and len(self.shard_sets) > 1:
            sources = [source.name for source in self.shard_sets]
            number = np.searchsorted([source.first_row for source in self.shard_sets], rows, side="right") - 1
            return np.array([f"{sources[n]}/{word}" for n, word in zip(number, words, strict=True)], dtype=object)
        if name == "subject" and len(self.domains) > 1:
            domains = self.texts("domain", rows)
            pairs = zip(domains, words, strict=True)
            return np.array([f"{domain}/{word}" if word else word for domain, word in pairs], dtype=object)
        return words

    @functools.cached_property
    def domains(self) -> list[str]:
        """The domains of its samples, sorted."""
        codes, words = self.codes("domain")
        return sorted(words[np.bincount(codes, minlength=len(words)) > 0].tolist())

    def num_subjects(self, rows: NDArray[np.integer]) -> int:
        """How many people the samples `rows` are of, as far as they are known."""
        (subject, names), (domain, _) = self.codes("subject"), self.codes("domain")
        known = rows[(names != "")[subject[rows]]]
        return len(np.unique(domain[known].astype(np.int64) * len(names) + subject[known]))

    def contents(self, rows: NDArray[np.integer]) -> NDArray[np.uint64]:
        """The first 64 bits of the SHA-256 of the original of each of the samples `rows`: uint64 [n]."""
        found = np.empty(len(rows), np.uint64)
        column = self.columns["sha256"]
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = column.take(pa.array(rows[first : first + ROWS_AT_ONCE])).combine_chunks()
            heads = pc.binary_slice(pc.cast(part, pa.binary()), 0, 16)
            digits = np.frombuffer(heads.buffers()[2], np.uint8)[: 16 * len(part)].reshape(-1, 16)
            values = np.where(digits > ord("9"), digits - ord("a") + 10, digits - ord("0")).astype(np.uint8)
            found[first : first + ROWS_AT_ONCE] = (values[:, ::2] << 4 | values[:, 1::2]).copy().view(">u8")[:, 0]
        return found

    def rows(self, split: str) -> NDArray[np.int32]:
        """Rows of a split, int32 [n], ascending.

        Or of what livetrain.config.split_spec describes (`fold1+fold2`, `train@-msu`). Raises UserError for a split or
        domain without samples.
        """
        selection = Selection.parse(split)
        (codes, names), (domain, domains) = self.codes("split"), self.codes("domain")
        kind, kinds = self.codes("attack_type")
        wanted, places = selection.which(names, "split"), selection.which(domains, "domain")
        of_kind = selection.which(kinds, "kind")
        found = np.zeros(len(names), bool)
        pieces = [np.empty(0, np.int32)]
        for first in range(0, len(self), ROWS_AT_ONCE):  # a mask and 64-bit numbers of ten million rows are 90 MB
            here = codes[first : first + ROWS_AT_ONCE]
            mask = wanted[here]
            if not places.all():
                mask &= places[domain[first : first + ROWS_AT_ONCE]]
            if not of_kind.all():
                mask &= of_kind[kind[first : first + ROWS_AT_ONCE]]
            pieces.append((first + np.flatnonzero(mask)).astype(np.int32))
            found[here[mask]] = True
        lacking = sorted(selection.splits - set(names[found]) - {ALL})
        unknown = sorted(selection.domains.names - set(self.domains))
        if unknown:
            raise UserError(f"{split!r}: {self._title} has no domain {unknown[0]!r}; it has: {_list(self.domains)}")
        unknown = sorted(selection.kinds.names - set(kinds))
        if unknown:
            raise UserError(
                f"{split!r}: {self._title} has no clip of kind {unknown[0]!r}; it has: {_list(kinds.tolist())}"
            )
        if lacking or not found.any():
            has = _list(pc.unique(self.columns["split"]).to_pylist())
            message = f"no sample of {self._title} is in split {(lacking or [split])[0]!r}"
            whole = f" of {split!r}" if lacking and lacking != [split] else ""
            raise UserError(f"{message}{whole}; it has: {has}")
        return np.concatenate(pieces)

    def rejected(self, split: str | None = None) -> list[dict[str, str]]:
        """Videos that never reached a shard (rows of rejected.csv), of one split or of all."""
        selection = None if split is None else Selection.parse(split)
        found = []
        for source in self.shard_sets:
            for row in read_rejected(source):
                domain = row["domain"] or source.name
                if selection and not (
                    selection.takes_split(row["split"])
                    and selection.domains.takes(domain)
                    and selection.kinds.takes(row["attack_type"])
                ):
                    continue
                subject = f"{domain}/{row['subject']}" if row["subject"] and len(self.domains) > 1 else row["subject"]
                found.append(row | {"video": self._named(source, row["video"]), "domain": domain, "subject": subject})
        return found

    def shard_name(self, row: int) -> str:
        """File name of the tar that holds `row`; of several folders, with its folder."""
        source = self.shard_set_of(row)
        return self._named(source, shard_name(source, int(self.column("shard")[row])))

    def root_of(self, row: int) -> Folder:
        """The folder that holds `row`, as the user named it."""
        return self.shard_set_of(row).root

    def shard_path(self, row: int) -> Folder:
        """Where the tar that holds `row` is."""
        source = self.shard_set_of(row)
        return source.root / shard_name(source, int(self.column("shard")[row]))

    def video_bytes(self, row: int) -> bytes:
        """The bytes of a video sample, as stored. Raises FetchError; UserError when the shard cache is full."""
        return self._read(row, [(0, int(self.column("offset")[row]), int(self.column("size")[row]))])[0]

    def decode(self, row: int, frames: NDArray[np.int64], cut: Cut) -> NDArray[np.uint8]:
        """Decode frames of a sample on the CPU: uint8 RGB [len(frames), cut.size, cut.size, 3].

        Raises FetchError, DecodeError; UserError when the shard cache is full.
        """
        if self.text("store", row) == "frames":
            stored, places = np.unique(frames, return_inverse=True)
            pictures = decode_jpegs(self.jpeg_bytes(row, stored))
            return cut.of_pictures([pictures[place] for place in places])
        num_frames, is_regular = (int(self.column(name)[row]) for name in ("num_frames", "is_regular"))
        data, shape = self.video_bytes(row), cut.shape(colours_of(self, row))
        return cut.windows(decode.decode_video(data, frames, num_frames, is_regular=bool(is_regular), shape=shape))

    @functools.cached_property
    def found_faces(self) -> Faces | None:
        """The faces that `shards faces` found, None where it has not looked in all folders. Raises UserError."""
        return face_tracks.find(self.shard_sets)

    @functools.cached_property
    def faces(self) -> Faces:
        """`found_faces`, for cropping. Raises UserError without, or where folders have them in different ways."""
        if self.found_faces is None:
            raise UserError(
                f"data.crop=face: {self._title} has no faces.arrow; find the faces first: livetrain shards faces DIR"
            )
        return face_tracks.alike(self.found_faces, self.shard_sets)

    def jpeg_bytes(self, row: int, frames: NDArray[np.integer]) -> list[bytes]:
        """The stored JPEGs `frames` (indices, any order) of a frame sample. Raises FetchError."""
        sizes = np.asarray(self.columns["frame_sizes"][row].as_py(), dtype=np.int64)
        # Payloads are padded to whole blocks and each next one has a header block of its own before it.
        strides = -(-sizes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE + tarfile.BLOCKSIZE
        offsets = int(self.column("offset")[row]) + np.concatenate([[0], np.cumsum(strides)[:-1]])
        members = [(int(frame), int(offsets[frame]), int(sizes[frame])) for frame in frames]
        first, last = int(frames.min()), int(frames.max())
        span = int(offsets[last] + sizes[last] - offsets[first])
        if span <= MOST_IN_BETWEEN * int(sizes[np.unique(frames)].sum()):
            return self._read(row, members)
        return [payload for member in members for payload in self._read(row, [member])]

    def row_of(self, key: str) -> int | None:
        """The row of a sample's key, None when there is none. A search of the whole column: for a few keys."""
        for source, size in zip(self.shard_sets, self._sizes(), strict=True):
            plain = key.removeprefix(self._named(source, ""))
            row = int(pc.index(self.columns["key"].slice(source.first_row, size), plain).as_py())
            if row >= 0 and self._named(source, plain) == key:
                return source.first_row + row
        return None

    @property
    def is_remote(self) -> bool:
        """Whether the shards are behind a URL, so that it pays to announce what will be read (`prefetch`)."""
        return any(isinstance(source.root, Url) for source in self.shard_sets)

    def cache_reads(self) -> tuple[int, int]:
        """(ranges read, those of shards that were in the cache) so far; (0, 0) of local folders."""
        reads, hits = zip(*(source.reader.cache_reads() for source in self.shard_sets), strict=True)
        return sum(reads), sum(hits)

    def prefetch(self, rows: NDArray[np.int64], share: float = 1.0) -> None:
        """Announce the rows that will be read next, in that order, instead of those announced before.

        Shards behind a URL are downloaded meanwhile, as far as they fit into half of the `share` of the cache that is
        this process's.
        """
        numbers, num_bytes = self.column("shard")[rows], self.column("size")[rows]
        for source, size in zip(self.shard_sets, self._sizes(), strict=True):
            whole = num_bytes > source.reader.range_bytes
            here = numbers[whole & (rows >= source.first_row) & (rows < source.first_row + size)]
            names = [shard_name(source, shard) for shard in dict.fromkeys(here.tolist())]
            source.reader.prefetch(names, share / len(self.shard_sets))

    def close(self) -> None:
        """Close the tar files opened so far (they open again when needed) and end downloads ahead of need."""
        for source in self.shard_sets:
            source.reader.close()

    def _read(self, row: int, members: Sequence[tuple[int, int, int]]) -> list[bytes]:
        """The payloads of some of a sample's media members, (number, offset, size), by one read.

        Their checksums keep damage away from decoders, which hide or crash on it (DALI 2.4.0's CPU JPEG decoder
        segfaults on two damaged pictures in a batch).
        """
        source = self.shard_set_of(row)
        shard = shard_name(source, int(self.column("shard")[row]))
        start = min(offset for _, offset, _ in members)
        num_bytes = max(offset + size for _, offset, size in members) - start
        sums = self.columns["crc32"][row].values.to_pylist()
        while True:
            generation = source.reader.generation(shard)
            try:
                data = source.reader.read(shard, start, num_bytes)
            except OSError as error:
                raise FetchError(f"{error.strerror or error}") from error
            found = [data[offset - start : offset - start + size] for _, offset, size in members]
            if all(
                len(payload) == size and zlib.crc32(payload) == sums[number]
                for payload, (number, _, size) in zip(found, members, strict=True)
            ):
                return found
            if not source.reader.distrust(shard, generation):
                break
        if len(data) < num_bytes:
            raise FetchError(f"the tar ends {num_bytes - len(data)} bytes early")
        raise FetchError("its checksum is not the one of when it was stored")

    @property
    def _title(self) -> str:
        return " + ".join(str(source.root) for source in self.shard_sets)

    def _named(self, source: ShardSet, name: str) -> str:
        return f"{source.name}/{name}" if len(self.shard_sets) > 1 else name

    def _sizes(self) -> list[int]:
        """Samples of each folder."""
        return np.diff([*(source.first_row for source in self.shard_sets), len(self)]).tolist()


def _list(names: list[str]) -> str:
    return ", ".join(sorted(names))
