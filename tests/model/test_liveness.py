"""The model: each option of the configuration is seen at work on a real timm backbone."""

from __future__ import annotations

import copy
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.multiprocessing
from timm.layers import DropPath, SyncBatchNormAct
from torch import nn

from livetrain.config import LossConfig, ModelConfig, load_config
from livetrain.core.errors import UserError
from livetrain.model import LivenessModel, build_model, live_logit, p_live, prepare_model
from livetrain.model.cost import saved_activation_bytes
from livetrain.model.pooling import AttentionPool, ThumbnailPool, build_pool

CPU = torch.device("cpu")


def make(backbone: str = "test_resnet", size: int | None = 64, loss: str = "bce", **options: object) -> LivenessModel:
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone=backbone, **options), LossConfig(name=loss), size)  # type: ignore[arg-type]


def clips(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("test_resnet", 64),
        ("test_vit", 96),
        ("test_vit2", 64),
        ("test_convnext", 64),
        ("test_efficientnet", 64),
        ("mobilenetv2_035", 64),
        *(
            pytest.param(*given, marks=pytest.mark.slow)
            for given in (
                ("swin_tiny_patch4_window7_224", 96),
                ("test_maxvit", 128),
                ("vit_tiny_patch16_224", None),
                ("mobilenetv3_small_050", 64),
            )
        ),
    ],
)
def test_any_family_at_any_size(backbone: str, size: int | None) -> None:
    model = make(backbone, size).eval()
    side = size or 224
    logits = model(clips(1, 2, 3, side, side))
    assert logits.shape == (1,) and logits.dtype == torch.float32 and logits.isfinite().all()


def test_every_parameter_gets_a_gradient() -> None:
    for name in ("test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050"):
        model = make(name, pool="attention")
        nn.init.normal_(model.pool.score.weight)  # type: ignore[union-attr, arg-type]
        model(clips(2, 2, 3, 64, 64)).sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == [], name  # DDP would wait for them


def test_logits_and_p_live() -> None:
    one, two = make(), make(loss="ce")
    x = clips(3, 2, 3, 64, 64)
    assert one(x).shape == (3,) and two(x).shape == (3, 2)
    assert torch.equal(p_live(torch.tensor([0.0, 3.0])), torch.sigmoid(torch.tensor([0.0, 3.0])))
    logits = clips(5, 2).half()
    assert p_live(logits).dtype == torch.float32
    assert torch.allclose(p_live(logits), logits.float().softmax(1)[:, 1])


def test_a_clip_is_its_own_frames() -> None:
    """Clips of a batch do not mix: the features of clip b, frame f are the backbone's of that picture."""
    model = make().eval()
    x = clips(3, 4, 3, 64, 64)
    features = model.features(x)
    assert features.shape == (3, 4, 96)
    assert torch.allclose(features[1, 2], model.backbone(x[1, 2:3])[0], atol=1e-5)
    assert torch.allclose(model(x), model.head(features.mean(1)).squeeze(-1), atol=1e-5)


