"""Shortcuts: the cue that was planted, and no other; people who decide the interval; names that hold a date."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livetrain.core.engines import LocalEngine
from shards.audit import look_table, picture_cues, probes
from shards.audit.clips import Clips
from tests.shards.audit import planted
from tests.shards.audit.test_audit import build

RANDOM = np.random.default_rng(0)


def framed(frames: planted.Frames) -> planted.Frames:
    """With a black border above and below."""
    edge = len(frames[0]) // 10
    framed = [frame.copy() for frame in frames]
    for frame in framed:
        frame[:edge] = frame[-edge:] = 0
    return framed


SPOILT: Mapping[str, planted.Spoil] = {
    "none": lambda frames, live, name: (frames, name, {}),
    "frame rate": lambda frames, live, name: (frames, name, {"fps": 25.0 if live else 30.0}),
    "time stamps": lambda frames, live, name: (
        frames, f"2021{'03' if live else '09'}{int(name[-2:]) % 28 + 1:02d}-{name}", {},
    ),
    "brightness": lambda frames, live, name: (
        frames if live else [(frame * 0.75).astype(np.uint8) for frame in frames], name, {},
    ),
    "borders": lambda frames, live, name: (frames if live else framed(frames), name, {}),
}  # fmt: skip


@pytest.mark.parametrize(
    "cue",
    [pytest.param(cue, marks=pytest.mark.slow if cue != "borders" else ()) for cue in SPOILT],
)
def test_the_planted_cue_is_flagged_and_no_other(cue: str, tmp_path: Path) -> None:
    planted.neutral(tmp_path, SPOILT[cue])
    clips = Clips.read([build(tmp_path, tmp_path / "shards", "--fractions", "1,0,0")])
    looks = look_table.look_at_all(clips, tmp_path / "state", faces=False, engine=LocalEngine())
    found = probes.probe_all(clips, probes.cues(clips, looks))
    assert all(probe.goes_with in ("", cue) for probe in found), "what it costs in bytes, say, goes with it"
    assert sorted(probe.cue for probe in found) == sorted(probes.MEANING), "each is said something about"
    assert [probe.cue for probe in found if probe.flagged] == ([] if cue == "none" else [cue])


def probe(values: np.ndarray, live: np.ndarray, people: list[str]) -> probes.Probe:
    return probes._probe("cue", values.reshape(len(live), -1), live, np.array(people, object), seed=0)


def test_a_person_s_own_value_is_no_cue() -> None:
    """Each person has a value of their own, and is live in most of their clips or in few: known by heart, useless."""
    people = [f"p{row // 10}" for row in range(200)]
    live = np.array([(row % 10 < 8) == (row // 10 % 2 == 0) for row in range(200)])
    values = np.array([float(int(who[1:]) * 37 % 20) for who in people])
    found = probe(values, live, people)
    assert found.low is not None and not found.flagged
    alone = probe(values, live, [""] * 200)
    assert alone.auc is not None and found.auc is not None and alone.auc > found.auc + 0.1, (
        "by clips it would look like one"
    )


def test_the_interval_is_over_people_and_widens_with_fewer() -> None:
    random = np.random.default_rng(1)

    def width(num_people: int) -> float:
        people = [f"p{row % num_people}" for row in range(240)]
        live = random.random(240) < 0.5
        own = random.normal(0, 1.0, num_people)
        values = live + 2 * own[[int(who[1:]) for who in people]] + random.normal(0, 0.5, 240)
        found = probe(values, live, people)
        assert found.low is not None and found.high is not None
        return found.high - found.low

    assert np.mean([width(4) for _ in range(3)]) > 1.3 * np.mean([width(120) for _ in range(3)])


def test_a_cue_in_the_middle_of_the_range_is_found() -> None:
    random = np.random.default_rng(2)
    live = np.tile([True, False], 100)
    values = np.where(live, random.normal(0, 0.3, 200), random.choice([-2.0, 2.0], 200))
    assert probe(values, live, [f"p{row // 10}" for row in range(200)]).flagged


def test_what_cannot_be_measured_says_why() -> None:
    live, people = np.tile([True, False], 10), [f"p{row // 2}" for row in range(20)]
    assert probe(np.full(20, 3.0), live, people).reason == "the same for all clips"
    assert probe(np.where(np.arange(20) < 15, np.nan, 1.0), live, people).reason == "known for 25 % of the clips"
    assert probe(np.arange(20.0), live, ["one"] * 20).reason == "fewer than two people of a class"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/2021-05-31.mp4", 1622419200.0),
        ("VID_20210531_120000.mp4", 1622462400.0),
        ("2021-05-31 12.00.00.mov", 1622462400.0),
        ("1622462400.mp4", 1622462400.0),
        ("1622462400123.mp4", 1622462400.0),
        ("20219931.mp4", math.nan),
        ("clip_0001_00.mp4", math.nan),
        ("1622462400000000.mp4", math.nan),
    ],
)
def test_time_stamps_in_names(name: str, expected: float) -> None:
    assert probes.time_stamp(name) == pytest.approx(expected, nan_ok=True)


def pixels(height: int = 96, width: int = 128) -> Any:
    return planted.scene(np.random.default_rng(4), 1, (height, width))[0]


def test_borders_are_measured_on_each_side() -> None:
    picture = pixels()
    picture[:12] = 0
    picture[:, -32:] = 255
    top, left, bottom, right = picture_cues.borders(picture_cues.grey(picture))
    assert (left, bottom) == (0, 0) and right == 32 / 128 and top == 0, "beside a bright bar a row is not plain"
    top, *_ = picture_cues.borders(picture_cues.grey(picture[:, :-32]))
    assert top == 12 / 96


def test_blocks_are_steps_at_every_eighth_pixel() -> None:
    from PIL import Image

    picture = pixels(128, 160)
    smooth = np.asarray(Image.fromarray(picture).resize((40, 32)).resize((160, 128), Image.Resampling.BICUBIC))
    coded = smooth.reshape(16, 8, 20, 8, 3).mean((1, 3), keepdims=True).repeat(8, 1).repeat(8, 3).reshape(128, 160, 3)
    mixed = (0.7 * smooth + 0.3 * coded).astype(np.uint8)
    values = [picture_cues.blocks(picture_cues.grey(one)) for one in (smooth, mixed)]
    assert values[0] == pytest.approx(1, abs=0.1) and values[1] > 1.3


def test_light_moves_neither_contrast_nor_sharpness_and_blur_moves_sharpness() -> None:
    picture = pixels().astype(np.float32)
    dark = (picture * 0.6).astype(np.uint8)
    thumbnails = np.zeros((2, 32, 32), np.float32)
    bright_cues = picture_cues.measure([picture.astype(np.uint8)], None, thumbnails)
    dark_cues = picture_cues.measure([dark], None, thumbnails)
    assert dark_cues["brightness"][0] == pytest.approx(0.6 * bright_cues["brightness"][0], rel=0.02)
    for name in ("contrast", "sharpness", "background"):
        assert dark_cues[name] == pytest.approx(bright_cues[name], abs=0.05), name
    blurred = (picture + np.roll(picture, 1, 0) + np.roll(picture, 1, 1) + np.roll(picture, (1, 1), (0, 1))) / 4
    assert (
        picture_cues.measure([blurred.astype(np.uint8)], None, thumbnails)["sharpness"][0]
        < bright_cues["sharpness"][0] - 0.2
    )


def test_the_background_is_what_the_face_leaves() -> None:
    picture, box = pixels(), np.array([0.3, 0.3, 0.7, 0.7])
    other = picture.copy()
    other[28:68, 38:90] = 255
    edges = np.zeros(4)
    same = [picture_cues.surroundings(one, box, edges) for one in (picture, other)]
    assert same[0] == pytest.approx(same[1], abs=0.02)
    other[:, :20] = 255
    assert np.abs(picture_cues.surroundings(other, box, edges) - same[0]).max() > 0.2


def test_a_build_says_in_one_line_what_an_audit_would_show(
    demo_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted.neutral(tmp_path / "spoilt", SPOILT["frame rate"])
    (tmp_path / "spoilt" / "videos" / "again.mp4").write_bytes((tmp_path / "spoilt/videos/clip-000.mp4").read_bytes())
    with (tmp_path / "spoilt" / "label.csv").open("a") as file:
        file.write("again.mp4,1,p0,live,s\n")
    build(tmp_path / "spoilt", tmp_path / "a", "--fractions", "1,0,0")
    lines = [line for line in capsys.readouterr().err.splitlines() if "python -m shards audit" in line]
    assert len(lines) == 1 and "1 video is there a second time" in lines[0]
    assert "frame rate separates live clips from attacks (AUC 0.98)" in lines[0], "one live clip has the other rate"
    assert "resolution" not in lines[0]
    build(demo_videos, tmp_path / "b")
    assert "python -m shards audit" not in capsys.readouterr().err
