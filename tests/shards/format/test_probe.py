"""Probing: the facts of good videos, and a reason for each kind of bad one."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livetrain.data.decode import decode_video
from shards import stores
from shards.format.container import lenient
from shards.format.probe import RejectedVideo, probe, timing
from shards.stores import StoreOptions
from tests.shards.clips import moov_first, video
from tests.shards.kinds import KINDS, VFR, pictures

MP4 = video(num_frames=6)
MKV = video(kind="matroska", codec="vp9")
AVI = video(kind="avi", codec="mjpeg")


def sound_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate = 16000
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def no_frames() -> bytes:
    """An MP4 whose video track holds no sample: its sample tables say 0, its media data are gone."""
    data = bytearray(MP4)
    for table, at in ((b"stsz", 12), (b"stts", 8), (b"stsc", 8), (b"stco", 8), (b"stss", 8), (b"ctts", 8)):
        position = data.find(table)
        if position >= 0:
            struct.pack_into(">I", data, position + at, 0)
    return bytes(data)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_facts_of_a_video(rotation: int) -> None:
    facts = probe(video(num_frames=7, width=64, height=48, fps=25, rotation=rotation))
    assert (facts.num_frames, facts.width, facts.height, facts.codec) == (7, 64, 48, "h264")
    assert facts.rotation == rotation
    assert facts.fps == pytest.approx(25, rel=1e-3)
    assert facts.duration_seconds == pytest.approx(7 / 25, rel=1e-3)


@pytest.mark.parametrize("name", sorted(name for name in KINDS if "vfr" in name))
def test_uneven_frames_have_times(name: str) -> None:
    """Of every frame, however it was found; evenly spaced ones need none."""
    seconds = [time / 1000 for time in VFR]
    for quick in (False, True):
        assert probe(KINDS[name].data, quick=quick).frame_seconds == pytest.approx(seconds, abs=1e-3)
    assert stores.store("a.mp4", KINDS[name].data, probe(KINDS[name].data), StoreOptions("remux")).facts.frame_seconds
    made = stores.store("a.mp4", KINDS[name].data, probe(KINDS[name].data), StoreOptions("transcode", gop=4)).facts
    assert made.frame_seconds == pytest.approx(seconds, abs=1e-3)
    assert not probe(KINDS["h264.mp4"].data).frame_seconds
    assert not probe(KINDS["h264_late_start.mp4"].data).frame_seconds


@pytest.mark.parametrize(("kind", "codec"), [("matroska", "vp9"), ("webm", "vp9"), ("avi", "mjpeg"), ("mov", "h264")])
def test_containers_and_codecs(kind: str, codec: str) -> None:
    facts = probe(video(num_frames=5, kind=kind, codec=codec, fps=10))
    assert (facts.num_frames, facts.codec) == (5, codec)
    assert facts.fps == pytest.approx(10, rel=0.02)
    assert facts.pixel_format == ("yuvj420p" if codec == "mjpeg" else "yuv420p") and not facts.is_interlaced


@pytest.mark.parametrize("quick", [False, True])
def test_what_a_gpus_decoder_cannot_give_is_told(quick: bool) -> None:
    assert probe(KINDS["hevc_10bit.mp4"].data, quick=quick).pixel_format == "yuv420p10le"
    facts = [probe(KINDS[name].data, quick=quick) for name in sorted(KINDS)]
    irregular = {name for name, fact in zip(sorted(KINDS), facts, strict=True) if not fact.is_regular}
    assert irregular == {"h264_trimmed.mp4", "hevc_trimmed.mp4", "h264_b_frames.avi"}
    message = {name for name, fact in zip(sorted(KINDS), facts, strict=True) if fact.is_interlaced}
    assert message == {name for name in KINDS if "interlaced" in name or "camcorder" in name} != set()


def test_moov_first_is_accepted_whole() -> None:
    assert probe(moov_first(MP4)).num_frames == 6


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"This is not a video at all.\n" * 40, "not a readable video"),
        (bytes(5000), "not a readable video"),
        (MP4[: MP4.index(b"moov") - 4], "no index"),
        (MP4[: MP4.index(b"moov") + 20], "truncated: box moov"),
        (moov_first(MP4)[:-200], "truncated: box mdat"),
        (moov_first(MP4)[: len(MP4) * 2 // 3], "truncated: box mdat"),
        (MP4[:6], "readable video"),
        (MP4[:20], "truncated: box ftyp"),
        (MKV[:-50], "truncated: the segment"),
        (AVI[:-50], "truncated: the RIFF chunk"),
        (no_frames(), "no frame"),
        (sound_only(), "no video stream"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_bad_videos_are_rejected_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(RejectedVideo, match=reason):
        probe(data)


@pytest.mark.parametrize("data", [moov_first(MP4), MKV, AVI], ids=["mp4", "mkv", "avi"])
def test_every_cut_is_noticed(data: bytes) -> None:
    for end in range(0, len(data), 97):
        with pytest.raises(RejectedVideo):
            probe(data[:end])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(MP4) - 1), st.integers(1, 255))
def test_a_damaged_video_gives_facts_or_a_rejection_but_no_other_error(position: int, change: int) -> None:
    data = bytearray(MP4)
    data[position] ^= change
    try:
        facts = probe(bytes(data))
    except RejectedVideo as rejection:
        assert str(rejection)
    else:
        assert facts.num_frames > 0 and facts.fps > 0 and facts.duration_seconds > 0


def test_a_size_that_changes_is_rejected() -> None:
    # Two H.264 streams in one raw file: the decoder follows the second's parameter sets.
    def raw(width: int) -> bytes:
        return video(num_frames=3, width=width, height=48, kind="h264")

    with pytest.raises(RejectedVideo, match="frame size changes from 64x48 to 96x48 at frame 3"):
        probe(raw(64) + raw(96))


def test_timing_uses_the_frames_and_falls_back_on_the_stated_rate() -> None:
    assert timing([0.0, 0.1, 0.3], 3, 25.0) == pytest.approx((1 / 0.15, 0.45))
    assert timing([0.0], 1, 20.0) == (20.0, 0.05)
    assert timing([5.0, 5.0], 2, 10.0) == (10.0, 0.2)
    assert timing([], 4, 8.0) == (8.0, 0.5)


@pytest.mark.parametrize("kind", ["mp4", "mov"])
@pytest.mark.parametrize("rotation", [0, 90])
def test_a_quick_look_sees_what_decoding_sees(kind: str, rotation: int) -> None:
    """libx264's own B-frames are in there."""
    data = video(num_frames=24, kind=kind, rotation=rotation)
    assert probe(data, quick=True) == probe(moov_first(data), quick=True) == replace(probe(data), check="probe")


