"""What training from a bucket is expected to download, where the cache of a node does not hold all shards.

Clips come in random order, so the next one is in any shard, and one that is not in the cache is downloaded whole. A
cache of C bytes that drops what was used longest ago has the shard of C / D of the clips, D being bytes of all shards:

    downloaded / used = (1 - C / D) * mean bytes of a clip's shard / mean bytes of a clip
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.data.dataset import Dataset
from livetrain.data.remote import Url

WORTH_A_WORD = 1.05


def amplification(
    shard_bytes: NDArray[np.integer], shards: NDArray[np.integer], clip_bytes: NDArray[np.integer], cache_bytes: float
) -> float:
    """Bytes downloaded for each byte used.

    shard_bytes: int [num_shards]. shards, clip_bytes: int [n], the shard and size of each clip of the epoch.
    """
    missed = max(0.0, 1 - cache_bytes / float(shard_bytes.sum()))
    return float(missed * shard_bytes[shards].mean() / clip_bytes.mean())


def notices(dataset: Dataset, config: Config) -> list[str]:
    """A line where training is expected to download more than it uses; none where shards are local or all cached."""
    sets = dataset.shard_sets
    is_remote = np.array([isinstance(source.root, Url) for source in sets])
    rows = dataset.rows(config.data.train_split)
    place = np.searchsorted([source.first_row for source in sets], rows, side="right") - 1
    rows, place = rows[is_remote[place]], place[is_remote[place]]
    if not len(rows):
        return []
    sizes = [[int(shard["bytes"]) for shard in source.manifest["shards"]] for source in sets]
    first = np.cumsum([0, *map(len, sizes[:-1])])
    shards = first[place] + dataset.column("shard")[rows]
    # What lies in local folders is not downloaded, and takes none of the cache.
    bytes_of = np.concatenate([np.array(of, np.int64) * remote for of, remote in zip(sizes, is_remote, strict=True)])
    clips = dataset.column("size")[rows].astype(np.int64)
    factor = amplification(bytes_of, shards, clips, config.data.cache_gb * 1e9)
    if factor < WORTH_A_WORD:
        return []
    total, each = float(bytes_of.sum()) / 1e9, factor * float(clips.mean()) / 1e6
    return [
        f"data.cache_gb={config.data.cache_gb:g} holds {config.data.cache_gb / total:.0%} of {total:,.3g} GB of "
        f"shards, and clips come in random order: each is expected to download {each:,.3g} MB, {factor:,.1f} times its "
        f"size ({each / 10:,.3g} GB/s on a node that trains 100 clips a second); raise data.cache_gb, copy the shards "
        "to the nodes, or build smaller ones (--shard-mb)"
    ]
