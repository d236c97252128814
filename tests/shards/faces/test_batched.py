"""BlazeFace by torch, for batches on a GPU, is BlazeFace by LiteRT."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from livetrain.core.engines import ONE_PROCESS, LocalEngine
from livetrain.core.errors import UserError
from shards import cli, cli_faces
from shards.faces import batched, blazeface_torch
from shards.faces.blazeface import BlazeFace, detections_of, looked_at, weights_path
from shards.faces.blazeface_torch import BlazeFaceTorch
from shards.faces.find import ClipTask, FaceOptions, find_in_clip
from shards.format import index_table, manifest
from shards.format.stored_clip import INDEX_COLUMNS, StoredClip
from tests.shards.faces.portrait import portrait

pytest.importorskip("ai_edge_litert")

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tasks_of(folder: Path, upsample: int = 0) -> list[ClipTask]:
    rows = index_table.read(folder / index_table.FILE_NAME).select(list(INDEX_COLUMNS)).to_pylist()
    content = manifest.read(folder)
    return [ClipTask(StoredClip.of(folder, content, row), FaceOptions(6, upsample)) for row in rows]


def test_boxes_and_scores_are_those_of_litert(device: str) -> None:
    network, theirs = BlazeFaceTorch(weights_path(), torch.device(device)), BlazeFace()
    picture, noise = portrait(), np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    pictures = [picture, picture[:, ::-1], np.rot90(picture), picture[100:400, 50:300] // 3, noise]
    looks = [looked_at(shown, 1) for shown in pictures]
    boxes, logits = network(np.concatenate([look.pixels for look in looks]))
    assert boxes.shape == (50, 2304, 16) and logits.shape == (50, 2304)
    for number, (look, shown) in enumerate(zip(looks, pictures, strict=True)):
        part = slice(10 * number, 10 * number + 10)
        ours, of_litert = detections_of(look.places, boxes[part], logits[part]), theirs.detect(shown, 1)
        assert ours.boxes.shape == of_litert.boxes.shape
        np.testing.assert_allclose(ours.boxes, of_litert.boxes, atol=0.01)
        np.testing.assert_allclose(ours.scores, of_litert.scores, atol=1e-4)
    assert len(theirs.detect(picture, 1).boxes) == 1


def test_tracks_are_those_of_the_cpu(face_shards: Path, device: str) -> None:
    tasks = tasks_of(face_shards)
    expected = [find_in_clip(task) for task in tasks]
    assert {item.reason for item in expected} == {"", "no face found"}
    for num_pictures, num_workers in ((7, 1), (1000, 2)):
        found = dict(batched.find_in_clips(tasks, LocalEngine(num_workers), device, num_pictures))
        assert sorted(found) == list(range(len(tasks)))
        for index, item in enumerate(expected):
            assert found[index].reason == item.reason
            if item.track:
                np.testing.assert_array_equal(found[index].track.frames, item.track.frames)
                np.testing.assert_allclose(found[index].track.boxes, item.track.boxes, atol=2e-5)
                np.testing.assert_allclose(found[index].track.scores, item.track.scores, atol=1e-4)


def test_a_clip_that_does_not_decode_stops_no_other(face_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures(clip: StoredClip, frames: list[int]) -> list[np.ndarray]:
        if clip == tasks[1].clip:
            raise OSError("gone")
        return read(clip, frames)

    tasks, read = tasks_of(face_shards)[:3], StoredClip.pictures
    monkeypatch.setattr(StoredClip, "pictures", pictures)
    found = dict(batched.find_in_clips(tasks, ONE_PROCESS, "cpu"))
    assert found[1].track is None and found[1].reason == "cannot be decoded: gone"
    assert found[0].track is not None


def test_an_unknown_operation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(blazeface_torch.OPERATIONS, "RESIZE_BILINEAR")
    with pytest.raises(UserError, match="RESIZE_BILINEAR is unknown here; look for faces with --device cpu"):
        BlazeFaceTorch(weights_path(), torch.device("cpu"))


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--detector", "dlib", "--device", "cuda"], "the detector dlib runs on the CPU only"),
        (["--device", "cuda"], "PyTorch sees no GPU here"),
    ],
)
def test_a_device_that_is_not_there_is_an_error(
    face_shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["faces", str(face_shards), *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [cli_faces.face_device("auto", name) for name in ("blazeface", "dlib")] == ["cuda", "cpu"]
    assert cli_faces.face_device("cpu", "blazeface") == "cpu"


def test_workers_do_not_import_torch() -> None:
    code = "import sys, shards.faces.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
