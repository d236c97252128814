"""Videos whose probing and storing take no time: tasks of worker processes in place of the real ones."""

from __future__ import annotations

import hashlib
from typing import Any
from unittest import mock

from shards import probing, shard_writer, stores
from shards.format.probe import Probe
from shards.videos import Video

FACTS = Probe(
    100, 25.0, 4.0, 640, 480, 0, 640, 480, 1.0, "h264", "yuv420p", False, True, "bt601", False, "sdr", True, "decode"
)


def probe_file(video: Video, quick: bool = False) -> probing.Probed:
    """Any file is a video with the same facts."""
    return probing.Probed(hashlib.sha256(video.read()).hexdigest(), FACTS, "")


def write_shard(task: shard_writer.ShardTask) -> dict[str, Any]:
    """The real one, which stores any bytes."""
    with mock.patch.object(stores, "store", _store):
        return shard_writer.write_shard(task)


def _store(name: str, data: bytes, facts: Probe, media: stores.StoreOptions) -> stores.Stored:
    return stores.Stored([("mp4", data)], facts, "original")