def test_half_clips_without_autocast() -> None:
    model = make().eval()
    x = clips(1, 2, 3, 64, 64)
    assert torch.allclose(model(x.half()), model(x.half().float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x.half()).dtype == torch.bfloat16


def test_pooling() -> None:
    features = clips(2, 5, 8)
    assert torch.equal(build_pool("mean", 8)(features), features.mean(1))
    assert torch.equal(build_pool("max", 8)(features), features.max(1).values)
    with pytest.raises(UserError, match=r"model\.pool"):
        build_pool("median", 8)
    assert isinstance(make(pool="attention").pool, AttentionPool)


def test_attention_pool_weighs_frames_whatever_their_order() -> None:
    pool = AttentionPool(8)
    features, order = clips(2, 5, 8), torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(pool(features), features.mean(1), atol=1e-6), "it starts as the mean"
    nn.init.normal_(pool.score.weight, std=3.0)
    weights = pool.shares(features)
    assert torch.allclose(weights.sum(1), torch.ones(2)) and weights.std() > 0.05
    assert torch.allclose(pool.shares(features[:, order]), weights[:, order], atol=1e-6)
    assert torch.allclose(pool(features[:, order]), pool(features), atol=1e-6)
    assert torch.allclose(pool(features)[0], sum(weights[0, f] * features[0, f] for f in range(5)), atol=1e-6)


def test_parts_of_the_backbone_are_frozen_by_their_names() -> None:
    model = make("test_vit", 96, freeze=["patch_embed", "pos_embed", "blocks.0."], drop_path=0.5)
    still = {name for name, parameter in model.backbone.named_parameters() if not parameter.requires_grad}
    assert still and all(name.startswith(("patch_embed", "pos_embed", "blocks.0.")) for name in still)
    assert any(name.startswith("blocks.1.") for name in {n for n, _ in model.backbone.named_parameters()} - still)
    model.train()
    assert not model.backbone.blocks[0].training and model.backbone.blocks[1].training and model.training
    torch.nn.functional.softplus(model(clips(2, 2, 3, 96, 96))).sum().backward()
    assert {n for n, parameter in model.backbone.named_parameters() if parameter.grad is None} == still
    norms = make(freeze=["conv1", "bn1", "layer1"]).train().backbone
    assert not norms.bn1.training and not norms.layer1.training and norms.layer2.training
    with pytest.raises(UserError, match="begins with 'block.0'; there are: .*blocks"):
        make("test_vit", 96, freeze=["block.0"])


def test_transformer_pool_starts_as_the_mean_and_knows_the_order() -> None:
    torch.manual_seed(0)
    pool = build_pool("transformer", 10)
    features = torch.randn(4, 5, 10)
    assert torch.equal(pool(features), features.mean(dim=1))
    nn.init.eye_(pool.project.weight)
    found = pool(features)
    assert not torch.allclose(found, pool(features.flip(1)), atol=1e-3), "another order is another clip"
    assert torch.allclose(found, torch.cat([pool(one[None]) for one in features]), atol=1e-5)
    assert pool(features[:, :1]).shape == (4, 10) and torch.allclose(pool.shares(features).sum(dim=1), torch.ones(4))
    assert build_pool("transformer", 7)(torch.randn(2, 3, 7)).shape == (2, 7)


def test_difference_pool_starts_as_the_mean_and_sees_change_alone() -> None:
    torch.manual_seed(0)
    pool = build_pool("difference", 10)
    features = torch.randn(4, 5, 10)
    assert torch.equal(pool(features), features.mean(dim=1))
    nn.init.eye_(pool.project.weight)
    still = features[:, :1].repeat(1, 5, 1)
    assert torch.allclose(pool(still), still.mean(dim=1), atol=1e-6), "nothing changes"
    assert torch.equal(pool(features[:, :1]), features[:, 0]), "one frame"
    shifted = features + torch.randn(4, 1, 10)
    added = pool(features) - features.mean(dim=1)
    assert torch.allclose(pool(shifted) - shifted.mean(dim=1), added, atol=1e-5), "a constant is no change"
    assert added.abs().mean() > 0.3


def test_thumbnails_show_four_frames_two_by_two() -> None:
    frames = torch.arange(8.0).reshape(1, 8, 1, 1, 1).expand(1, 8, 3, 4, 6)
    pictures = ThumbnailPool.arranged(frames)
    assert pictures.shape == (1, 2, 3, 4, 6)
    expected = torch.tensor([[4.0] * 3 + [5.0] * 3] * 2 + [[6.0] * 3 + [7.0] * 3] * 2)
    assert torch.equal(pictures[0, 1, 2], expected)
    fine = torch.randn(2, 4, 3, 8, 8)
    small = nn.functional.avg_pool2d(fine[1, 3], 2)
    assert torch.allclose(ThumbnailPool.arranged(fine)[1, 0, :, 4:, 4:], small)


def test_a_model_of_thumbnails_costs_a_fourth_and_sees_what_frames_alone_do_not() -> None:
    model = make(pool="thumbnail").eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[0]))
    shown = clips(2, 8, 3, 96, 96)
    logits, of_frames, shares = model(shown, per_frame=True)
    assert seen == [4] and logits.shape == (2,) and of_frames.shape == shares.shape == (2, 8)
    assert torch.equal(of_frames[:, 0], of_frames[:, 3]) and not torch.equal(of_frames[:, 0], of_frames[:, 4])
    assert torch.allclose(model(shown), logits) and torch.allclose(shares.sum(dim=1), torch.ones(2))
    swapped = shown[:, [0, 4, 2, 3, 1, 5, 6, 7]]
    assert not torch.allclose(model(swapped), logits, atol=1e-4), "frames see each other"


