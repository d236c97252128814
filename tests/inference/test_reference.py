"""The script that is exported with a model makes the input that livetrain makes."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from livetrain.core.world import World
from livetrain.data import Dataset, eval_loader
from livetrain.inference import package
from livetrain.inference.export import write
from tests.runs import small_config, train_here
from tests.shards.faces import clips

pytest.importorskip("dlib")


WHOLE = ("whole", "whole data.fit=center")


@pytest.mark.parametrize(
    "crop", ["face", "whole data.fit=pad", *(pytest.param(crop, marks=pytest.mark.slow) for crop in WHOLE)]
)
def test_its_input_is_the_loaders(crop: str, face_shards: Path, tmp_path: Path) -> None:
    config = small_config(
        face_shards, tmp_path / "run", *f"data.crop={crop}".split(), "train.max_steps=1", "eval.num_frames=4"
    )
    train_here(config)
    trained = package.load(tmp_path / "run")
    script = runpy.run_path(str(write.write_reference(trained, tmp_path / "model.onnx")))
    assert (tmp_path / "model_preprocess.py").exists()

    dataset = Dataset.of(config.data)
    model = trained.model
    with eval_loader(
        dataset, config, "train", world=World(torch.device("cpu")), mean=model.mean, std=model.std
    ) as loader:
        (batch,) = loader
    place = next(i for i, row in enumerate(batch.rows.tolist()) if dataset.text("video", row) == "train-live.mp4")
    track = dataset.faces.track(int(batch.rows[place]))
    assert track is not None
    frames = batch.frames[place].tolist()
    boxes = np.stack([np.interp(frames, track.frames, column) for column in track.boxes.T], axis=1)
    boxes = boxes * [clips.HEIGHT, clips.WIDTH, clips.HEIGHT, clips.WIDTH]
    pictures = clips.frames()
    found = script["preprocess"]([pictures[frame] for frame in frames], boxes if crop == "face" else None)
    assert found.dtype == np.float32 and found.shape == (1, 4, 3, 96, 96)
    difference = np.abs(found[0] - batch.clips[place].numpy()) * np.array(model.std)[:, None, None] * 255
    assert difference.mean() < 4, "H.264, and roundings"
    assert np.abs(found).max() > 0.5
