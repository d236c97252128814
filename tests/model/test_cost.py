"""Parameters, FLOPs and memory, against what is computed by hand and against what really happens."""

from __future__ import annotations

import pytest
import torch

from livetrain.config import Config, LossConfig, ModelConfig
from livetrain.model import (
    LivenessModel,
    build_loss,
    build_model,
    build_optimizer,
    count_flops,
    count_parameters,
    estimate_memory_bytes,
    prepare_model,
)
from livetrain.model.cost import saved_activation_bytes


def make(backbone: str = "test_resnet", size: int = 64, **options: object) -> LivenessModel:
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone=backbone, **options), LossConfig(), size)  # type: ignore[arg-type]


def test_parameters() -> None:
    model = make()
    total, trained = count_parameters(model)
    assert total == trained == sum(p.numel() for p in model.parameters())
    assert count_parameters(make(freeze_backbone=True)) == (total, 97)


def test_flops_of_convolutions_by_hand() -> None:
    """Two FLOPs a multiply-add: 2 * output values * kernel area * input channels / groups, and the head."""
    model = make().eval()
    expected = 0

    def hook(module: torch.nn.Conv2d, _: object, out: torch.Tensor) -> None:
        nonlocal expected
        height, width = module.kernel_size
        expected += 2 * out.numel() * height * width * module.in_channels // module.groups

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(hook)
    model(torch.zeros(1, 3, 3, 64, 64))
    assert count_flops(make(), (3, 3, 64, 64)) == expected + 2 * 96


def test_flops_of_attention_by_hand() -> None:
    """A ViT of t tokens, width d, mlp ratio r: a block has 2t(4d² + 2rd²) + 4t²d FLOPs (Q, K, V, out, MLP; QK, AV)."""
    model = make("vit_tiny_patch16_224", 64)
    t, d = 17, 192
    blocks = 12 * (2 * t * (4 * d * d + 2 * 4 * d * d) + 4 * t * t * d)
    patches = 2 * 16 * d * 16 * 16 * 3
    assert count_flops(model, (1, 3, 64, 64)) == blocks + patches + 2 * d


def test_counting_leaves_the_model_alone() -> None:
    model = make("test_efficientnet", drop_path=0.2)
    prepare_model(model, ModelConfig(compile=True), torch.device("cpu"), 1, backend="eager")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    assert count_flops(model, (2, 3, 64, 64)) == count_flops(make("test_efficientnet"), (2, 3, 64, 64)) > 0
    assert saved_activation_bytes(model, (1, 2, 3, 64, 64)) > 0
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext"])
def test_saved_bytes_are_those_of_a_real_pass(backbone: str) -> None:
    model = make(backbone)
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    x = torch.randn(2, 2, 3, 64, 64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x)
    real = sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in own)
    assert saved_activation_bytes(model, x.shape) == pytest.approx(real, rel=0.02)


def test_memory_follows_the_options() -> None:
    config = Config()
    config.data.image_size, config.data.num_frames = 64, 2
    model = make()
    total, _ = count_parameters(model)
    base = estimate_memory_bytes(model, config, 4)
    activations = saved_activation_bytes(model, (1, 2, 3, 64, 64)) + 4 * 2 * 3 * 64 * 64
    assert base == pytest.approx(16 * total + 4 * activations, rel=3e-3), "AdamW: weights, gradients, two states"
    assert estimate_memory_bytes(model, config, 8) - base == pytest.approx(4 * activations, rel=5e-3)
    estimate_at_64 = estimate_memory_bytes(model, config, 64)
    config.train.ema_decay = 0.9
    assert estimate_memory_bytes(model, config, 4) - base == 4 * total
    config.train.ema_decay, config.train.precision = 0.0, "bf16"
    assert estimate_memory_bytes(model, config, 64) < 0.75 * estimate_at_64
    config.train.precision, config.optim.name = "fp32", "sgd"
    assert base - estimate_memory_bytes(model, config, 4) == pytest.approx(4 * total, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", ["resnet18", "vit_small_patch16_224"])
def test_memory_on_a_gpu(backbone: str, precision: str) -> None:
    """Within a third of the peak that torch's allocator reports for real updates."""
    config = Config()
    config.data.num_frames, config.train.precision = 4, precision
    model = make(backbone, 224).cuda()
    estimate = estimate_memory_bytes(model, config, 8)
    optimizer, loss = build_optimizer(model, config.optim), build_loss(config.loss)
    x, y = torch.randn(8, 4, 3, 224, 224, device="cuda"), torch.ones(8, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(x)
        loss(logits, y).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.cuda.max_memory_allocated() == pytest.approx(estimate, rel=0.35)