def test_a_quick_look_decodes_one_frame_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("shards.format.probe.decode", lambda *arguments: seen.append(arguments) or iter(()))
    assert probe(video(num_frames=24), quick=True).num_frames == 24 and not seen
    with pytest.raises(RejectedVideo, match="no frame"):
        probe(MKV, quick=True)
    assert seen, "packets of other containers need not be frames: decoded to the end"
    damaged = bytearray(video(num_frames=24))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 400] = bytes(400)
    assert probe(bytes(damaged), quick=True).num_frames == 24, "damage inside is not looked for"


@pytest.mark.parametrize("data", [b"", b"no video", MP4[: len(MP4) // 2], sound_only(), no_frames()])
def test_a_quick_look_rejects_what_is_no_video(data: bytes) -> None:
    with pytest.raises(RejectedVideo):
        probe(data, quick=True)


def test_times_in_another_order_than_frames_are_no_reason_to_refuse() -> None:
    """The first entry of the table of display times goes for three frames: all later times move on.

    The pictures are there, in the decoder's order, whole and one by one.
    """
    whole = KINDS["h264.mp4"]
    data = bytearray(whole.data)
    at = data.index(b"ctts") + 12
    struct.pack_into(">I", data, at, 3)
    facts = probe(bytes(data))
    assert facts.num_frames == probe(whole.data).num_frames and not facts.is_regular
    wanted = np.arange(facts.num_frames)
    every = decode_video(whole.data, wanted, facts.num_frames)
    assert np.array_equal(decode_video(bytes(data), wanted, facts.num_frames, is_regular=False), every)
    for one in (0, 3, facts.num_frames - 1):
        got = decode_video(bytes(data), np.array([one]), facts.num_frames, is_regular=False)
        assert np.array_equal(got[0], every[one])


def packed_avi(num_frames: int) -> bytes:
    """AVI as DivX 5 wrote it: a packet holds a P and the B picture before it, the next one is a stub."""
    encoder: Any = av.CodecContext.create("mpeg4", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, "yuv420p", Fraction(1, 25)
    encoder.options, encoder.thread_count = {"bf": "1", "g": "12", "b_strategy": "0", "sc_threshold": "1000000000"}, 1
    packets = []
    for number, picture in enumerate([*pictures(num_frames, 48, 64), None]):
        frame = (
            None if picture is None else av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        )
        if frame is not None:
            frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += [(bytes(packet), packet.is_keyframe) for packet in encoder.encode(frame)]
    (first, _), *rest = packets
    mark = b"\0\0\1\xb2"
    chunks = [(first.replace(mark + b"Lavc", mark + b"DivX503b1393p\0" + mark + b"Lavc", 1), True)]
    for (later, key), (earlier, _) in zip(rest[::2], rest[1::2], strict=True):
        chunks += [(later + earlier, key), (b"\0\0\1\xb6\x5f\xff\xff", False)]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.codec_tag = 64, 48, "yuv420p", "DX50"
        for number, (data, key) in enumerate(chunks):
            packet = av.Packet(data)
            packet.stream, packet.is_keyframe, packet.time_base = stream, key, Fraction(1, 25)
            packet.pts = packet.dts = number
            container.mux(packet)
    return buffer.getvalue()


def test_divx_packed_b_frames() -> None:
    """Every picture, in the decoder's order: the corner is darker with each."""
    data = packed_avi(13)
    facts = probe(data)
    assert (facts.num_frames, facts.codec, facts.is_regular) == (13, "mpeg4", False)
    frames = decode_video(data, np.arange(13), 13, is_regular=False)
    corners = frames[:, 2:10, 2:10].mean(axis=(1, 2, 3))
    assert (np.diff(corners) < -2).all()
    assert np.array_equal(decode_video(data, np.array([7]), 13, is_regular=False)[0], frames[7])


def box(kind: bytes, payload: bytes = bytes(24)) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def boxes(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[:size])
        data = data[size:]
    return found


@pytest.mark.parametrize("kind", [b"beam", b"thum", b"gps ", b"udta", b"\xa9xyz", b"PICT"])
@pytest.mark.parametrize("quick", [False, True])
def test_boxes_that_nobody_knows_are_stepped_over(kind: bytes, quick: bool) -> None:
    """Before the index, after it, with a 64-bit size, and as the last one with a size of 0."""
    ftyp, *rest = boxes(MP4)
    moov_at = next(i for i, part in enumerate(rest) if part[4:8] == b"moov")
    large = struct.pack(">I4sQ", 1, kind, 16 + 40) + bytes(40)
    for extra in (box(kind), large):
        between = [*rest[:moov_at], extra, *rest[moov_at:]]
        assert probe(b"".join([ftyp, *between]), quick=quick).num_frames == 6
    assert probe(MP4 + struct.pack(">I4s", 0, kind) + bytes(30), quick=quick).num_frames == 6


def test_fragments_with_events_and_clocks_between_them() -> None:
    buffer = io.BytesIO()
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(buffer, "w", format="mp4", options=options) as container, av.open(io.BytesIO(MP4)) as source:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    parts = []
    for part in boxes(buffer.getvalue()):
        parts += [box(b"emsg"), box(b"prft"), box(b"new1")] if part[4:8] == b"moof" else []
        parts.append(part)
    fragmented = b"".join(parts)
    assert probe(fragmented).num_frames == 6
    media = fragmented.index(b"mdat")
    with pytest.raises(RejectedVideo, match="truncated: box mdat ends at byte"):
        probe(fragmented[: media + 40])


def test_garbage_behind_the_boxes_is_no_fault() -> None:
    assert probe(MP4 + b"\x00\x00\x00\x03none" + bytes(9)).num_frames == 6
    assert probe(MP4 + struct.pack(">I4s", 2**31, b"none")).num_frames == 6
    index = MP4.index(b"moov") - 4
    with pytest.raises(RejectedVideo, match="no index|not a readable video"):
        probe(MP4[:index])


def test_a_frame_larger_than_memory_is_refused() -> None:
    raw = bytearray(KINDS["huffyuv.avi"].data)
    struct.pack_into("<II", raw, raw.index(b"strf") + 12, 65000, 65000)
    with pytest.raises(RejectedVideo, match="decoding fails|above 67,108,864 pixels"):
        probe(bytes(raw))
    jpegs = AVI.replace(b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 48, 64), b"\xff\xc0\x00\x11\x08" + b"\xf0" * 4)
    assert jpegs != AVI
    with pytest.raises(RejectedVideo, match="decoding fails|no frame|not a readable|above"):
        probe(jpegs)


def test_too_many_frames_and_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.format.probe.MAX_FRAMES", 5)
    for quick in (False, True):
        with pytest.raises(RejectedVideo, match="more than 5 frames"):
            probe(MP4, quick=quick)
    monkeypatch.setattr("shards.format.probe.MAX_SECONDS", -1.0)
    with pytest.raises(RejectedVideo, match="takes longer than -1 s"):
        probe(MP4)


def test_tags_in_a_wrong_encoding_fail_no_file_with_this_and_the_next_pyav() -> None:
    """PyAV 19 drops the argument that 18 needs."""
    assert lenient("18.1.0") == {"metadata_errors": "ignore"} and lenient("19.0.0") == {}
