"""The fewest frames that a video's GOPs force one to decode, and livetrain's decoder, which decodes no more."""

from __future__ import annotations

import av
import numpy as np
import pytest

from livetrain.bench.clips import ClipSet, make_clips
from livetrain.bench.limits import decode_and_discard, fewest_frames
from livetrain.data.decode import Work, decode_video


@pytest.fixture(scope="module", params=[1, 7, 0], ids=lambda gop: f"gop{gop}")
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, bytes]:
    folder = tmp_path_factory.mktemp("clips")
    return request.param, make_clips(folder, ClipSet(96, 64, seconds=1.6, gop=request.param, num_clips=1))[
        0
    ].read_bytes()


def test_clips_have_the_gop_and_b_frames(clip: tuple[int, bytes]) -> None:
    gop, data = clip
    import io

    with av.open(io.BytesIO(data), "r") as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 40
    assert [index for index, frame in enumerate(frames) if frame.key_frame] == list(range(0, 40, gop or 250))
    assert (gop == 1) or any(frame.pict_type == av.video.frame.PictureType.B for frame in frames)


def test_no_frame_is_decoded_that_is_not_needed(clip: tuple[int, bytes]) -> None:
    gop, data = clip
    random = np.random.default_rng(1)
    for count in (1, 2, 8):
        for _ in range(6):
            wanted = random.choice(40, count, replace=False)
            fewest = fewest_frames(data, wanted.tolist())
            assert count <= fewest <= 40 and (gop != 1 or fewest == count)
            work = Work()
            decode_video(data, wanted, 40, work=work)
            assert work.num_frames == fewest
            assert decode_and_discard(data, wanted, 40).num_frames == fewest


def test_all_frames_need_all_frames(clip: tuple[int, bytes]) -> None:
    assert fewest_frames(clip[1], range(40)) == 40
