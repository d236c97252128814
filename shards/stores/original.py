"""The file's bytes, untouched."""

from __future__ import annotations

from shards.format.probe import Probe
from shards.stores import Stored, StoreOptions


def store(data: bytes, facts: Probe, media: StoreOptions) -> Stored:
    """See shards.stores."""
    return Stored([("", data)], facts, "original")
