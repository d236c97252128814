"""An exported model scores raw videos as the model does, where there is no torch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from livetrain import cli
from livetrain.core.errors import UserError
from livetrain.core.world import World
from livetrain.data import VideoFiles, files_loader
from livetrain.inference.export.write import _facts
from livetrain.inference.onnx_scorer import INPUT, METADATA, OUTPUT, OnnxScorer
from livetrain.inference.package import Trained
from shards.demo.corpus import with_rotation
from tests.inference.test_export import untrained
from tests.videos import write_video

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

MEAN, STD = (0.1, 0.5, 0.6), (0.2, 0.3, 0.4)


def means_of_red(path: Path, trained: Trained) -> Path:
    """An .onnx file as `livetrain export` writes it, whose p_live is the sigmoid of the mean of red, upper left."""
    from onnx import TensorProto, helper

    constants = {"first": [0, 0, 0, 0, 0], "last": [10**6, 10**6, 1, 40, 60]}
    tensors = [helper.make_tensor(name, TensorProto.INT64, [5], values) for name, values in constants.items()]
    nodes = [
        helper.make_node("Slice", [INPUT, "first", "last"], ["corner"]),
        helper.make_node("Flatten", ["corner"], ["flat"], axis=1),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Sigmoid", ["mean"], [OUTPUT]),
    ]
    size = trained.config.data.image_size
    into = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["clips", "frames", 3, size, size])
    out = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["clips"])
    graph = helper.make_graph(nodes, "test", [into], [out], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model.metadata_props.add(key=METADATA, value=_facts(trained, "fp32"))
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def trained() -> Trained:
    trained = untrained()
    trained.model.mean, trained.model.std = MEAN, STD
    return trained


@pytest.fixture(scope="module")
def model(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return means_of_red(tmp_path_factory.mktemp("onnx") / "red.onnx", trained)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_pictures_are_those_of_the_loader(model: Path, some_videos: Path, tmp_path: Path, fit: str) -> None:
    scorer = OnnxScorer(model, [f"data.fit={fit}"])
    paths = [path for path in sorted(some_videos.glob("*.mp4")) if path.stat().st_size][:3]
    for turn in (90, 180, 270):  # as phones write them
        paths.append(tmp_path / f"{turn}.mp4")
        write_video(paths[-1], 12)
        paths[-1].write_bytes(with_rotation(paths[-1].read_bytes(), turn, 64, 48))
    files = scorer.files(paths)
    rows = np.arange(len(paths))
    ours = [
        scorer._clip(files, plan, i)
        for plan in files.plans(scorer.config, rows, 4)
        for i in range(4)
        if plan.rows[i] >= 0
    ]
    world = World(torch.device("cpu"))
    files = VideoFiles(paths, scorer.workers())
    with files_loader(files, scorer.config, rows, batch_size=4, world=world, mean=MEAN, std=STD) as loader:
        theirs = torch.cat([batch.clips[batch.valid] for batch in loader]).numpy()
    assert len(ours) == len(theirs) == len(paths)
    assert np.abs(np.stack(ours) - theirs).max() < 1e-5
    assert {int(files.column("rotation")[row]) for row in rows} == {0, 90, 180, 270}


WITHOUT_TORCH = """
import sys
for name in ("torch", "timm", "nvidia.dali", "accelerate", "torchvision"):
    sys.modules[name] = None  # importing it fails
if __name__ == "__main__":
    from livetrain.cli import main
    sys.exit(main(sys.argv[1:]))
"""


def test_predict_needs_no_torch(model: Path, some_videos: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(WITHOUT_TORCH)
    out = tmp_path / "out.csv"
    words = ["predict", "--onnx", str(model), "--videos", str(some_videos), "--out", str(out), "data.fit=pad"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert "7 videos, 1 of them got no score" in ran.stdout
    with out.open() as file:
        scores = {row["fname"]: float(row["liveness_score"]) for row in csv.DictReader(file)}
    scorer = OnnxScorer(model, ["data.fit=pad"])
    for found in scorer.predict(sorted(some_videos.glob("*.mp4"))):
        if found.p_live is not None:
            # Here torch resizes, there Pillow: a level of 255 is 0.02 of a deviation.
            assert scores[Path(found.video).name] == pytest.approx(found.p_live, abs=2e-3)
    assert scores["empty.mp4"] == scorer.failed_score


def test_the_command_takes_single_videos_and_one_model(
    model: Path, some_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = str(sorted(some_videos.glob("*.mp4"))[1])
    assert cli.main(["predict", "--onnx", str(model), video]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["status"] == "ok" and printed["liveness_score"] == OnnxScorer(model).predict(video).p_live
    out = ["--videos", str(some_videos), "--out", str(tmp_path / "out.csv")]
    for words, message in (
        (["--onnx", str(model), "--checkpoint", "runs/x", video], "--checkpoint and --onnx are both given"),
        (["--onnx", "runs/x", video], "--onnx runs/x: no .onnx file"),
        (["--ensemble", "runs/x", "--onnx", str(model), *out], "--ensemble and --onnx are both given"),
    ):
        assert cli.main(["predict", *words]) == 2
        assert message in capsys.readouterr().err


def test_what_cannot_be_is_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="model.… is fixed in an exported model"):
        OnnxScorer(model, ["model.pool=max"])
    with pytest.raises(UserError, match="data.image_size is fixed in an exported model"):
        OnnxScorer(model, ["data.image_size=64"])
    assert OnnxScorer(model, ["eval.num_frames=3"]).threshold is None
    assert "threshold was chosen on scores made with eval.num_frames=2, not 3" in capsys.readouterr().err
    assert OnnxScorer(model, ["eval.tta=flip"]).threshold is None
    assert "an exported model does without eval.aggregate=model, eval.tta=flip" in capsys.readouterr().err
    bare = onnx.load(str(model))
    del bare.metadata_props[:]
    onnx.save(bare, str(tmp_path / "bare.onnx"))
    with pytest.raises(UserError, match="bare.onnx is no model of `livetrain export"):
        OnnxScorer(tmp_path / "bare.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(UserError, match="text.onnx: ONNX Runtime cannot load this model"):
        OnnxScorer(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="absent.onnx: no such file"):
        OnnxScorer(tmp_path / "absent.onnx")
