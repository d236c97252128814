"""Decoding chosen frames gives, bit for bit, what decoding everything gives."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from livetrain.data.decode import DecodeError, Work, decode_video, packet_runs
from tests.videos import rgb, write_video

VIDEOS = {
    "h264_b_frames.mp4": ("libx264", {"bf": "3", "g": "12"}),
    "h264_long_gop.mp4": ("libx264", {"bf": "2", "g": "250"}),
    "h264_intra.mov": ("libx264", {"g": "1"}),
    "h264.mkv": ("libx264", {"bf": "2", "g": "10"}),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}),
    "mjpeg.avi": ("mjpeg", {}),
    "vp9.webm": ("libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
    "vp8.webm": ("libvpx", {"cpu-used": "8", "deadline": "realtime"}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:pools=1:bframes=2"}),
    "av1.mkv": ("libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}),
}
NUM_FRAMES = 30


@pytest.fixture(scope="module", params=sorted(VIDEOS))
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    codec, options = VIDEOS[request.param]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    size = {"height": 128, "width": 160} if codec == "libsvtav1" else {}
    path = tmp_path_factory.mktemp("videos") / request.param
    return write_video(path, NUM_FRAMES, codec=codec, options=options, **size).read_bytes()


def all_frames(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        return np.stack([rgb(frame) for frame in container.decode(video=0)])


@pytest.mark.parametrize("wanted", [[0], [29], [3, 17, 28], [28, 3, 3, 17], [28, 3, 17], list(range(30)), [13, 14]])
def test_chosen_frames_are_those_of_the_whole_video(video: bytes, wanted: list[int]) -> None:
    everything = all_frames(video)
    assert len(everything) == NUM_FRAMES
    assert (decode_video(video, np.array(wanted), NUM_FRAMES) == everything[wanted]).all()


def test_frames_are_counted_where_timestamps_do_not_tell(video: bytes) -> None:
    """A count that is not the packets' (a builder that counted fewer frames) leads to decoding from the start."""
    assert (decode_video(video, np.array([5, 9]), NUM_FRAMES - 1) == all_frames(video)[[5, 9]]).all()


@pytest.mark.parametrize(
    ("options", "wanted", "num_packets"),
    [
        ({"g": "6", "bf": "0"}, [50, 52], 5),  # from the key frame 48
        ({"g": "6", "bf": "0"}, [2, 20, 45], 3 + 3 + 4),  # three GOPs, nothing between them
        ({"g": "6", "bf": "0"}, [5, 6], 7),  # neighbours: the decoder continues
        ({"g": "60", "bf": "0"}, [0, 9], 10),
    ],
)
def test_no_more_is_decoded_than_needed(
    options: dict[str, str], wanted: list[int], num_packets: int, tmp_path: Path
) -> None:
    data = write_video(tmp_path / "a.mp4", 60, options=options | {"sc_threshold": "0"}).read_bytes()
    work = Work()
    assert (decode_video(data, np.array(wanted), 60, work=work) == all_frames(data)[wanted]).all()
    assert work == Work(num_packets, num_packets)


def test_frames_that_nothing_refers_to_are_left_out(tmp_path: Path) -> None:
    """Three B-frames between P-frames, of which only the wanted ones are decoded."""
    options = {"bf": "3", "b_strategy": "0", "g": "250", "x264-params": "b-pyramid=none"}
    data = write_video(tmp_path / "a.mp4", 60, options=options).read_bytes()
    work = Work()
    assert (decode_video(data, np.array([10, 41]), 60, work=work) == all_frames(data)[[10, 41]]).all()
    assert work.num_frames <= 2 + 12 and work.num_packets <= 46


@pytest.mark.parametrize("parameters", ["open-gop=1:bframes=3:keyint=10:min-keyint=10", "intra-refresh=1:keyint=10"])
def test_key_frames_that_do_not_stand_alone(parameters: str, tmp_path: Path) -> None:
    """Open GOPs (pictures after a key frame refer to what is before it) and recovery points without any key frame."""
    data = write_video(tmp_path / "a.mp4", 60, options={"x264-params": parameters + ":scenecut=0"}).read_bytes()
    everything = all_frames(data)
    for wanted in ([31], [8, 9, 10, 11, 29, 30], [19, 58], [3, 44]):
        assert (decode_video(data, np.array(wanted), 60) == everything[wanted]).all()


def test_runs_of_many_key_frames_are_found_at_once() -> None:
    """Intra-only video, 200,000 frames in a moment: a run for each frame that has no neighbour, in linear time."""
    num = 200_000
    runs = packet_runs(range(num), [True] * num, range(0, num, 2))
    assert len(runs) == num // 2 and runs[5] == range(10, 11)


def test_packet_runs() -> None:
    times, keys = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8], [i in (0, 4) for i in range(10)]  # I P b b I b b P b b, open GOP
    assert packet_runs(times, keys, [0]) == [range(1)]
    assert packet_runs(times, keys, [1, 3]) == [range(3)]
    assert packet_runs(times, keys, [4]) == [range(6)]  # the key frame at 6 comes first, but is shown later
    assert packet_runs(times, keys, [0, 7]) == [range(1), range(4, 9)]
    assert packet_runs(times, keys, [2, 6]) == [range(5)]
    assert packet_runs(times, [False] * 10, [9]) == [range(8)]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("empty", lambda data: b""),
        ("text", lambda data: b"this is not a video" * 40),
        ("no index", lambda data: data[: len(data) // 3]),
        ("cut", lambda data: data.replace(data[data.index(b"mdat") + 600 :][:4000], b"\0" * 4000)),
    ],
)
def test_damaged_videos_raise_decode_error(name: str, damage: object, tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4", 60, height=144, width=192).read_bytes()
    with pytest.raises(DecodeError):
        decode_video(damage(data), np.arange(0, 60, 7), 60)


def test_frame_outside_the_video_is_refused(video: bytes) -> None:
    with pytest.raises(DecodeError, match="frame 30"):
        decode_video(video, np.array([30]), NUM_FRAMES)