@pytest.mark.parametrize("item", ["data.num_frames=6", "eval.num_frames=0", "data.image_size=95"])
def test_thumbnails_take_frames_by_fours(item: str) -> None:
    with pytest.raises(UserError, match=r"model\.pool=thumbnail needs"):
        load_config([], ["data.shards=x", "model.pool=thumbnail", item])


def test_transformer_pool_learns_what_the_mean_cannot() -> None:
    """Whether a feature rises or falls over the frames."""
    torch.manual_seed(0)
    rises = (torch.arange(64) % 2).float()
    clips = torch.randn(64, 6, 8) * 0.1
    clips[..., 0] += torch.linspace(-1, 1, 6) * (2 * rises[:, None] - 1)
    losses = {}
    for name in ("mean", "transformer"):
        pool, head = build_pool(name, 8), nn.Linear(8, 1)
        optimizer = torch.optim.AdamW([*pool.parameters(), *head.parameters()], lr=5e-3)
        for _ in range(80):
            loss = nn.functional.binary_cross_entropy_with_logits(head(pool(clips))[:, 0], rises)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[name] = loss.item()
    assert losses["transformer"] < 0.1 and losses["mean"] > 0.3


def test_attention_pool_learns() -> None:
    """It finds the one frame in which the class shows; the mean cannot."""
    torch.manual_seed(0)
    marked = torch.randn(64, 6, 4)
    marked[:, :, 0] = -2
    marked[torch.arange(64), torch.arange(64) % 6, 0] = 2
    labels = (marked[torch.arange(64), torch.arange(64) % 6, 1] > 0).float()

    def learn(pool: nn.Module) -> float:
        head = nn.Linear(4, 1)
        optimizer = torch.optim.Adam([*pool.parameters(), *head.parameters()], lr=0.02)
        for _ in range(150):
            loss = nn.functional.binary_cross_entropy_with_logits(head(pool(marked)).squeeze(-1), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    attention = AttentionPool(4)
    assert learn(attention) < 0.1 and learn(build_pool("mean", 4)) > 0.3
    share = attention.shares(marked)[torch.arange(64), torch.arange(64) % 6].mean()
    assert share > 0.3, "a sixth where it looks at all frames alike"


def test_dropout() -> None:
    model = make(dropout=0.5)
    for module in model.backbone.modules():
        assert not isinstance(module, nn.Dropout) or module.p == 0
    x = clips(1, 2, 3, 64, 64)
    model.backbone.eval()
    assert len({model(x).item() for _ in range(4)}) > 1
    model.eval()
    assert model(x) == model(x)


def test_drop_path() -> None:
    model = make("test_vit", drop_path=0.5)
    assert max(m.drop_prob for m in model.backbone.modules() if isinstance(m, DropPath)) == pytest.approx(0.5)
    x = clips(2, 2, 3, 64, 64)

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model(x)

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    model.eval()
    assert torch.equal(run(1), run(2))
    with pytest.raises(UserError, match=r"vgg11 has no stochastic depth; set model\.drop_path=0"):
        make("vgg11", 32, drop_path=0.1)


def test_frozen_backbone() -> None:
    model = make(freeze_backbone=True, drop_path=0.3, pool="attention")
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    x = clips(4, 2, 3, 64, 64)
    model.train()
    model(x).sum().backward()
    optimizer.step()
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"head.weight", "head.bias", "pool.score.weight"} <= changed
    assert not [name for name in changed if name.startswith("backbone.")], "neither weights nor batch statistics"
    assert model.head.training and not any(m.training for m in model.backbone.modules())
    assert not model.features(x).requires_grad
    assert saved_activation_bytes(model, x.shape) < 0.1 * saved_activation_bytes(make(), x.shape)


def test_unfrozen_backbone_learns_and_moves_its_statistics() -> None:
    model = make()
    before = copy.deepcopy(model.state_dict())
    model(clips(4, 2, 3, 64, 64))
    changed = {name for name in before if not torch.equal(before[name], model.state_dict()[name])}
    assert changed and all("running_" in name or "num_batches" in name for name in changed)


