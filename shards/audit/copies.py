"""Copies among the clips: the same file twice, and the same recording re-encoded, resized, cropped, trimmed, mirrored.

Candidates come from perceptual hashes (shards.audit.hashes), and from a network's features where one is given
(shards.audit.features); which of them are copies is decided by alignment.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.core import worker_pool
from livetrain.core.disjoint_sets import DisjointSets
from livetrain.core.engines import Engine
from livetrain.core.errors import UserError
from livetrain.core.progress import progress
from shards.audit import hashes, neighbours
from shards.audit.alignment import Alignment, align, is_copy
from shards.audit.clips import Clips
from shards.audit.look_table import LookTable

EXACT, NEAR = "same file", "same recording"
CANDIDATES = 12  # clips that are compared with each, the nearest ones
BATCH = 64  # pairs that a worker compares at a time


@dataclass(frozen=True)
class Copy:
    """Two clips, rows of Clips with first < second. how: what is known of the second against the first."""

    first: int
    second: int
    kind: str  # EXACT or NEAR
    how: str = ""


def exact(clips: Clips) -> list[Copy]:
    """Pairs of one file: each later one with the first of each kind, so that no two labels of a file go unseen."""
    seen: dict[str, dict[str, int]] = defaultdict(dict)
    found = []
    for row, (digest, kind) in enumerate(zip(clips.words["sha256"], clips.kinds, strict=True)):
        found += [Copy(first, row, EXACT) for first in seen[digest].values()]
        seen[digest].setdefault(kind, row)
    return found


def near(
    looks: LookTable, skipped: set[int], features: NDArray[np.float32] | None, *, engine: Engine
) -> tuple[list[Copy], int]:
    """Pairs that show one recording, and how many pairs were compared.

    skipped: rows that are left out, copies of files that are in. features: float32 [2, n, d] of each clip's picture and
    of its mirror image, for more candidates; NaN where there are none. Raises UserError when a process is killed.
    """
    rows = [row for row in range(len(looks)) if row not in skipped and len(looks.thumbnails(row))]
    asked = [_by_hashes(looks, rows), *([_by_features(features, rows)] if features is not None else [])]
    codes = np.unique(np.concatenate(asked))
    pairs = np.stack([codes // len(looks), codes % len(looks)], axis=1)
    tasks = [_Batch(looks.state, pairs[start : start + BATCH]) for start in range(0, len(pairs), BATCH)]
    found = []
    with progress("candidates", len(pairs), "pairs") as advance:
        for number, result in engine.unordered(compare, tasks, ("shards.audit.copies",)):
            if isinstance(result, worker_pool.WorkerDied):
                raise UserError(f"a process that compares clips {result.reason}; try fewer --workers (memory?)")
            found += result
            advance(len(tasks[number].pairs))
    return sorted(found, key=lambda pair: (pair.first, pair.second)), len(pairs)


@dataclass(frozen=True)
class _Batch:
    """Pairs [n, 2] to compare, of the looks in a folder."""

    looks: Path
    pairs: NDArray[np.int64]


_open = functools.lru_cache(maxsize=1)(LookTable)


def compare(batch: _Batch) -> list[Copy]:
    """Those pairs that are copies: the task of a worker process."""
    of = _open(batch.looks).aligned_by
    aligned = ((int(first), int(second), align(of(first), of(second))) for first, second in batch.pairs)
    return [Copy(first, second, NEAR, described(found)) for first, second, found in aligned if is_copy(found) and found]


def _by_hashes(looks: LookTable, rows: Sequence[int]) -> NDArray[np.int64]:
    kept, asked, owners, askers = [], [], [], []
    for row in rows:
        thumbnails = looks.thumbnails(row)
        kept.append(hashes.indexed(thumbnails))
        asked.append(hashes.queries(thumbnails))
        owners.append(np.full(len(kept[-1]), row, np.int64))
        askers.append(np.full(len(asked[-1]), row, np.int64))
    if not kept:
        return np.zeros(0, np.int64)
    rows_and_owners = np.concatenate(kept), np.concatenate(owners)
    return _codes(len(looks), *rows_and_owners, np.concatenate(asked), np.concatenate(askers))


def _by_features(features: NDArray[np.float32], rows: Sequence[int]) -> NDArray[np.int64]:
    known = np.array([row for row in rows if not np.isnan(features[0, row]).any()], np.int64)
    asked = features[:, known].transpose(1, 0, 2).reshape(-1, features.shape[2])
    return _codes(features.shape[1], features[0, known], known, asked, np.repeat(known, 2))


def _codes(
    num: int, rows: NDArray[Any], owners: NDArray[np.int64], asked: NDArray[Any], askers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Candidate pairs as first * num + second: int64 [k], 8 bytes a pair."""
    parts = [np.zeros(0, np.int64)]
    for clip, others, _ in neighbours.nearest(neighbours.index_of(rows), owners, asked, askers, CANDIDATES):
        parts.append(np.minimum(clip, others) * num + np.maximum(clip, others))
    return np.concatenate(parts)


def described(found: Alignment) -> str:
    """An alignment in words."""
    window = found.window
    words = ["mirrored"] if found.mirrored else []
    zoom = (window.scale_y * window.scale_x) ** 0.5
    if abs(zoom - 1) > 0.03:
        words.append(f"cropped to {100 * min(zoom, 1 / zoom):.0f} %")
    if abs(found.offset) > 0.1:
        words.append(f"{abs(found.offset):.1f} s later" if found.offset < 0 else f"{found.offset:.1f} s earlier")
    return ", ".join(words)


def groups(pairs: Sequence[Copy]) -> list[list[int]]:
    """Clips that are copies of each other, directly or through others: rows ascending, the largest group first."""
    same: DisjointSets[int] = DisjointSets()
    for pair in pairs:
        same.join(pair.first, pair.second)
    members: dict[int, list[int]] = defaultdict(list)
    for row in sorted({row for pair in pairs for row in (pair.first, pair.second)}):
        members[same.root(row)].append(row)
    return sorted(members.values(), key=lambda rows: (-len(rows), rows[0]))
