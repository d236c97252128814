"""Each kind of video that people bring: the probe's facts, and FFmpeg's own frames, down to the model's pixels."""

from __future__ import annotations

import random
import shutil
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from livetrain.config import Config
from livetrain.core.world import World
from livetrain.data import Dataset, eval_loader, plan
from livetrain.data.clip_plan import ClipPlan
from livetrain.data.crop import resize
from livetrain.data.decode import decode_video
from shards import cli
from shards.format import index_table
from shards.format.probe import probe
from tests.shards import clips
from tests.shards.kinds import KINDS, plain_frames, raw, reference

NAMES = sorted(KINDS)


def ffmpeg() -> str:
    """The ffmpeg program: the one on PATH, or the one that imageio-ffmpeg brings."""
    if found := shutil.which("ffmpeg"):
        return found
    return str(pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg program here").get_ffmpeg_exe())


@pytest.mark.parametrize("name", NAMES)
def test_facts(name: str) -> None:
    kind = KINDS[name]
    facts = probe(kind.data)
    assert (facts.num_frames, facts.width, facts.height) == (kind.num_shown, kind.width, kind.height)
    assert facts.rotation == kind.rotation
    fps = 25.0 if kind.times is None else 1000 * (kind.num_frames - 1) / (kind.times[-1] - kind.times[0])
    assert facts.fps == pytest.approx(fps, rel=0.01)
    assert facts.duration_seconds == pytest.approx(kind.num_shown / fps, rel=0.01)
    assert facts.check == "decode"
    assert replace(probe(kind.data, quick=True), check="decode") == facts


@pytest.mark.parametrize("name", NAMES)
def test_chosen_frames_are_those_of_a_plain_decode(name: str) -> None:
    kind = KINDS[name]
    choice = random.Random(zlib.crc32(name.encode()))
    everything = reference(kind.data)
    assert len(everything) == kind.num_shown
    several = [choice.randrange(kind.num_shown) for _ in range(4)]
    for wanted in ([0], [kind.num_shown - 1], several[:1], several):
        frames = decode_video(kind.data, np.array(wanted), kind.num_shown)
        assert all(np.array_equal(frame, everything[index]) for frame, index in zip(frames, wanted, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_decode_is_what_the_ffmpeg_program_decodes(name: str, tmp_path: Path) -> None:
    """Sample by sample, before any conversion of colours."""
    (tmp_path / name).write_bytes(KINDS[name].data)
    command = [ffmpeg(), "-v", "error", "-noautorotate", "-i", name, "-fps_mode", "passthrough", "-f", "rawvideo", "-"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout == b"".join(raw(frame) for frame in plain_frames(KINDS[name].data))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds but the large one, every second one live, in one split."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "videos").mkdir()
    names = [name for name in NAMES if "4k" not in name]
    for name in names:
        (folder / "videos" / name).write_bytes(KINDS[name].data)
    rows = [{"fname": name, "liveness_score": number % 2, "split": "test"} for number, name in enumerate(names)]
    clips.write_labels(folder / "label.csv", rows, ("fname", "liveness_score", "split"))
    return folder


def build(corpus: Path, out: Path, *options: str) -> Path:
    arguments = ["build", "--videos", corpus / "videos", "--labels", corpus / "label.csv", "--out", out, "--workers", 1]
    assert cli.main([str(argument) for argument in [*arguments, *options]]) == 0
    assert len((out / "rejected.csv").read_text().splitlines()) == 1, "none is rejected"
    return out


def config_of(shards: Path) -> Config:
    config = Config()
    config.data.shards, config.data.image_size, config.data.threads = str(shards), 24, 1
    config.eval.batch_size, config.eval.num_frames = 8, 3
    return config


def clips_of(shards: Path) -> dict[str, tuple[float, np.ndarray, ClipPlan, int]]:
    """video → (label, what the model sees as uint8 [F, S, S, 3], its plan and the place in it)."""
    config = config_of(shards)
    dataset = Dataset.open(shards)
    found = {}
    loader = eval_loader(dataset, config, "test", world=World(torch.device("cpu")), mean=(0,) * 3, std=(1,) * 3)
    samples = plan.Samples.of(dataset, "test", config)
    with loader:
        for number, batch in enumerate(loader):
            assert not batch.failures
            item = plan.plan_evaluation(samples, config, number, 0, 1)
            for place, row in enumerate(batch.rows.tolist()):
                if batch.valid[place]:
                    pixels = (batch.clips[place].permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
                    found[dataset.text("video", row)] = float(batch.labels[place]), pixels, item, place
    return found


@pytest.mark.parametrize("store", [pytest.param("original", marks=pytest.mark.slow), "remux"])
def test_the_model_sees_the_right_frames_upright_with_the_right_label(corpus: Path, tmp_path: Path, store: str) -> None:
    seen = clips_of(build(corpus, tmp_path / "s", "--store", store))
    names = [name for name in NAMES if "4k" not in name]
    assert sorted(seen) == names
    for number, name in enumerate(names):
        label, pixels, item, place = seen[name]
        assert label == number % 2
        everything = reference(KINDS[name].data)
        for picture, index in zip(pixels, item.frames[place], strict=True):
            picture_rgb = everything[index]
            small = resize(picture_rgb.copy(), 24)
            upright = np.rot90(small, -KINDS[name].rotation // 90)
            difference = np.abs(picture.astype(int) - upright)  # planes are made small first: see data/crop.py
            assert difference.mean() < 0.5 and (difference <= 2).mean() > 0.95 and difference.max() < 16, name


@pytest.mark.parametrize(("store", "limit"), [("frames", 14), pytest.param("transcode", 14, marks=pytest.mark.slow)])
def test_other_stores_show_the_same_pictures(corpus: Path, tmp_path: Path, store: str, limit: int) -> None:
    """But for the loss of JPEG or H.264. A wrong frame or a wrong turn differs by far more: the corner's brightness."""
    shards = build(corpus, tmp_path / "s", "--store", store, *(("--num-frames", "3") if store == "frames" else ()))
    facts = {row["video"]: row for row in index_table.read(shards / "index.arrow").to_pylist()}
    for name, (_, pixels, _, _) in clips_of(shards).items():
        kind = KINDS[name]
        assert facts[name]["rotation"] == 0
        size = (kind.height, kind.width) if kind.rotation in (90, 270) else (kind.width, kind.height)
        blocks = tuple(max(16, round(side / 16) * 16) for side in size)
        assert (facts[name]["width"], facts[name]["height"]) == (blocks if store == "transcode" else size)
        if min(size) < 16:
            continue  # a single block, in which the corner is lost
        everything = reference(kind.data)
        wanted = [(2 * i + 1) * kind.num_shown // 6 for i in range(3)]
        for picture, index in zip(pixels, wanted, strict=True):
            upright = np.rot90(everything[index], -kind.rotation // 90)
            expected = resize(upright.copy(), 24)
            assert np.abs(picture.astype(int) - expected).mean() < limit, name
