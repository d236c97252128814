"""Face crops: the face stays where it is in every frame, in all decoders and stores alike, black beyond the picture."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from livetrain.config import Config, load_config
from livetrain.core.errors import UserError
from livetrain.core.world import World
from livetrain.data import Dataset, face_crop, plan, region, windows
from livetrain.data.crop import Cut, cut, resize
from livetrain.data.decode import decode_video
from livetrain.data.graph import Graph, GraphOptions, colour_params
from livetrain.data.loaders import eval_loader, train_loader
from livetrain.data.perturb import PERTURBATIONS, Shifts, perturb
from shards import cli
from shards.format.colour import Colours, ToRgb
from shards.format.face_table import Track
from tests import servers
from tests.shards.faces import clips
from tests.videos import write_video

pytest.importorskip("dlib")

SIZE = 64
SIDES = [clips.HEIGHT, clips.WIDTH, clips.HEIGHT, clips.WIDTH]
ZERO, ONE = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # so that a batch has 0 … 255


def jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=100, subsampling=0)
    return buffer.getvalue()


def make_config(shards: Path, *overrides: str) -> Config:
    fixed = (f"data.shards={shards}", "data.crop=face", f"data.image_size={SIZE}", "augment.enabled=false")
    few = ("data.num_frames=4", "eval.num_frames=4", "eval.batch_size=8")
    return load_config([], [*fixed, *few, *overrides], warn=lambda line: None)


def seen(config: Config, split: str = "all", dataset: Dataset | None = None) -> dict[str, np.ndarray]:
    """Key → what evaluation sees, float32 [F, 3, S, S] of 0 … 255."""
    dataset = dataset or Dataset.of(config.data)
    with eval_loader(dataset, config, split, world=World(torch.device("cpu")), mean=ZERO, std=ONE) as loader:
        return {
            key: clip
            for batch in loader
            for key, clip, good in zip(batch.keys, batch.clips.numpy(), batch.valid.tolist(), strict=True)
            if good
        }


def key_of(dataset: Dataset, video: str) -> str:
    return next(dataset.text("key", row) for row in range(len(dataset)) if dataset.text("video", row) == video)


def along(track: Track, frames: list[int], scale: float) -> np.ndarray:
    """The squares around the face of a track, by hand: top, left, height, width in pixels, float [F, 4]."""
    boxes = [[np.interp(frame, track.frames, track.boxes[:, side]) for side in range(4)] for frame in frames]
    boxes = np.array(boxes) * SIDES
    side = scale * np.median(np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
    corners = (boxes[:, :2] + boxes[:, 2:] - side) / 2
    return np.concatenate([corners, np.full((len(frames), 2), side)], axis=1)


@pytest.mark.parametrize("video", ["train-live.mp4", clips.TURNED])
def test_a_moving_face_stays_in_the_middle_of_every_frame(face_shards: Path, video: str) -> None:
    config = make_config(face_shards)
    dataset = Dataset.of(config.data)
    item = plan.plan_evaluation(plan.Samples.of(dataset, "all", config), config, 0, 0, 1)
    place = next(i for i, row in enumerate(item.rows.tolist()) if dataset.text("video", row) == video)
    track = dataset.faces.track(int(item.rows[place]))
    assert track is not None
    squares = along(track, item.frames[place].tolist(), config.data.face_scale)
    pictures = clips.frames()
    hand = [cut(pictures[frame], np.rint(square)) for frame, square in zip(item.frames[place], squares, strict=True)]
    small = np.stack([resize(picture, SIZE) for picture in hand]).transpose(0, 3, 1, 2).astype(np.float32)
    crops = seen(config)[dataset.text("key", int(item.rows[place]))]
    assert np.abs(crops - small).mean() < 6  # H.264, and a pixel that is rounded the other way
    moved = np.abs(crops[1:] - crops[:-1]).mean()
    whole = seen(make_config(face_shards, "data.crop=whole"))[dataset.text("key", int(item.rows[place]))]
    assert moved < 0.4 * np.abs(whole[1:] - whole[:-1]).mean()


def test_stores_and_decoders_cut_the_same(face_videos: Path, face_shards: Path, tmp_path: Path) -> None:
    """Video and JPEGs of it; nearly the same boxes, since those of JPEGs are found in them."""
    frames = clips.build(
        face_videos, tmp_path / "frames", "--store", "frames", "--num-frames", "12", "--quality", "100"
    )
    assert cli.main(["faces", str(frames), "--num-frames", "6"]) == 0
    by_cpu, by_image = seen(make_config(face_shards)), seen(make_config(frames))
    assert by_cpu.keys() == by_image.keys()
    for key, crops in by_cpu.items():
        assert np.abs(crops - by_image[key]).mean() < 8, key


def test_dalis_own_decoder_cuts_what_the_cpu_cuts(tmp_path: Path) -> None:
    """The graph of NVDEC, with the codec DALI's CPU side has: the window of each frame is moved by an affine map."""
    options = {"crf": "10", "b:v": "0"}
    path = write_video(tmp_path / "a.webm", 8, codec="libvpx-vp9", height=96, width=128, options=options)
    frames = np.array([[0, 2, 5, 7]])
    seen = np.array([[[-16, -8, 48, 40], [20, 100, 48, 40], [70, 0, 48, 40], [24, 44, 48, 40]]])
    pixels, moved = windows.around(seen, np.array([96]), np.array([128]))
    params = {
        "box": (pixels / [96, 128, 96, 128]).astype(np.float32), "window": moved.astype(np.int32),
        "angle": np.zeros(1, np.float32), "flip": np.zeros(1, np.int32),
    }  # fmt: skip
    how = GraphOptions(
        image_size=SIZE, num_frames=4, max_clips=1, mean=ZERO, std=ONE, device=torch.device("cpu"),
        dtype=torch.float32, num_threads=1,
    )  # fmt: skip
    data = path.read_bytes()
    colours = Colours("bt601", False)
    in_dali = params | colour_params([colours])
    found = Graph("nvdec", [], in_dali, how).run([data], frames, in_dali)[0].numpy()
    cut_here = Cut(params["box"][0], SIZE, params["window"][0])
    decoded = cut_here.windows(decode_video(data, frames[0], 8, shape=cut_here.shape(colours)))
    by_cpu = Graph("cpu", [], params, how).run([decoded], frames, params)[0].numpy()
    assert np.abs(found - by_cpu).mean() < 3 and found.shape == (4, 3, SIZE, SIZE)
    black = [np.argwhere((clip <= 1).all(axis=0)).shape[0] / SIZE**2 for clip in found]
    assert black[0] > 0.4 and black[1] > 0.25 and black[2] > 0.4 and black[3] < 0.01
    files = [[jpeg(frame) for frame in decode_video(data, frames[0], 8, shape=ToRgb(colours))]]
    by_image = Graph("image", [], params, how).run(files, frames, params)[0].numpy()
    assert np.abs(by_image - by_cpu).mean() < 3