def test_channels_last() -> None:
    def formats(model: LivenessModel) -> list[tuple[bool, bool]]:
        """For each 3x3 convolution: are its weights, its output channels last?"""
        seen = []

        def hook(module: nn.Conv2d, _: object, out: torch.Tensor) -> None:
            last = torch.channels_last
            seen.append((module.weight.is_contiguous(memory_format=last), out.is_contiguous(memory_format=last)))

        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.register_forward_hook(hook)
        model.eval()(clips(2, 2, 3, 64, 64))
        return seen

    with_it, without = make(channels_last=True), make(channels_last=False)
    assert formats(with_it) and all(weights and out for weights, out in formats(with_it))
    assert not any(weights or out for weights, out in formats(without))
    x = clips(2, 2, 3, 64, 64)
    assert torch.allclose(with_it(x), without(x), atol=1e-5)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_grad_checkpointing(backbone: str) -> None:
    plain, saving = make(backbone), make(backbone, grad_checkpointing=True)
    x = clips(2, 2, 3, 64, 64)
    assert saved_activation_bytes(saving, x.shape) < 0.8 * saved_activation_bytes(plain, x.shape)
    gradients = []
    for model in (plain, saving):
        model(x).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_grad_checkpointing_where_there_is_none() -> None:
    with pytest.raises(UserError, match=r"vgg11 cannot recompute .* model\.grad_checkpointing=false"):
        make("vgg11", 32, grad_checkpointing=True)


@pytest.mark.slow
def test_compile() -> None:
    from torch._dynamo.utils import counters

    model, plain = make(compile=True).eval(), make().eval()
    names = list(model.state_dict())
    cfg = ModelConfig(compile=True)
    x = clips(2, 2, 3, 64, 64)
    counters.clear()
    prepare_model(model, replace(cfg, compile=False), CPU, 1)
    model(x)
    assert not counters["stats"]["unique_graphs"]
    prepare_model(model, cfg, CPU, 1, backend="aot_eager")
    compiled = model(x)
    assert counters["stats"]["unique_graphs"] >= 1
    assert torch.allclose(compiled, plain(x), atol=1e-5)
    assert list(model.state_dict()) == names
    copied = copy.deepcopy(model)  # as the moving average does
    assert torch.allclose(copied(x), plain(x), atol=1e-5)


@pytest.mark.slow
def test_compile_by_inductor_trains() -> None:
    model, plain = make(), make()
    prepare_model(model, ModelConfig(compile=True), CPU, 1)
    x = clips(2, 2, 3, 64, 64)
    for m in (model, plain):
        m(x).sum().backward()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-3)


def test_compile_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"model\.compile=true needs a C/C\+\+ compiler"):
        prepare_model(make(), ModelConfig(compile=True), CPU, 1)


def test_sync_bn_converts_and_keeps_the_function() -> None:
    model = make("test_efficientnet").eval()
    x = clips(2, 2, 3, 64, 64)
    before, names = model(x), list(model.state_dict())
    prepare_model(model, ModelConfig(sync_bn=True), torch.device("cuda"), 2)
    kinds = {type(m) for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {SyncBatchNormAct}
    assert torch.equal(model(x), before) and list(model.state_dict()) == names


def test_sync_bn_without_effect_or_on_the_cpu() -> None:
    model = make()
    prepare_model(model, ModelConfig(sync_bn=True), CPU, 1)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()), "one process: nothing to synchronise"
    with pytest.raises(UserError, match=r"model\.sync_bn=true needs CUDA"):
        prepare_model(model, ModelConfig(sync_bn=True), CPU, 2)
    with pytest.raises(UserError, match=r"test_vit has no batch norm; set model\.sync_bn=false"):
        prepare_model(make("test_vit"), ModelConfig(backbone="test_vit", sync_bn=True), CPU, 1)


def _half_of_the_batch(rank: int, port: int, folder: str) -> None:
    """One of two processes on one GPU, over gloo: train-mode logits of its half."""
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    device = torch.device("cuda", 0)
    model = make().to(device)
    prepare_model(model, ModelConfig(sync_bn=True), device, 2)
    logits = model(clips(4, 2, 3, 64, 64)[rank * 2 : rank * 2 + 2].to(device))
    torch.save(logits.detach().cpu(), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_sync_bn_sees_the_whole_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_half_of_the_batch, (port, str(tmp_path)), nprocs=2)
    halves = torch.cat([torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)])
    whole = make().cuda()(clips(4, 2, 3, 64, 64).cuda()).detach().cpu()
    torch.testing.assert_close(halves, whole, rtol=1e-3, atol=1e-3)


