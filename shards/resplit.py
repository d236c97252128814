"""Other splits for a shard folder that is built: index.arrow, rejected.csv and dataset.json change, tars do not.

The JSON within the tars keeps the split of the build; it is the index that training reads. The three files are replaced
one after the other, each atomically, dataset.json last: after a crash in between the folder is still readable, `verify`
reports it, and the same command repairs it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from livetrain.core.columns import Places, Strings, rows_of
from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256, write_text
from livetrain.core.progress import watched
from shards import build_checks, split
from shards.format import index_table, manifest
from shards.format import rejected as rejected_
from shards.labels import Label, LabelRows, Labels, read_labels
from shards.probing import Contents

PROTOCOLS = {
    "random": "train, dev and test by people (--fractions)",
    "hash": "the same by a hash of each person's name: nobody moves when others come or go; for thousands of people",
    "kfold": "fold0, fold1 … of equal size (--folds)",
    "leave_one_attack_out": "--attack A[,B] is seen in test alone",
    "leave_one_domain_out": "--domain A[,B] is test; train and dev are made of the others (--fractions)",
    "carve_dev": "train, as it is, gives a --dev-fraction of its people to dev",
    "labels": "as the column split of --labels CSV says (an official protocol); without a row: unused",
}
OPTIONS: dict[str, dict[str, Any]] = {  # of each protocol, with its default; None: required
    "random": {"fractions": "0.6,0.2,0.2"},
    "hash": {"fractions": "0.6,0.2,0.2"},
    "kfold": {"folds": 5},
    "leave_one_attack_out": {"attack": None, "fractions": "0.6,0.2,0.2"},
    "leave_one_domain_out": {"domain": None, "fractions": "0.6,0.2,0.2"},
    "carve_dev": {"dev_fraction": 0.2},
    "labels": {"labels": None},
}


@dataclass(frozen=True)
class Request:
    """A protocol of PROTOCOLS and its options by name; those not given are as in OPTIONS (None there: required)."""

    protocol: str
    seed: int = 0
    given: Mapping[str, Any] = field(default_factory=dict)
    allow_leak: bool = False

    def options(self) -> dict[str, Any]:
        """All options of the protocol. Raises UserError for one that it lacks, or has no use for."""
        known = OPTIONS[self.protocol]
        for name in self.given:
            if name not in known:
                raise UserError(f"--{name.replace('_', '-')} has no effect with --protocol {self.protocol}")
        for name, default in known.items():
            if default is None and name not in self.given:
                raise UserError(f"--protocol {self.protocol} needs --{name.replace('_', '-')}")
        if self.allow_leak and self.protocol != "labels":
            raise UserError(f"--allow-leak has no effect with --protocol {self.protocol}: no person is in two splits")
        return {**known, **self.given}

    def __str__(self) -> str:
        message = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.options().items())
        return f"--protocol {self.protocol} {message} --seed {self.seed}"


def resplit(folder: Path, request: Request) -> dict[str, Any]:
    """Split the samples and rejected videos of a shard folder again; returns the new content of dataset.json.

    Raises UserError when the folder is not a finished build, or the protocol does not fit what it holds.
    """
    options = request.options()
    try:
        content = manifest.read(folder)
    except ValueError as error:
        raise UserError(f"{folder / manifest.FILE_NAME}: damaged ({error}); build the shards again") from None
    index_path, rejected_path = (
        manifest.current(folder / name, content["files"][name]) for name in (index_table.FILE_NAME, rejected_.FILE_NAME)
    )
    index = index_table.read(index_path)
    rejected = rejected_.read(rejected_path)
    others = [_label(row | {"session": "", "device": "", "label": float(row["label"])}) for row in rejected]
    samples = watched(rows_of(index.select(COLUMNS)), index.num_rows, "read index", "samples")
    rows = LabelRows.of(itertools.chain(map(_label, samples), others))
    checksums = watched(rows_of(index.select(["sha256"])), index.num_rows, "read checksums", "samples")
    known = (row["sha256"] for row in checksums)
    contents = Contents(itertools.chain(known, ("" for _ in rejected)), len(rows))
    labels = Labels(rows, content["subject_column"], "", (), contents)
    splits = iter(_splits(labels, request, options))
    asked = _asked(request)
    if asked and len(Places(contents).repeated()):
        build_checks.warn_about_joined(labels)

    kept = index_table.words(itertools.islice(splits, index.num_rows))
    text = rejected_.text(row | {"split": name} for row, name in zip(rejected, splits, strict=True))
    position = index.schema.get_field_index("split")
    changed = index.set_column(position, index_table.SCHEMA.field("split"), kept)
    build_checks.warn_about_splits(build_checks.classes_of(changed), {*kept.dictionary.to_pylist(), *asked})
    with manifest.changing(folder, [rejected_.FILE_NAME, index_table.FILE_NAME, index_table.PARQUET_NAME]):
        write_text(folder / rejected_.FILE_NAME, text)
        index_table.write_table(folder / index_table.FILE_NAME, changed)
        index_table.write_parquet(folder / index_table.PARQUET_NAME, folder / index_table.FILE_NAME)
        content |= {
            "splits": manifest.split_counts(changed),
            "files": {name: file_sha256(folder / name) for name in {**content["files"], index_table.PARQUET_NAME: ""}},
            "resplit": str(request),
        }
        manifest.write(folder, content)
    return content


COLUMNS = ["video", "label", "attack_type", "subject", "session", "device", "split", "domain"]


def _label(row: Mapping[str, Any]) -> Label:
    return Label(**{name: row[name] for name in COLUMNS})


def _splits(labels: Labels, request: Request, options: Mapping[str, Any]) -> Sequence[str]:
    """The new split of each row."""
    seed = request.seed
    match request.protocol:
        case "random":
            return split.assign(labels, split.parse_fractions(options["fractions"]), seed)
        case "hash":
            return split.assign(labels, split.parse_fractions(options["fractions"]), seed, protocol=split.HASH)
        case "kfold":
            return split.assign(labels, split.fold_fractions(options["folds"]), seed)
        case "leave_one_attack_out":
            fractions = split.parse_fractions(options["fractions"])
            return split.leave_attack_out(labels, options["attack"].split(","), fractions, seed)
        case "leave_one_domain_out":
            fractions = split.parse_fractions(options["fractions"])
            return split.leave_domain_out(labels, options["domain"].split(","), fractions, seed)
        case "carve_dev":
            return split.carve_dev(labels, options["dev_fraction"], seed)
    return _from_labels(labels, options["labels"], allow_leak=request.allow_leak)


def _asked(request: Request) -> Collection[str]:
    """The splits that people are shared out to by the options; none where the folder's own, or a file's, decide."""
    options = request.options()
    if request.protocol == "kfold":
        return split.fold_fractions(options["folds"])
    return split.parse_fractions(options["fractions"]) if "fractions" in options else ()


def _from_labels(labels: Labels, path: Path, *, allow_leak: bool) -> Sequence[str]:
    videos = Strings.of(row.video for row in labels.rows)
    read = read_labels(path, videos, skip_unlabelled=True)
    if not read.split_column:
        raise UserError(f"--labels {path}: has no column split")
    places = Places(videos)
    found = np.full(len(videos), -1)  # which of the rows that were read is the video's
    for number, row in enumerate(read.rows):
        found[places.exact(row.video, videos)] = number
    splits = (split.UNUSED if number < 0 else read.rows[int(number)].split for number in found)
    made = LabelRows.of(replace(row, split=name) for row, name in zip(labels.rows, splits, strict=True))
    grouped = Labels(made, "subject" if any(row.subject for row in made) else "", "split", (), labels.contents)
    return split.assign(grouped, {}, 0, allow_leak=allow_leak)  # checks that nobody is in two splits