def test_a_clip_without_a_face_is_seen_whole_left_out_or_refused(face_shards: Path) -> None:
    dataset = Dataset.of(make_config(face_shards).data)
    empty = key_of(dataset, clips.NO_FACE)
    whole = seen(make_config(face_shards, "data.crop=whole"))
    assert np.abs(seen(make_config(face_shards))[empty] - whole[empty]).max() <= 2
    left = seen(make_config(face_shards, "data.face_missing=skip"))
    assert left.keys() == whole.keys() - {empty}
    with pytest.raises(UserError, match=r"1 of 8 clips of all have no face .*faces_missing.csv"):
        seen(make_config(face_shards, "data.face_missing=fail"))


def test_faces_of_remote_shards_come_with_them(face_shards: Path, tmp_path: Path) -> None:
    with servers.serve(face_shards) as server:
        config = make_config(face_shards, f"data.cache_dir={tmp_path / 'cache'}")
        config.data.shards = server.url
        remote, local = seen(config), seen(make_config(face_shards))
    assert remote.keys() == local.keys() and all((remote[key] == local[key]).all() for key in local)


def test_shards_without_faces_say_what_to_run(face_videos: Path, tmp_path: Path) -> None:
    bare = clips.build(face_videos, tmp_path / "bare")
    with pytest.raises(UserError, match=r"no faces.arrow; find the faces first: livetrain shards faces DIR"):
        seen(make_config(bare))