def test_normalization() -> None:
    assert make("test_vit").mean == make("test_vit").std == (0.5, 0.5, 0.5)
    assert make("test_efficientnet").mean == (0.485, 0.456, 0.406)
    assert make("test_vit", normalization="imagenet").std == (0.229, 0.224, 0.225)
    assert make("test_efficientnet", normalization="half").mean == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match=r"model\.normalization"):
        make(normalization="none")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("efficientnet_b00", "not a timm model; did you mean efficientnet_b0,"),
        ("qqqqqqqq", "not a timm model; timm.list_models"),
        ("convnext_tiny.in99k", "no weights named 'in99k' for convnext_tiny; known: .*convnext_tiny.fb_in1k"),
    ],
)
def test_unknown_backbone(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make(name)


def test_a_size_that_the_backbone_cannot_take() -> None:
    with pytest.raises(UserError, match=r"test_maxvit cannot be built for pictures of 100 pixels .*data\.image_size"):
        make("test_maxvit", 100)


def test_building_draws_only_initial_weights() -> None:
    """The check on fake tensors neither draws random numbers nor moves batch statistics."""
    torch.manual_seed(0)
    timm.create_model("test_resnet", num_classes=0, drop_path_rate=0.5)
    nn.Linear(96, 1)
    expected = torch.get_rng_state()
    model = make(drop_path=0.5)
    assert torch.equal(torch.get_rng_state(), expected)
    assert int(model.backbone.bn1.num_batches_tracked) == 0  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("pool", ["mean", "attention", "max"])
@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_scores_of_frames_add_up_to_the_clips(pool: str, loss: str) -> None:
    """With mean and attention the clip's log-odds are those of its frames, weighted; a frame alone is a clip of one."""
    model = make(pool=pool, loss=loss).eval()
    if pool == "attention":
        nn.init.normal_(model.pool.score.weight, std=3.0)  # type: ignore[union-attr, arg-type]
    five = clips(3, 5, 3, 64, 64)
    with torch.inference_mode():
        logits, of_frames, shares = model(five, per_frame=True)
        assert torch.equal(logits, model(five))
        alone = torch.stack([model(five[:, [frame]]) for frame in range(5)], dim=1)
    assert torch.allclose(of_frames, alone, atol=1e-5)
    assert shares.shape == (3, 5) and torch.allclose(shares.sum(dim=1), torch.ones(3))
    if pool != "max":
        mean = (shares * live_logit(of_frames, 2)).sum(dim=1)
        assert torch.allclose(mean, live_logit(logits, 1), atol=1e-5)


@pytest.mark.parametrize("name", ["test_efficientnet", "resnet18"])
def test_recomputed_activations_count_a_batch_once(name: str) -> None:
    """Batch norm's running statistics are those of training without recomputation."""
    clips, found = torch.randn(2, 2, 3, 64, 64), []
    for recompute in (False, True):
        torch.manual_seed(0)
        cfg = ModelConfig(backbone=name, grad_checkpointing=recompute, dropout=0.0)
        model = build_model(cfg, LossConfig(), 64)
        prepare_model(model, cfg, torch.device("cpu"), 1)
        for _ in range(2):
            model(clips).sum().backward()
        found.append({key: value.clone() for key, value in model.named_buffers()})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 10
    for key, value in found[0].items():
        assert torch.allclose(value.double(), found[1][key].double(), atol=1e-6), key


@pytest.mark.slow
def test_layers_in_two_places(tmp_path: Path) -> None:
    """CoaT has some: weights are laid out, checked on fake tensors and saved all the same."""
    from livetrain.config import config_from
    from livetrain.inference.package import Trained, load, write

    config = config_from({"data": {"image_size": 32}, "model": {"backbone": "coat_tiny"}}, "test", [])
    model = build_model(config.model, config.loss, 32)
    assert all(type(tensor) in (torch.Tensor, nn.Parameter) for tensor in model.state_dict().values())
    packaged = load(write(Trained(tmp_path, config, model, 0.5), tmp_path / "package"))
    clips = torch.randn(1, 1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model.eval()(clips), packaged.model.eval()(clips))


def test_a_convolution_that_overruns_its_memory_keeps_its_layout() -> None:
    """FastViT's stem: a strided 1x1 convolution over 3 channels.

    With channels last its backward pass on the CPU ended the process (torch 2.14).
    """
    model = build_model(ModelConfig(backbone="fastvit_t8"), LossConfig(), 64)
    spared = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.in_channels == 3]
    assert spared
    seen = []
    for module in spared:
        module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].is_contiguous()))
    model(torch.randn(2, 1, 3, 64, 64)).sum().backward()
    assert seen == [True] * len(spared)
    other = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and m.in_channels == 3]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in other)
