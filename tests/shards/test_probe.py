"""Probing: the facts of good videos, and a reason for each kind of bad one."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.probe import RejectedVideo, probe, timing
from tests.shards.clips import moov_first, video
from tests.shards.kinds import KINDS

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
    told = {name for name, fact in zip(sorted(KINDS), facts, strict=True) if fact.is_interlaced}
    assert told == {name for name in KINDS if "interlaced" in name or "camcorder" in name} != set()


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
    monkeypatch.setattr("shards.probe.decode", lambda *arguments: seen.append(arguments) or iter(()))
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


def test_times_in_another_order_than_frames_are_rejected() -> None:
    """The first entry of the table of display times goes for three frames: all later times move on."""
    data = bytearray(KINDS["h264.mp4"].data)
    at = data.index(b"ctts") + 12
    struct.pack_into(">I", data, at, 3)
    with pytest.raises(RejectedVideo, match="frames [0-9]+ and [0-9]+: their times are in the wrong order"):
        probe(bytes(data))


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
    monkeypatch.setattr("shards.probe.MAX_FRAMES", 5)
    for quick in (False, True):
        with pytest.raises(RejectedVideo, match="more than 5 frames"):
            probe(MP4, quick=quick)
    monkeypatch.setattr("shards.probe.MAX_SECONDS", -1.0)
    with pytest.raises(RejectedVideo, match="takes longer than -1 s"):
        probe(MP4)
