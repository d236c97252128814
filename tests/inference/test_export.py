"""Exported models say what the model says, for any number of clips and frames."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from livetrain import cli
from livetrain.config import config_from
from livetrain.core.errors import UserError
from livetrain.inference.export import check, write
from livetrain.inference.package import Trained, load, packaged_config
from livetrain.inference.package import write as write_package
from livetrain.model import build_model

SHARED = Path(__file__).resolve().parents[3] / "shared"
NUAA, WEIGHTS = SHARED / "data" / "nuaa", SHARED / "weights" / "tf_efficientnet_lite0.safetensors"


def untrained(backbone: str = "test_vit", size: int = 160, loss: str = "bce", **model: object) -> Trained:
    values = {"data": {"image_size": size}, "model": {"backbone": backbone, **model}, "loss": {"name": loss}}
    num_frames = 4 if model.get("pool") == "thumbnail" else 2
    config = config_from(values, "test", [f"eval.num_frames={num_frames}", "eval.batch_size=8"])
    torch.manual_seed(0)
    model = build_model(config.model, config.loss, size).eval()
    torch.nn.init.normal_(model.head.weight, std=0.5)  # scores that differ
    return Trained(Path("untrained"), config, model, 0.5)


@pytest.mark.parametrize("form", [pytest.param("onnx", marks=pytest.mark.slow), "torch"])
def test_exported_files_score_real_clips_as_the_model_does(
    form: str, some_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_package(untrained(pool="attention"), tmp_path / "model")
    out = tmp_path / ("m.onnx" if form == "onnx" else "m.pt2")
    arguments = ["export", str(source), "--format", form, "--out", str(out), "--check", str(some_videos)]
    assert cli.main([*arguments, "--clips", "6"]) == 0
    printed = capsys.readouterr().out
    assert "6 clips: max |Δp_live| = " in printed and "0 other decisions" in printed
    assert f"| {form}, fp32 | {out.stat().st_size / 1e6:.2f} |" in printed

    trained, run = load(source), check.runtime(out)
    own = check.of_model(trained)
    for clips, frames in ((1, 1), (3, 5)):
        example = write.example(trained, clips, frames).numpy()
        with torch.inference_mode():
            assert run(example).shape == (clips,) and np.abs(run(example) - own(example)).max() < 1e-5


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "pool"),
    [
        pytest.param("onnx", "mean", marks=SLOW),
        pytest.param("torch", "max", marks=SLOW),
        pytest.param("torch", "attention", marks=SLOW),
        ("torch", "transformer"),
        pytest.param("torch", "difference", marks=SLOW),
        pytest.param("onnx", "thumbnail", marks=SLOW),
        pytest.param("torch", "mean", marks=SLOW),
        pytest.param("onnx", "max", marks=SLOW),
        pytest.param("onnx", "attention", marks=SLOW),
        pytest.param("onnx", "transformer", marks=SLOW),
        pytest.param("onnx", "difference", marks=SLOW),
    ],
)
def test_every_pool_is_exported_for_any_number_of_clips_and_frames(pool: str, kind: str, tmp_path: Path) -> None:
    trained = untrained(pool=pool)
    out = tmp_path / ("m.onnx" if kind == "onnx" else "m.pt2")
    {"onnx": write.to_onnx, "torch": write.to_torch}[kind](trained, "fp32", out)
    run, own = check.runtime(out), check.of_model(trained)
    for clips, frames in ((1, 1), (5, 8), (2, 3)):
        example = write.example(trained, clips, frames).numpy()
        with torch.inference_mode():
            assert np.abs(run(example) - own(example)).max() < 1e-5


def test_a_model_of_thumbnails_says_which_format_takes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"thumbnail has no torch\.export program; --format onnx"):
        write.to_torch(untrained(pool="thumbnail"), "fp32", tmp_path / "m.pt2")


@pytest.mark.slow
def test_onnx_says_how_its_input_is_made(tmp_path: Path) -> None:
    import onnx

    trained = untrained(loss="ce")
    write.to_onnx(trained, "fp16", tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    facts = json.loads({item.key: item.value for item in proto.metadata_props}["livetrain"])
    assert facts["preprocessing"]["mean"] == list(trained.model.mean) and facts["threshold"] == 0.5
    half = [item for item in proto.graph.initializer if item.data_type == onnx.TensorProto.FLOAT16]
    assert len(half) > 10
    example = write.example(trained).numpy()
    with torch.inference_mode():
        difference = np.abs(check.runtime(tmp_path / "m.onnx")(example) - check.of_model(trained)(example)).max()
    assert 0 < difference < check.TOLERANCE["fp16"]


@pytest.mark.slow
def test_what_onnx_runtime_cannot_load_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's gemma4_vit exports to operators with types that the runtime does not have."""
    import onnxruntime

    def refuses(*_: object, **__: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Type Error")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuses)
    with pytest.raises(UserError, match=r"untrained: ONNX Runtime cannot load this model .*--format torch"):
        write.to_onnx(untrained(), "fp32", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"damaged\.onnx: ONNX Runtime cannot load this model"):
        check.runtime(tmp_path / "damaged.onnx")


@pytest.mark.slow
def test_a_file_of_another_model_is_told(some_videos: Path, tmp_path: Path) -> None:
    trained = untrained()
    write.to_torch(trained, "fp32", tmp_path / "m.pt2")
    with torch.no_grad():
        trained.model.head.bias += 3
    parity = check.compare(trained, check.runtime(tmp_path / "m.pt2"), some_videos, 6)
    assert parity.difference > 0.1 and len(parity.model) == 6
    # Not to the bit: some CPUs' kernels round by where in memory a tensor begins.
    assert np.abs(parity.model - parity.evaluated).max() < 1e-5, "evaluated in float32 too"


def test_decisions_are_those_of_the_precision_that_set_the_threshold() -> None:
    one = np.array([0.2, 0.51, 0.9])
    parity = check.Parity(one, one - 0.02, one, 0.5)
    assert (parity.difference, parity.num_other_decisions) == (0, 1)
    assert parity.difference_evaluated == pytest.approx(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "loss"), [("test_vit", "bce"), ("test_convnext", "ce"), ("test_resnet", "bce")])
