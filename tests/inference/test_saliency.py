"""Grad-CAM: warm where the evidence is, for any family of backbone, into the report."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from livetrain import cli
from livetrain.config import LossConfig, ModelConfig
from livetrain.core.errors import UserError
from livetrain.inference import saliency
from livetrain.model import LivenessModel, build_model
from livetrain.report import page


class RedEye(nn.Module):
    """A backbone of one feature: how red the picture is, from a map of 8 x 8."""

    head_hidden_size = 1
    feature_info = ({"module": "red"},)

    def __init__(self) -> None:
        super().__init__()
        self.red = nn.Conv2d(3, 1, 4, stride=4, bias=False)
        with torch.no_grad():
            self.red.weight.zero_()[0, 0] = 1 / 16

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.red(pictures).mean(dim=(2, 3))


def red_eye() -> LivenessModel:
    cfg = ModelConfig(channels_last=False)
    model = LivenessModel(RedEye(), cfg, num_outputs=1, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    nn.init.ones_(model.head.weight)
    return model


def test_it_is_warm_where_the_evidence_is() -> None:
    clip = torch.zeros(2, 3, 32, 32)
    clip[1, 0, 8:16, 16:24] = 1.0  # the second frame has a red patch; green elsewhere must not matter
    clip[:, 1] = 1.0
    model = red_eye()
    layer = saliency.insert_map(model, "red", clip[None])
    maps = saliency.grad_cam(model, layer, clip, sign=1.0)
    assert maps.shape == (2, 32, 32) and maps.max() == 1 and maps[0].max() == 0
    assert np.unravel_index(int(maps[1].argmax()), (32, 32)) in [(r, c) for r in range(8, 16) for c in range(16, 24)]
    assert maps[1, :4].max() == 0 and maps[1, 20:].max() == 0
    assert saliency.grad_cam(model, layer, clip, sign=-1.0).max() == 0, "nothing speaks against it"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "pool", "size"),
    [
        ("test_resnet", "mean", 64),
        ("test_efficientnet", "max", 64),
        ("test_convnext", "attention", 64),
        ("test_vit", "mean", 96),  # class token
        ("test_vit2", "mean", 64),  # mean of the patches, register tokens
        ("swin_tiny_patch4_window7_224", "mean", 64),  # maps in NHWC
    ],
)
def test_any_family(backbone: str, pool: str, size: int) -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone=backbone, pool=pool), LossConfig(name="ce"), size).eval()
    clip = torch.randn(2, 3, size, size)
    with torch.no_grad():
        before = model(clip[None])
        layer = saliency.insert_map(model, backbone, clip[None])
        assert torch.equal(model(clip[None]), before), "looking changes nothing"
    both = [saliency.grad_cam(model, layer, clip, sign=sign) for sign in (1.0, -1.0)]
    assert all(maps.shape == (2, size, size) and maps.isfinite().all() and maps.min() >= 0 for maps in both)
    assert max(float(maps.max()) for maps in both) == pytest.approx(1.0)
    assert not torch.equal(*both)


def test_a_drawing_has_the_frames_and_their_maps() -> None:
    maps = np.zeros((6, 32, 32), np.float32)
    maps[:, :16] = 1
    data = saliency.drawing(saliency.Clip(np.full((6, 32, 32, 3), 0.5, np.float32), maps))
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (64, 4 * 32, 3)
    assert abs(pixels[:30] - 128).max() < 6
    assert pixels[36:44].mean() > pixels[52:60].mean() + 30 and abs(np.ptp(pixels[52:60], axis=2)).max() < 12


@pytest.mark.slow
def test_the_verb_puts_the_worst_clips_into_the_report(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    assert cli.main(["saliency", str(run), "--clips", "2"]) == 0, capsys.readouterr().err
    message = json.loads((run / page.SALIENCY / "saliency.json").read_text())
    assert len(message["clips"]) == 2
    scored = {line.split(",")[1]: line.split(",")[2] for line in (run / "scores" / "test.csv").read_text().splitlines()}
    for clip in message["clips"]:
        assert clip["p_live"] == pytest.approx(float(scored[clip["key"]]), abs=1e-4)
        assert (run / page.SALIENCY / clip["file"]).stat().st_size > 1000
    assert (run / "report.html").read_text().count("Saliency of the frames of") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "livetrain saliency: the following arguments are required: RUN"),
        (["clips=3"], "livetrain saliency: the following arguments are required: RUN"),
        (["no/such/run", "--clip=3"], "unknown option --clip; did you mean --clips?"),
        (["no/such/run", "clips=none"], "--clips none: a number from 1 to 64"),
        (["no/such/run"], "no/such/run has no verdict.json; `livetrain evaluate"),
    ],
)
def test_mistakes(arguments: list[str], says: str) -> None:
    with pytest.raises(UserError) as caught:
        saliency.main(arguments)
    assert says in str(caught.value)


def test_a_backbone_without_a_feature_map_is_refused() -> None:
    model = red_eye()
    model.backbone.feature_info = ()  # type: ignore[assignment]
    with pytest.raises(UserError, match="not possible for model.backbone=odd"):
        saliency.insert_map(model, "odd", torch.zeros(1, 1, 3, 32, 32))
