"""What a build refuses or warns about once all videos are probed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from livetrain.core.columns import Places, batches
from livetrain.core.errors import UserError
from shards import split
from shards.labels import Label, Labels
from shards.shard_plan import Sample

TELLING = 0.8  # AUC
MIN_OF_CLASS = 10  # clips
NUM_PAIRS_SHOWN = 20
LARGE_UNIT = 0.2  # of all clips


_WORD = pa.dictionary(pa.int32(), pa.string())
_FACTS = pa.schema(
    [
        ("live", pa.bool_()),
        ("split", _WORD),
        ("sha256", pa.int64()),  # eight bytes of it
        ("file size", pa.int64()),
        ("length", pa.int32()),
        ("frame rate", pa.float64()),
        ("resolution", pa.int64()),
        ("codec", _WORD),
    ]
)


def facts_of(samples: Iterable[Sample]) -> pa.Table:
    """What is looked at here of each sample, as columns: 50 bytes each."""
    tables = [pa.Table.from_pylist([_facts(sample) for sample in batch], schema=_FACTS) for batch in batches(samples)]
    return pa.concat_tables([_FACTS.empty_table(), *tables]).unify_dictionaries().combine_chunks()


def _facts(sample: Sample) -> dict[str, Any]:
    facts = sample.facts
    return {
        "live": sample.label.is_live,
        "split": sample.split,
        "sha256": int.from_bytes(bytes.fromhex(sample.sha256[:16]), "big", signed=True),
        "file size": sample.num_bytes,
        "length": facts.num_frames,
        "frame rate": round(facts.fps, 1),
        "resolution": facts.width * facts.height,
        "codec": f"{facts.codec} {facts.pixel_format}",
    }


def classes_of(index: pa.Table) -> pa.Table:
    """What `warn_about_splits` looks at, of a shard folder's index."""
    return pa.table({"live": pc.greater_equal(index["label"], 0.5), "split": index["split"]})


def refuse_useless(facts: pa.Table, rejected: Sequence[tuple[Label, str, str]], out: Path) -> None:
    classes = set(pc.unique(facts["live"]).to_pylist())
    if len(classes) == 2:
        return
    common = Counter(reason for *_, reason in rejected).most_common(1)[0]
    left = "no video is left" if not classes else f"only {'live videos' if True in classes else 'attacks'} are left"
    raise UserError(
        f"{left} after {len(rejected)} were rejected (most often: {common[0]}, {common[1]} times); "
        f"all reasons are in {out / 'rejected.csv'}"
    )


def warn(text: str) -> None:
    print(f"WARNING: {text}", file=sys.stderr)


def warn_without_subjects(labels: Labels, path: Path) -> None:
    if not labels.subject_column:
        warn(
            f"{path} names no people (no column subject, no --columns subject=…). Clips of one person may be "
            "in train AND test: the test result will look better than the model is. Add the column if you can."
        )


def warn_about_splits(facts: pa.Table, names: Iterable[str]) -> None:
    """A split without one of the classes can neither train a model nor measure one.

    facts: of each sample whether it is `live`, and its `split`. names: of all splits that there should be.
    """
    for name in sorted(set(names) - {split.UNUSED}):
        classes = set(pc.unique(facts.filter(pc.field("split") == name)["live"]).to_pylist())
        if len(classes) < 2:
            lacking = "no clip" if not classes else "no attack" if True in classes else "no live clip"
            warn(f"the split {name!r} has {lacking}: add people, or change --fractions, --seed or the split column")


def warn_about_joined(labels: Labels) -> None:
    """People who share a file are split as one person: a file that all of them have leaves nothing to split."""
    if not (labels.contents and labels.subject_column) or labels.split_column:
        return
    names = split.units(labels)
    counts = np.bincount(names.codes, minlength=1)
    if not counts.max() > LARGE_UNIT * len(names):
        return
    members = np.flatnonzero(names.codes == counts.argmax())
    people = {labels.rows[int(place)].identity for place in members}
    if len(people) > 1:
        warn(
            f"{len(people):,} people share files, so they are split as one person with {len(members):,} of "
            f"{len(names):,} clips. If such a file shows nobody (a test card, a black clip), take it out; "
            "python -m shards audit names the copies"
        )


