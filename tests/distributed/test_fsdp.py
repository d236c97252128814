"""Weights, gradients and optimizer states in shards: DDP's updates, and checkpoints that do not know the difference.

CPU processes over gloo. What differs from DDP is the order of sums alone; why losses are held to 1e-3 says
tests/test_two_processes.py. In half precision a sum in another order may round to the next number of 8 or 11 bits.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from livetrain.checkpoint import folders
from livetrain.core.errors import UserError
from livetrain.distributed import fsdp
from tests import fsdp_ranks, ranks
from tests.runs import launch, losses, records, same_weights, small_config, train_here, weights

OPTIONS = (
    "train.max_steps=8", "optim.warmup_steps=2", "optim.clip_grad_norm=0.5", "train.save_every_steps=4",
    "train.ema_decay=0.9", "model.drop_path=0.2", "model.dropout=0.2",
)  # fmt: skip
EXACT = {"abs": 0.0, "rel": 0.0}


def script(name: str, *arguments: str, log: Path, processes: int = 2, replicas: int = 1) -> None:
    """livetrain.train or livetrain.evaluate with weights in shards."""
    words = [f"livetrain.{name}", str(replicas), *arguments]
    with ranks.start_script("tests.fsdp_ranks", words, log=log, processes=processes) as started:
        assert started.wait() == [0] * processes, log.read_text()


def train(shards: Path, run_dir: Path, *options: str, processes: int = 2, replicas: int = 1) -> Path:
    arguments = [f"data.shards={shards}", f"run_dir={run_dir}", *ranks.SMALL, *OPTIONS, *options]
    script("train", *arguments, log=run_dir.parent / f"{run_dir.name}-log", processes=processes, replicas=replicas)
    return run_dir


def compared(mode: str, *keys: str, folder: Path, processes: int = 2) -> dict[str, Any]:
    log = folder / "log"
    words = [mode, str(folder), *keys]
    with ranks.start_script("tests.fsdp_ranks", words, log=log, processes=processes) as started:
        assert started.wait() == [0] * processes, log.read_text()
    found: dict[str, Any] = json.loads((folder / f"{mode}.json").read_text())
    return found


@pytest.fixture(scope="module")
def one(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, without shards."""
    return ranks.train(demo_shards, tmp_path_factory.mktemp("one") / "run", *OPTIONS, processes=1)


