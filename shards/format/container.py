"""Video files as containers: opening one, and whether it is complete by its own size fields, which decoders ignore.

A decoder takes a file that was cut short for a shorter video. The containers know better: ISO media boxes (mp4, mov,
m4v), EBML elements (webm, mkv) and RIFF chunks (avi) state their size in bytes. Pure functions of a file's bytes.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any

import av

# Boxes of a file's top level. What one of them states of its size is believed; any other is stepped over.
ISO_TYPES = frozenset(b"ftyp moov mdat moof mfra free skip wide uuid sidx ssix styp prft emsg meta pdin udta".split())
EBML_MAGIC = b"\x1a\x45\xdf\xa3"
MATROSKA_SEGMENT = 0x18538067


def lenient(version: str) -> dict[str, str]:
    """Options of av.open that keep tags in a wrong encoding from failing a file. PyAV 19 needs none, and takes none."""
    return {"metadata_errors": "ignore"} if int(version.split(".")[0]) < 19 else {}


def open_bytes(data: bytes, options: Mapping[str, str] | None = None) -> Any:
    """Open a video file's bytes for reading. options: FFmpeg's. Raises av.FFmpegError."""
    return av.open(io.BytesIO(data), "r", options=dict(options or {}), **lenient(av.__version__))  # type: ignore[call-overload]


def truncation(data: bytes) -> str | None:
    """What a file's bytes lack, in words, or None when its size fields agree with its length (or it has none)."""
    if data[4:8] in ISO_TYPES:
        return _iso_truncation(data)
    if data[:4] == EBML_MAGIC:
        return _ebml_truncation(data)
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return _lacking("the RIFF chunk", 8 + struct.unpack_from("<I", data, 4)[0], len(data))
    return None


def _lacking(what: str, end: int, length: int) -> str | None:
    return f"truncated: {what} ends at byte {end}, the file at byte {length}" if end > length else None


def _iso_truncation(data: bytes) -> str | None:
    """Walk the top-level boxes (ISO/IEC 14496-12, 4.2): 32-bit size, type, and a 64-bit size when the first is 1.

    Readers are to skip boxes that they do not know, and so does this: cameras and encoders put their own anywhere. Only
    a known box that ends beyond the file is cut off. Where the walk ends early, in bytes that are no box, or at an
    unknown one that is larger than the file, decoding has the last word on whether the video is whole.
    """
    position, seen = 0, set()
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if size == 1 and position + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, position + 8)
        elif size == 0:
            size = len(data) - position  # up to the end of the file
        if kind in ISO_TYPES:
            seen.add(kind)
            if size < 8:
                return f"damaged: box {kind.decode()} at byte {position} states a size of {size} bytes"
            lacking = _lacking(f"box {kind.decode()}", position + size, len(data))
            if lacking:
                return lacking
        elif size < 8 or position + size > len(data):
            return None
        position += size
    if b"moov" not in seen:
        return "truncated or unfinished: it has no index (moov box)"
    if b"mdat" not in seen:
        return "it has no media data (mdat box)"
    return None


def _ebml_truncation(data: bytes) -> str | None:
    """The header element and the Segment (RFC 8794, RFC 9559); a Segment of unknown size (live muxing) is let pass."""
    position = 0
    while position < len(data):
        head = _ebml_head(data, position)
        if head is None:
            return "truncated in an element's head"
        identity, start, size = head
        if size is None:
            return None
        lacking = _lacking("the segment" if identity == MATROSKA_SEGMENT else "the header", start + size, len(data))
        if lacking or identity == MATROSKA_SEGMENT:
            return lacking
        position = start + size
    return "truncated: it has no segment"


def _ebml_head(data: bytes, position: int) -> tuple[int, int, int | None] | None:
    """(id, first payload byte, payload bytes or None when unknown) of the element at `position`; None if cut off."""
    identity_length = 9 - data[position].bit_length()
    size_at = position + identity_length
    if size_at >= len(data):
        return None
    size_length = 9 - data[size_at].bit_length()
    start = size_at + size_length
    if identity_length > 4 or size_length > 8 or start > len(data):
        return None
    identity = int.from_bytes(data[position:size_at], "big")
    mask = (1 << (7 * size_length)) - 1
    size = int.from_bytes(data[size_at:start], "big") & mask
    return identity, start, None if size == mask else size
