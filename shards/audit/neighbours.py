"""The nearest neighbours among many vectors, by faiss: of each row the few closest of other clips.

Exact for small sets. From EXACT rows on an inverted file: the rows are split into cells around centres, and a query
looks into PROBES cells, so the work grows with about the square root of the rows for each query. Queries go through in
batches and only the best of each clip are kept, so memory grows with the clips alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError
from livetrain.core.progress import progress

LACKING = "the audit needs the package faiss-cpu: pip install livetrain[audit]"
EXACT = 100_000  # rows
PROBES = 24
TRAINED_PER_CELL = 40  # rows that the centres are made from
BATCH = 4096  # clips


def library() -> Any:
    """Faiss. Raises UserError, naming the extra, where it is missing."""
    try:
        import faiss
    except ImportError:
        raise UserError(LACKING) from None
    return faiss


def index_of(rows: NDArray[Any]) -> Any:
    """The index of rows [n, bytes] uint8 or [n, d] float32. Raises UserError where faiss is missing."""
    faiss = library()
    rows = np.ascontiguousarray(rows)
    is_binary = rows.dtype == np.uint8
    size = rows.shape[1] * 8 if is_binary else rows.shape[1]
    flat = faiss.IndexBinaryFlat(size) if is_binary else faiss.IndexFlatL2(size)
    if len(rows) < EXACT:
        flat.add(rows)
        return flat
    cells = int(4 * np.sqrt(len(rows)))
    index = (faiss.IndexBinaryIVF if is_binary else faiss.IndexIVFFlat)(flat, size, cells)
    chosen = np.random.default_rng(0).permutation(len(rows))[: cells * TRAINED_PER_CELL]
    index.cp.min_points_per_centroid = 1
    index.train(rows[np.sort(chosen)])
    index.nprobe = PROBES
    for start in range(0, len(rows), EXACT):
        index.add(rows[start : start + EXACT])
    return index


def nearest(
    index: Any, owners: NDArray[np.int64], asked: NDArray[Any], askers: NDArray[np.int64], count: int
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
    """Of each clip that asks, the `count` clips nearest to it: (clip, clips int64 [n], distances float32 [n]).

    index: of n rows; bits are compared by Hamming distance, numbers by squared Euclidean distance. owners: [n], the
    clip of each row. asked, askers: queries of the same kind and their clips, ascending. A clip's distance to
    another is the least of any of its queries to any of the other's rows. The nearest come first; a clip is not near
    itself.
    """
    if not len(owners) or not len(asked):
        return
    ends = np.flatnonzero(np.diff(askers, append=-1)) + 1  # behind the last query of each clip
    starts = np.concatenate([[0], ends[:-1]])
    # A clip's own rows are among the nearest, and other clips take several places each.
    wanted = min(len(owners), (count + 1) * int(np.bincount(owners).max()))
    with progress("neighbours", len(ends), "clips") as advance:
        for first in range(0, len(ends), BATCH):
            some = slice(first, min(first + BATCH, len(ends)))
            begin = int(starts[some][0])
            distances, found = index.search(np.ascontiguousarray(asked[begin : ends[some][-1]]), wanted)
            for start, end in zip(starts[some] - begin, ends[some] - begin, strict=True):
                clip = int(askers[begin + start])
                yield (
                    clip,
                    *_closest(clip, found[start:end].reshape(-1), distances[start:end].reshape(-1), owners, count),
                )
            advance(len(ends[some]))


def _closest(
    clip: int, found: NDArray[np.int64], distances: NDArray[Any], owners: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    known = found >= 0  # an inverted file gives fewer than asked for as -1
    of, distances = owners[found[known]], distances[known].astype(np.float32)
    of, distances = of[of != clip], distances[of != clip]
    order = np.lexsort((of, distances))
    of, distances = of[order], distances[order]
    _, first = np.unique(of, return_index=True)
    kept = np.sort(first)[:count]
    return of[kept], distances[kept]