@pytest.fixture(scope="module")
def two(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes with shards."""
    return train(demo_shards, tmp_path_factory.mktemp("two") / "run")


def scores(run: Path, split: str = "test") -> dict[str, float]:
    with (run / "scores" / f"{split}.csv").open(newline="") as file:
        return {row["video"]: float(row["p_live"]) for row in csv.DictReader(file)}


def test_shards_train_as_one_process_does(one: Path, two: Path) -> None:
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)
    norms = [[record["grad_norm"] for record in records(run)] for run in (one, two)]
    assert norms[1][:3] == pytest.approx(norms[0][:3], rel=1e-3) and min(norms[0]) > 0.5, "clipped, all of them"
    dev = [records(run, "dev")[-1]["loss"] for run in (one, two)]
    assert dev[1] == pytest.approx(dev[0], abs=1e-3), "of the moving average"
    assert scores(two) == pytest.approx(scores(one), abs=5e-3)


def test_a_checkpoint_gives_whole_tensors(one: Path, two: Path) -> None:
    for field in ("model", "ema"):
        whole, gathered = weights(one, field), weights(two, field)
        assert {n: w.shape for n, w in whole.items()} == {n: w.shape for n, w in gathered.items()}
        assert all(torch.allclose(whole[name], gathered[name], atol=2e-2) for name in whole)
    assert not same_weights(weights(two), weights(two, "ema"))
    saved = [folders.load(run / "checkpoints" / "step-00000008") for run in (one, two)]
    inner = [item.part("state", "optimizer")["state"] for item in saved]
    assert {n: v["exp_avg"].shape for n, v in inner[0].items()} == {n: v["exp_avg"].shape for n, v in inner[1].items()}
    files = sorted(path.name[:11] for path in (two / "checkpoints" / "step-00000008" / "tensors").iterdir())
    assert files == ["shard-00001", "shard-00002"], "each process wrote its own"


@pytest.mark.parametrize(
    ("processes", "replicas"),
    [
        pytest.param(2, 1, marks=pytest.mark.slow),
        pytest.param(2, 0, marks=pytest.mark.slow),
        (1, 0),
        pytest.param(4, 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_with_shards_or_without(
    two: Path, demo_shards: Path, tmp_path: Path, processes: int, replicas: int
) -> None:
    run = tmp_path / "run"
    shutil.copytree(two, run, ignore=shutil.ignore_patterns("step-00000008", "best-*", "metrics.jsonl"))
    if replicas:
        train(demo_shards, run, processes=processes, replicas=replicas)
    else:
        ranks.train(demo_shards, run, *OPTIONS, processes=processes)
    assert [record["step"] for record in records(run)] == [5, 6, 7, 8]
    same_way = (processes, replicas) == (2, 1)
    assert losses(run) == pytest.approx(losses(two)[4:], **(EXACT if same_way else {"abs": 1e-3}))
    assert same_weights(weights(run), weights(two)) or not same_way
    if replicas == 2:
        sizes = [
            sum(path.stat().st_size for path in (it / "checkpoints" / "step-00000008" / "tensors").iterdir())
            for it in (run, two)
        ]
        assert sizes[0] < 1.1 * sizes[1], "one of two copies is written"


@pytest.mark.slow
def test_batch_norm_goes_on_to_the_same_bits(demo_shards: Path, tmp_path: Path) -> None:
    options = ("model.backbone=test_efficientnet", "optim.clip_grad_norm=0", "optim.clip_agc=0.05")
    through = train(demo_shards, tmp_path / "through", *options)
    run = tmp_path / "run"
    shutil.copytree(through, run, ignore=shutil.ignore_patterns("step-00000008", "best-*", "metrics.jsonl"))
    train(demo_shards, run, *options)
    assert losses(run) == losses(through)[4:] and same_weights(weights(run, "ema"), weights(through, "ema"))


@pytest.mark.parametrize("folder", ["best", "step"])
@pytest.mark.slow
def test_evaluation_reads_shards(folder: str, two: Path, tmp_path: Path) -> None:
    chosen = max((two / "checkpoints").glob(f"{folder}-*"))
    found = []
    for name, in_shards in (("whole", False), ("shards", True)):
        run = tmp_path / name
        shutil.copytree(two, run)
        shutil.rmtree(run / "scores")
        arguments = [str(run), f"checkpoint={run / 'checkpoints' / chosen.name}"]
        log = tmp_path / f"{name}-log"
        if in_shards:
            script("evaluate", *arguments, log=log)
        else:
            with ranks.start_script("livetrain.evaluate", arguments, log=log) as started:
                assert started.wait() == [0, 0], log.read_text()
        (path,) = run.rglob("test.csv")
        found.append(scores(path.parent.parent))
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    assert len(found[0]) > 1


def test_another_model_is_refused(two: Path, demo_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [f"data.shards={demo_shards}", f"run_dir={run}", *ranks.SMALL, *OPTIONS]
    resume = f"resume={two / 'checkpoints' / 'step-00000004'}"
    words = ["livetrain.train", "1", *arguments, resume, "model.pool=attention"]
    with ranks.start_script("tests.fsdp_ranks", words, log=tmp_path / "log") as started:
        assert started.wait() == [2, 2]
    assert "the checkpoint does not fit the model" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()


def check_matrix(found: dict[str, Any]) -> None:
    for name, apart in found.items():
        assert apart["finite"], name
        assert max(apart["losses"], apart["norms"]) < 1e-2, (name, apart)
        assert max(apart["weights"], apart["average"]) < 1e-2, (name, apart)  # of what the updates changed
        assert apart["share"] < 0.6, "a process holds about half of the weights"
        assert (apart["graphs"] > 0) == ("compiled" in name), (name, apart)


@pytest.mark.slow
def test_updates_in_shards_are_those_of_ddp(tmp_path: Path) -> None:
    """One of each value but `compiled`; all 48 by `make test-slow`."""
    keys = ("bf16 agc frozen x2", "fp16 norm all x1", "bf16 value all x2")
    found = compared("matrix", *keys, folder=tmp_path)
    assert set(keys) == found.keys()
    check_matrix(found)


ADAPTERS = ("model.lora_rank=4", "model.lora_alpha=8")
DOMAINS = (
    "domains.names=[casia,msu]", "domains.supcon=0.1", "domains.triplet=0.5", "domains.adversary=1",
    "domains.weighting=dro", "domains.dro_rate=0.5", "data.balance=domain_class",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("keys", [ADAPTERS, DOMAINS, ("loss.patch_tokens=0.5",)], ids=["lora", "domains", "tokens"])
def test_what_is_learned_beside_a_plain_network_is_shared_too(
    keys: tuple[str, ...], demo_shards: Path, tmp_path: Path
) -> None:
    if keys is ADAPTERS:
        pytest.importorskip("peft")
    folders = [tmp_path / "casia", tmp_path / "msu"]
    for folder in folders:
        folder.symlink_to(demo_shards)
    where = ("data.shards=", f"data.sources=[{','.join(map(str, folders))}]", *keys)
    one = ranks.train(demo_shards, tmp_path / "one", *OPTIONS, *where, processes=1)
    two = train(demo_shards, tmp_path / "two", *where)
    assert losses(two) == pytest.approx(losses(one), abs=2e-3)
    whole, gathered = weights(one), weights(two)
    assert {n: w.shape for n, w in whole.items()} == {n: w.shape for n, w in gathered.items()}
    assert all(torch.allclose(whole[name], gathered[name], atol=2e-2) for name in whole)
    assert scores(two) == pytest.approx(scores(one), abs=1e-2)
    resumed = tmp_path / "resumed"
    shutil.copytree(two, resumed, ignore=shutil.ignore_patterns("step-00000008", "best-*", "metrics.jsonl"))
    train(demo_shards, resumed, *where)
    assert losses(resumed) == losses(two)[4:] and same_weights(weights(resumed), weights(two))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("clip", ["norm", "value", "agc"])
def test_the_matrix(precision: str, clip: str, tmp_path: Path) -> None:
    found = compared("matrix", f"{precision} {clip} *", folder=tmp_path)
    assert len(found) == 8
    check_matrix(found)


@pytest.mark.slow
def test_replicas_of_shards(tmp_path: Path) -> None:
    apart = compared("replicas", folder=tmp_path, processes=4)["two"]
    assert max(apart["losses"], apart["norms"], apart["weights"], apart["average"]) < 1e-4
    assert 0.5 <= apart["share"] < 0.6


@pytest.mark.slow
def test_bf16_traffic_trains_too(tmp_path: Path) -> None:
    keys = ("fsdp.param_dtype=bf16", "fsdp.reduce_dtype=bf16")
    apart = compared("replicas", *keys, folder=tmp_path, processes=4)["two"]
    assert 1e-6 < apart["losses"] < 3e-2, "rounded, not wrong"


@pytest.mark.slow
def test_every_optimizer_that_goes_number_by_number(tmp_path: Path) -> None:
    from timm.optim import list_optimizers

    from livetrain.config import OptimConfig
    from livetrain.model import is_element_wise

    names = []
    for name in map(str, list_optimizers()):
        try:
            if is_element_wise(OptimConfig(name=name, lr=1e-3)):
                names.append(name)
        except UserError:
            continue  # it needs CUDA or second derivatives
    assert {"adamw", "sgd", "lion", "adan", "nadamw"} <= set(names)
    assert not {"lamb", "lars", "muon", "adafactor", "adamp", "cadamw"} & set(names)
    for apart in compared("optimizers", *names, folder=tmp_path).values():
        assert max(apart["losses"], apart["weights"]) < 1e-3


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("optim.name=lamb", "optim.name=lamb needs whole weights"),
        ("optim.name=bnbadam8bit", "optim.name=bnbadam8bit has kernels that do not take shards"),
        ("FSDP_VERSION=1", "fsdp_version: 2"),
        ("FSDP_OFFLOAD_PARAMS=true", "fsdp_offload_params in Accelerate's configuration has no effect"),
        ("PARALLELISM_CONFIG_TP_SIZE=2", "parallelism_config_tp_size"),
        ("PARALLELISM_CONFIG_DP_SHARD_SIZE=3", "must multiply to the 4 processes"),
    ],
)
def test_what_would_not_be_right_is_refused(
    option: str, message: str, demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    environment = fsdp.ENVIRONMENT | fsdp_ranks.hybrid(2)
    keys = [] if option.isupper() or option.split("=")[0].isupper() else [option]
    if not keys:
        environment |= dict([option.split("=")])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        fsdp.plugin(small_config(demo_shards, tmp_path, *keys))


def test_one_process_has_nothing_to_share(demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in fsdp.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    train_here(small_config(demo_shards, tmp_path / "run", "train.max_steps=2"))
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2]


def test_weights_that_layers_share_are_refused() -> None:
    from livetrain.config import LossConfig, ModelConfig
    from livetrain.model import build_model

    with pytest.raises(UserError, match="weights that layers share"):
        fsdp.to_meta(build_model(ModelConfig(backbone="coat_tiny"), LossConfig(), 224))


def test_units_are_the_backbones_blocks() -> None:
    import timm

    names = {"test_vit": ["Block"], "resnet18": ["BasicBlock"], "convnext_atto": ["ConvNeXtBlock"]}
    assert {name: fsdp.unit_names(timm.create_model(name)) for name in names} == names


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.parametrize(("file", "processes"), [("fsdp2.yaml", 2), ("hsdp.yaml", 4)])
def test_launched_with_accelerates_configuration(
    file: str, processes: int, one: Path, demo_shards: Path, tmp_path: Path
) -> None:
    options = list(OPTIONS)
    extra = ["--parallelism_config_dp_replicate_size=2", "--parallelism_config_dp_shard_size=2"] if "h" in file else []
    done = launch(demo_shards, tmp_path / "run", *options, processes=processes, file=file, extra=extra, threads=1)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == pytest.approx(losses(one), abs=1e-3)