def num_copies(facts: pa.Table) -> int:
    """How many samples are another's file."""
    return len(facts) - int(pc.count_distinct(facts["sha256"]).as_py())


def suggest_audit(facts: pa.Table, labels: Labels, out: Path) -> None:
    """One line when what is known without looking at a picture says that an audit would find something."""
    copies = num_copies(facts)
    signs = [f"{copies:,} video{'s are' if copies > 1 else ' is'} there a second time"] if copies else []
    signs += [f"{name} separates live clips from attacks (AUC {auc:.2f})" for name, auc in _telling(facts)]
    if signs and not labels.subject_column:
        signs.append("nobody is named")
    if signs:
        print(f"{'; '.join(signs)}: python -m shards audit {out} --out audit.html shows more", file=sys.stderr)


def _telling(facts: pa.Table) -> list[tuple[str, float]]:
    """Facts of the files that alone tell the classes apart: (name, AUC in either direction)."""
    live = facts["live"].to_numpy()
    num_live, num_attack = int(live.sum()), int((~live).sum())
    if min(num_live, num_attack) < MIN_OF_CLASS:
        return []
    found = []
    for name in ("file size", "length", "frame rate", "resolution", "codec"):
        numbers = _share_live(facts[name], live) if name == "codec" else facts[name].to_numpy()
        auc = (_ranks(numbers)[live].sum() / num_live - (num_live + 1) / 2) / num_attack
        found += [(name, float(max(auc, 1 - auc)))] if max(auc, 1 - auc) > TELLING else []
    return found


def _ranks(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """float64[n]: from 1 in ascending order, of equal ones their mean. scipy.stats has it, and takes 2 s to import."""
    _, codes, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[codes]
    return ranks


def _share_live(words: pa.ChunkedArray, live: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64[n]: of each sample, the share of live ones among all with its word."""
    codes = np.asarray(words.combine_chunks().indices)
    return (np.bincount(codes, weights=live) / np.bincount(codes))[codes]


def warn_about_duplicates(samples: Sequence[Sample], facts: pa.Table) -> None:
    """The same file twice is a leak if it is in two splits, and a label error if its labels differ."""
    _, inverse, counts = np.unique(facts["sha256"].to_numpy(), return_inverse=True, return_counts=True)
    first: dict[str, Sample] = {}
    repeated = (samples[int(place)] for place in np.flatnonzero(counts[inverse] > 1))
    pairs = ((first.setdefault(sample.sha256, sample), sample) for sample in repeated)
    _warn_about_pairs((other.label, other.split, sample) for other, sample in pairs)


def warn_about_known(samples: Iterable[Sample], known: Sequence[Label], contents: Sequence[str]) -> int:
    """The same of new samples beside those that a folder has: `known`, each with its split, and their SHA-256.

    Returns how many of the samples are the file of one that is there.
    """
    places = Places(contents)
    found = ((places.exact(sample.sha256, contents), sample) for sample in samples)
    pairs = [(place[0], sample) for place, sample in found if place]
    _warn_about_pairs((known[place], known[place].split, sample) for place, sample in pairs)
    return len(pairs)


def _warn_about_pairs(pairs: Iterable[tuple[Label, str, Sample]]) -> None:
    """Of the same file: (label, split, a sample); the first of those that differ, and how many more there are."""
    count = 0
    for label, where, sample in pairs:
        if label.is_live == sample.label.is_live and where == sample.split:
            continue
        count += 1
        difference = "label" if label.is_live != sample.label.is_live else "split"
        if count <= NUM_PAIRS_SHOWN:
            warn(f"{label.video} and {sample.label.video} are the same file with a different {difference}")
    if count > NUM_PAIRS_SHOWN:
        warn(f"{count - NUM_PAIRS_SHOWN:,} more videos are another's file with a different label or split")