def test_timm_loads_the_hubs_layout_as_a_classifier_of_frames(backbone: str, loss: str, tmp_path: Path) -> None:
    trained = untrained(backbone, loss=loss, normalization="imagenet")
    write.to_hub(trained, "fp32", tmp_path / "hub")
    network = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    clips = write.example(trained, 1, 4)
    with torch.inference_mode():
        logits = network(clips[0]).mean(dim=0)  # mean pooling and a linear head commute
        assert torch.allclose(logits.squeeze(), trained.model(clips)[0], atol=1e-4)
    assert tuple(network.pretrained_cfg["mean"]) == trained.model.mean == (0.485, 0.456, 0.406)
    assert network.num_classes == (2 if loss == "ce" else 1)


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_package(untrained(), tmp_path / "model")
    for arguments, says in [
        ([str(source), "--format", "onnx", "--out", "m.bin"], "must end in .onnx"),
        ([str(source), "--format", "tflite"], "invalid choice: 'tflite'"),
        ([str(source), "--format", "torch", "--check", "no/such"], "--check no/such: no such folder"),
        ([str(source), "--format", "hub", "--out", str(source)], "holds something already"),
        ([str(tmp_path), "--format", "hub"], "is none of these"),
    ]:
        assert cli.main(["export", *arguments]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not (NUAA.exists() and WEIGHTS.exists()), reason="needs the NUAA clips and ImageNet weights")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_parity_on_200_real_clips(precision: str, tmp_path: Path) -> None:
    """An ImageNet backbone; the head's weights are the difference of class means, so that scores spread."""
    trained = untrained("tf_efficientnet_lite0", 128, weights=str(WEIGHTS))
    with torch.no_grad():
        trained.model.head.weight *= 0.2  # logits as those of a trained model, not of a wild one
    with (NUAA / "label.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    videos = tmp_path / "videos"
    videos.mkdir()
    for row in rows[:: len(rows) // 200][:200]:
        (videos / Path(row["fname"]).name).symlink_to(NUAA / "videos" / row["fname"])
    if not any(videos.iterdir()):
        raise UserError("no clips")
    assert packaged_config(trained.config)["model"]["backbone"] == "tf_efficientnet_lite0"
    write.to_onnx(trained, precision, tmp_path / "m.onnx")
    parity = check.compare(trained, check.runtime(tmp_path / "m.onnx"), videos, 200)
    print(f"{precision}: {len(parity.model)} clips, max |Δp_live| {parity.difference:.3g}")
    assert len(parity.model) == 200 and parity.model.std() > 0.01
    assert parity.difference <= check.TOLERANCE[precision]
    if precision == "fp32":
        assert parity.num_other_decisions == 0
