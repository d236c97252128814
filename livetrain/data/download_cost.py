"""What training from a bucket is expected to download, where the cache of a node does not hold all shards.

In global order the next clip is in any shard, and a shard that is not in the cache is downloaded whole; of a clip of
at most data.range_mb, the clip alone. A cache of C bytes that drops what was used longest ago has the shard of C / D of
the clips, D being bytes of all shards:

    downloaded / used = (1 - C / D) * mean bytes downloaded for a clip / mean bytes of a clip

In windows (data.order) each shard is downloaded once an epoch, if the cache holds WINDOWS of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.remote import Url
from livetrain.data.dataset import Dataset
from livetrain.data.shard_order import shards_of

WORTH_A_WORD = 1.05
WINDOWS = 3  # that the cache should hold: what is read, what comes next, and what ends meanwhile


def amplification(
    shard_bytes: NDArray[np.integer],
    shards: NDArray[np.integer],
    clip_bytes: NDArray[np.integer],
    cache_bytes: float,
    range_bytes: float = 0.0,
) -> float:
    """Bytes downloaded for each byte used, in global order.

    shard_bytes: int [num_shards]. shards, clip_bytes: int [n], the shard and size of each clip of the epoch.
    """
    missed = max(0.0, 1 - cache_bytes / float(shard_bytes.sum()))
    downloaded = np.where(clip_bytes <= range_bytes, clip_bytes, shard_bytes[shards])
    return float(missed * downloaded.mean() / clip_bytes.mean())


def notices(dataset: Dataset, config: Config) -> list[str]:
    """A line where training is expected to download more than it uses; none where shards are local or all cached."""
    sets = dataset.shard_sets
    is_remote = np.array([isinstance(source.root, Url) for source in sets])
    rows = dataset.rows(config.data.train_split)
    place = np.searchsorted([source.first_row for source in sets], rows, side="right") - 1
    rows = rows[is_remote[place]]
    if not len(rows):
        return []
    sizes = [[int(shard["bytes"]) for shard in source.manifest["shards"]] for source in sets]
    shards = shards_of(dataset, rows)
    # What lies in local folders is not downloaded, and takes none of the cache.
    bytes_of = np.concatenate([np.array(of, np.int64) * remote for of, remote in zip(sizes, is_remote, strict=True)])
    cache = config.data.cache_gb * 1e9
    if config.data.order == "windows":
        needed = WINDOWS * config.data.window_shards * float(bytes_of[shards].mean())
        if needed <= cache or bytes_of.sum() <= cache:
            return []
        return [
            f"data.order=windows reads {config.data.window_shards} shards at a time and downloads the next ones "
            f"meanwhile; data.cache_gb={config.data.cache_gb:g} holds fewer than {WINDOWS} windows ({needed / 1e9:,.3g}"
            " GB): shards may be downloaded more than once an epoch; raise it, or lower data.window_shards"
        ]
    clips = dataset.column("size")[rows].astype(np.int64)
    factor = amplification(bytes_of, shards, clips, cache, config.data.range_mb * 1e6)
    if factor < WORTH_A_WORD:
        return []
    total, each = float(bytes_of.sum()) / 1e9, factor * float(clips.mean()) / 1e6
    return [
        f"data.cache_gb={config.data.cache_gb:g} holds {config.data.cache_gb / total:.0%} of {total:,.3g} GB of "
        f"shards, and clips come in random order: each is expected to download {each:,.3g} MB, {factor:,.1f} times its "
        f"size ({each / 10:,.3g} GB/s on a node that trains 100 clips a second); set "
        "data.order=windows, raise data.cache_gb, copy the shards to the nodes, or download small clips alone "
        "(data.range_mb)"
    ]