def test_training_draws_scale_and_shift_and_one_of_several_scales(face_shards: Path) -> None:
    config = make_config(face_shards, "augment.enabled=true", "train.global_batch=4")
    config.data.train_split = "all"
    dataset = Dataset.of(config.data)

    def sides(config: Config) -> list[float]:
        """Side of the crop over that of the face, of the clips of many steps."""
        samples, found = plan.Samples.of_training(dataset, config), []
        for step in range(40):
            item = plan.plan_train(samples, config, step, 0, 0, 1)
            for row, window, frames in zip(item.rows.tolist(), item.params["window"], item.frames, strict=True):
                track = dataset.faces.track(row)
                if track is not None:
                    box = track.boxes * SIDES
                    face = np.sqrt((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]))
                    found.append(window[0, 2] / np.median(np.interp(frames, track.frames, face)))
                    assert (window[:, 2:] == window[0, 2:]).all()
        return found

    def shifts(config: Config) -> np.ndarray:
        """How far the crop's middle is from that of evaluation, of its side, in both directions: float [n, 2]."""
        samples, found = plan.Samples.of_training(dataset, config), []
        for step in range(30):
            item = plan.plan_train(samples, config, step, 0, 0, 1)
            centred = region.fixed_region(item.frames, samples.facts(np.searchsorted(samples.rows, item.rows)), config)
            for place, row in enumerate(item.rows.tolist()):
                if dataset.faces.track(row) is not None and dataset.text("video", row) != clips.TURNED:
                    middles = []
                    for params in (item.params, centred):
                        corner = params["box"][place, :2] * SIDES[:2] + params["window"][place, 0, :2]
                        middles.append(corner + params["window"][place, 0, 2:] / 2)
                    found.append((middles[0] - middles[1]) / item.params["window"][place, 0, 2])
        return np.array(found)

    far = shifts(dataclasses.replace(config, augment=dataclasses.replace(config.augment, face_shift=0.2)))
    assert 0.15 < np.abs(far).max() < 0.22 and np.all(far.std(axis=0) > 0.06)
    still = shifts(dataclasses.replace(config, augment=dataclasses.replace(config.augment, face_shift=0.0)))
    assert np.abs(still).max() < 0.02, "whole pixels"
    drawn = sides(config)
    assert 0.95 < min(drawn) < 1.1 and 1.4 < max(drawn) < 1.55
    several = sides(dataclasses.replace(config, data=dataclasses.replace(config.data, face_multi_scale=[1.0, 2.0])))
    near = np.array(several) < 1.5
    assert 0.3 < near.mean() < 0.7 and np.allclose(np.array(several)[near], 1, atol=0.05)
    with train_loader(
        dataset, config, world=World(torch.device("cpu")), mean=ZERO, std=ONE, start_step=0, num_steps=1
    ) as loader:
        (batch,) = loader
    assert batch.clips.shape == (4, 4, 3, SIZE, SIZE) and bool(batch.valid.all())


def test_perturbations_keep_to_the_face(face_shards: Path) -> None:
    config = make_config(face_shards)
    dataset = Dataset.of(config.data)
    samples = plan.Samples.of(dataset, "all", config)
    item = plan.plan_evaluation(samples, config, 0, 0, 1)
    named = {item.name: Shifts.same(item) for item in PERTURBATIONS}
    cropped = perturb(item, samples, config, named["crop60"]).params["window"]
    was = item.params["window"]
    assert np.abs(cropped[..., 2:] / was[..., 2:] - 0.6).max() < 0.05
    assert (cropped[..., :2] * 2 + cropped[..., 2:] == was[..., :2] * 2 + was[..., 2:]).all(), "the same middle"
    shortened = perturb(item, samples, config, named["shorten4"])
    again = region.fixed_region(shortened.frames, samples.facts(np.arange(8)), config)
    assert (shortened.params["window"] == again["window"]).all() and not np.array_equal(again["window"], was)


def test_windows_are_equally_large_and_relative_to_what_is_cut_out() -> None:
    track = Track(
        np.array([0, 10], np.int32), np.array([[0.4, 0, 0.6, 0.2], [0.4, 0.8, 0.6, 1]], np.float32), np.ones(2)
    )
    squares = face_crop.squares(
        [track], np.array([[0, 5, 10]]), np.array([100.0]), np.array([100.0]), np.array([2.0]), np.zeros((1, 2))
    )
    assert np.allclose(squares[0], [[0.3, -0.1, 0.7, 0.3], [0.3, 0.3, 0.7, 0.7], [0.3, 0.7, 0.7, 1.1]])
    seen = windows.pixel_windows(squares, np.array([100]), np.array([100]))
    assert seen[0].tolist() == [[30, -10, 40, 40], [30, 30, 40, 40], [30, 70, 40, 40]]
    box, moved = windows.around(seen, np.array([100]), np.array([100]))
    assert box.tolist() == [[30, 0, 70, 100]] and moved[0, :, :2].tolist() == [[0, -10], [0, 30], [0, 70]]


def test_what_is_cut_beyond_a_picture_is_black() -> None:
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) + 1
    found = cut(picture, np.array([-1, 3, 4, 4]))
    assert (found[0] == 0).all() and (found[1:, 2:] == 0).all()
    assert (found[1:, :2] == picture[:3, 3:]).all()
    assert (cut(picture, np.array([10, 10, 2, 2])) == 0).all()
