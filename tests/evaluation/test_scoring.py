"""From clips to scores: views, scores of frames and how they become one; the same in evaluation and prediction."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from livetrain import load_model
from livetrain.config import Config, EvalConfig
from livetrain.core.world import World
from livetrain.data import Dataset, eval_loader
from livetrain.evaluation import scoring
from livetrain.model import build_model, p_live
from shards import cli
from tests.test_predict import scored_on_shards
from tests.videos import write_video


def settings(**values: object) -> EvalConfig:
    return dataclasses.replace(EvalConfig(), **values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"aggregate": "mean"}, 0.5),
        ({"aggregate": "median"}, 0.45),  # of 0.4 and 0.5
        ({"aggregate": "max"}, 1.0),
        ({"aggregate": "topk", "top_frames": 2}, 0.9),
        ({"aggregate": "topk", "top_frames": 99}, 0.5),
        ({"aggregate": "trimmed", "trim": 0.2}, (0.2 + 0.4 + 0.5 + 0.8) / 4),
        ({"aggregate": "trimmed", "trim": 0.0}, 0.5),
        ({"aggregate": "trimmed", "trim": 0.49}, 0.45),
    ],
)
def test_scores_of_frames_become_one(values: dict[str, object], expected: float) -> None:
    frames = torch.tensor([[0.8, 0.1, 1.0, 0.4, 0.2, 0.5], [0.7] * 6])
    found = scoring.aggregate(frames, settings(**values))
    assert torch.allclose(found, torch.tensor([expected, 0.7])) and found.shape == (2,)


@pytest.mark.parametrize("how", ["mean", "median", "max", "topk", "trimmed"])
def test_the_order_of_frames_does_not_matter_and_one_frame_is_itself(how: str) -> None:
    frames = torch.rand(3, 7)
    one = settings(aggregate=how)
    assert torch.allclose(scoring.aggregate(frames, one), scoring.aggregate(frames.flip(1), one))
    assert torch.equal(scoring.aggregate(frames[:, :1], one), frames[:, 0])


def config_of(tta: str, size: int, *scales: float) -> Config:
    config = Config()
    config.data.image_size, config.eval.tta = size, tta
    if scales:
        config.data.crop, config.data.face_multi_scale = "face", list(scales)
    return config


def test_several_scales_are_middles_of_one_picture() -> None:
    """Of a picture of scale 2, in twice the pixels, scale 1 is the middle half as it is, and scale 2 all of it."""
    config = config_of("none", 8, 1.0, 2.0)
    made = scoring.rendered(config)
    assert (made.data.image_size, made.data.face_scale, scoring.num_views(config)) == (16, 2.0, 2)
    clips = torch.rand(2, 3, 3, 16, 16)
    near, far = scoring.views(clips, config)
    assert torch.equal(near, clips[..., 4:12, 4:12]) and far.shape == near.shape
    assert torch.allclose(far.mean(dim=(-1, -2)), clips.mean(dim=(-1, -2)), atol=0.02)
    both = scoring.views(clips, config_of("flip", 8, 1.0, 2.0))
    assert len(both) == scoring.num_views(config_of("flip", 8, 1.0, 2.0)) == 4
    assert torch.equal(both[2], near.flip(-1)) and torch.equal(both[3], far.flip(-1))


def test_views() -> None:
    clips = torch.arange(2 * 1 * 3 * 8 * 8).reshape(2, 1, 3, 8, 8).float()
    assert [torch.equal(view, clips) for view in scoring.views(clips, config_of("none", 8))] == [True]
    plain, mirrored = scoring.views(clips, config_of("flip", 8))
    assert torch.equal(plain, clips) and torch.equal(mirrored[..., 0], clips[..., 7])
    five = scoring.views(clips, config_of("five_crop", 6))
    assert [view[0, 0, 0, 0, 0].item() for view in five] == [0, 2, 16, 18, 9]
    ten = scoring.views(clips, config_of("ten_crop", 6))
    assert len(ten) == scoring.num_views(config_of("ten_crop", 6)) and torch.equal(ten[5], five[0].flip(-1))
    assert {tuple(view.shape) for view in ten} == {(2, 1, 3, 6, 6)}


def test_crops_are_cut_from_a_larger_picture_and_nothing_else_is() -> None:
    config = Config()
    assert scoring.rendered(config) is config
    config.eval.tta = "flip"
    assert scoring.rendered(config) is config
    config.eval.tta = "five_crop"
    assert scoring.rendered(config).data.image_size == 256 and config.data.image_size == 224


@pytest.mark.parametrize("loss", ["bce", "ce"])
@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_a_score_is_the_mean_over_views_of_the_aggregate_over_frames(loss: str, pool: str) -> None:
    config = Config()
    config.model.backbone, config.model.pool, config.loss.name, config.data.image_size = "test_vit", pool, loss, 160
    torch.manual_seed(0)
    model = build_model(config.model, config.loss, 160).eval()
    torch.nn.init.normal_(model.head.weight, std=0.5)
    clips = torch.randn(2, 3, 3, 160, 160)
    with torch.inference_mode():
        assert torch.equal(scoring.clip_logits(model, clips, config), model(clips))
        config.eval.tta, config.eval.aggregate = "flip", "max"
        frames = [torch.stack([p_live(model(view[:, [i]])) for i in range(3)], 1) for view in (clips, clips.flip(-1))]
        expected = (frames[0].amax(1) + frames[1].amax(1)) / 2
        logits = scoring.clip_logits(model, clips, config)
        assert logits.shape == ((2, 2) if loss == "ce" else (2,))
        assert torch.allclose(scoring.score_clips(model, clips, config), expected, atol=1e-5)
        assert torch.allclose(p_live(logits), expected, atol=1e-5)
        assert expected.std() > 1e-4


@pytest.mark.parametrize(
    "overrides",
    [
        ("eval.tta=ten_crop", "eval.aggregate=trimmed", "eval.num_frames=4"),
        pytest.param(("eval.num_frames=0", "eval.aggregate=median", "eval.tta=flip"), marks=pytest.mark.slow),
    ],
)
def test_prediction_scores_as_evaluation_does(plain: Path, demo_videos: Path, overrides: tuple[str, ...]) -> None:
    known = scored_on_shards(plain, *overrides)
    names = known.video.tolist()
    found = load_model(plain, *overrides).predict([demo_videos / "videos" / name for name in names] + [names[0]] * 2)
    assert [item.p_live for item in found[: len(names)]] == known.p_live.tolist()
    assert [item.num_frames for item in found[: len(names)]] == known.num_frames.tolist()
    assert known.p_live.std() > 0 and known.p_live.tolist() != scored_on_shards(plain).p_live.tolist()
    if "eval.num_frames=0" in overrides:
        assert min(known.num_frames) > 20 and len(set(known.num_frames.tolist())) > 1


def test_all_frames_are_all_frames(plain: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", 7)
    every = load_model(plain, "eval.num_frames=0").predict(video)
    seven = load_model(plain, "eval.num_frames=7").predict(video)
    assert every.num_frames == 7 and every.p_live == pytest.approx(seven.p_live, abs=1e-6)
    assert every.p_live != load_model(plain, "eval.num_frames=1").predict(video).p_live


def test_all_stored_pictures_of_each_clip(demo_videos: Path, tmp_path: Path) -> None:
    """JPEG shards: clips of different numbers of pictures, one after the other through one graph."""
    source, out = tmp_path / "videos", tmp_path / "shards"
    rows = ["fname,liveness_score,split"]
    for number, count in enumerate((3, 9, 5, 9)):
        write_video(source / f"{number}.mp4", count)
        rows.append(f"{number}.mp4,{number % 2},dev")
    (tmp_path / "label.csv").write_text("\n".join(rows))
    arguments = ["--videos", source, "--labels", tmp_path / "label.csv", "--out", out, "--store", "frames"]
    assert cli.main([str(item) for item in ["build", *arguments, "--num-frames", 6, "--size", 48]]) == 0
    config = Config()
    config.data.image_size, config.eval.num_frames = 32, 0
    dataset, half = Dataset.open(out), (0.5, 0.5, 0.5)
    options = {"world": World(torch.device("cpu")), "mean": half, "std": half}
    with eval_loader(dataset, config, "dev", **options) as loader:
        shapes = {batch.keys[0]: tuple(batch.clips.shape[:2]) for batch in loader}
    pictures = {dataset.text("key", row): int(dataset.column("num_frames")[row]) for row in range(4)}
    assert shapes == {key: (1, count) for key, count in pictures.items()} and sorted(pictures.values()) == [3, 5, 6, 6]
