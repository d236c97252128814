"""The planner's compute model against rates that others measured.

timm publishes training rates of its networks on an RTX 3090, mixed precision, channels last, PyTorch 1.12
(results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv of its repository): pictures a second of forward, backward and
optimizer. The card: 71 TFLOP/s of half precision summed in single precision, 936 GB/s (NVIDIA's white paper of GA102).
"""

from __future__ import annotations

import dataclasses

import pytest

from livetrain.config import LossConfig, ModelConfig
from livetrain.model import build_model, count_flops
from livetrain.model.cost import saved_activation_bytes
from livetrain.planner import hardware
from livetrain.planner.formulas import Demand, compute_seconds

CARD = dataclasses.replace(hardware.KNOWN["h100"], name="rtx3090", peak_flops=71e12, memory_bandwidth=936e9)


@pytest.mark.parametrize(
    ("backbone", "side", "rate"),
    [
        ("resnet18", 224, 3482),
        pytest.param("vit_small_patch16_224", 224, 1058, marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_b0", 224, 1779, marks=pytest.mark.slow),
        pytest.param("resnet50", 224, 1218, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 224, 819, marks=pytest.mark.slow),
        pytest.param("mobilenetv3_large_100", 224, 2732, marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_b2", 260, 849, marks=pytest.mark.slow),
    ],
)
def test_rates_that_timm_published_within_a_quarter(backbone: str, side: int, rate: float) -> None:
    model = build_model(ModelConfig(backbone=backbone), LossConfig(), side)
    run = Demand(
        flops=3 * count_flops(model, (1, 3, side, side)),
        saved_bytes=saved_activation_bytes(model, (1, 1, 3, side, side), "bf16"),
        trained_parameters=0, stored_bytes=0, decoded_pixels=0, core_seconds=0,
    )  # fmt: skip
    assert 1 / compute_seconds(run, CARD) == pytest.approx(rate, rel=0.25)
