"""What `domains` adds to the loss: the same on any number of processes, in training alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from livetrain.config import Config, load_config
from livetrain.core.errors import UserError
from livetrain.data import Batch, Dataset, targets
from livetrain.inference import package
from livetrain.model.liveness import Outputs
from livetrain.training.objective import Objective
from tests import ranks
from tests.runs import losses, small_config, train_here, weights

EVERYTHING = (
    "domains.names=[casia,msu]", "domains.supcon=0.1", "domains.triplet=0.5", "domains.adversary=1",
    "domains.adversary_warmup_steps=4", "domains.weighting=dro", "domains.dro_rate=0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo shards under two names, as data.sources."""
    root = tmp_path_factory.mktemp("sources")
    for name in ("casia", "msu"):
        (root / name).symlink_to(demo_shards)
    return f"data.sources=[{root / 'casia'},{root / 'msu'}]"


def config_of(*overrides: str) -> Config:
    return load_config([], ["data.shards=x", "domains.names=[a,b,c]", *overrides], warn=lambda line: None)


def plain_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")


class Process:
    """One of `world` processes that have computed what they are asked for before: `gather` joins it."""

    def __init__(self, rank: int, whole: list[torch.Tensor]) -> None:
        self.process_index, self.num_processes, self._whole = rank, 2, iter(whole)

    def gather(self, part: torch.Tensor) -> torch.Tensor:
        joined = next(self._whole)
        torch.testing.assert_close(part, joined.chunk(2)[self.process_index])
        return joined


class Alone:
    """One process; notes what it gathers."""

    process_index, num_processes = 0, 1

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def gather(self, part: torch.Tensor) -> torch.Tensor:
        self.seen.append(part.detach().clone())
        return part


def made(places: slice = slice(None)) -> tuple[torch.Tensor, Batch]:
    """Features and a batch of 8 clips of three domains and of none, one of them damaged."""
    generator = torch.Generator().manual_seed(1)
    features, labels = torch.randn(8, 4, generator=generator), torch.tensor([1.0, 0, 1, 0, 1, 1, 0, 1])
    domains = torch.tensor([0, 0, 1, 1, 2, -1, 2, 0])
    valid = torch.tensor([True] * 7 + [False])
    features[7] = float("nan")
    plain = Batch.made(features[:, None, None, None], labels)
    batch = Batch(
        plain.clips[places], labels[places], plain.kinds[places], domains[places], valid[places],
        np.arange(8)[places], plain.frames[places], ["clip"] * len(valid[places]), 0, [],
    )  # fmt: skip
    return features[places], batch


def run(accelerator: Any, config: Config, head: nn.Linear, places: slice, shares: torch.Tensor) -> tuple[Any, Any, Any]:
    """(loss of each clip, gradient of the head, groups' weights afterwards) of one micro-batch."""
    head.zero_grad()
    features, batch = made(places)
    model = SimpleNamespace(get_buffer=lambda name: shares)
    objective = Objective(accelerator, config, plain_loss, model)  # type: ignore[arg-type]
    objective.begin([batch])
    found = head(torch.nan_to_num(features))
    outputs = Outputs(found[:, 0], None, found[:, 1:] if config.domains.adversary else None, found)
    total, values = objective(outputs, batch)
    total.backward()
    return values.detach(), head.weight.grad.clone(), shares


@pytest.mark.parametrize(
    "options",
    [
        ("domains.supcon=0.3",),
        ("domains.triplet=0.7", "domains.triplet_margin=2"),
        ("domains.supcon=0.3", "domains.supcon_classes=merge_live", "domains.weighting=mean"),
        ("domains.weighting=dro", "domains.dro_rate=1", "domains.adversary=0.5"),
    ],
)
def test_gradients_of_two_processes_add_up_to_those_of_one(options: tuple[str, ...]) -> None:
    config, head = config_of(*options), nn.Linear(4, 4)
    alone, half = Alone(), (slice(0, 4), slice(4, 8))
    values, gradient, shares = run(alone, config, head, slice(None), torch.full((6,), 1 / 6))
    parts = [run(Process(rank, alone.seen), config, head, half[rank], torch.full((6,), 1 / 6)) for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), values)
    torch.testing.assert_close(parts[0][1] + parts[1][1], gradient)
    for part in parts:
        torch.testing.assert_close(part[2], shares)
    assert values[7] == 0 and torch.isfinite(gradient).all() and gradient.abs().max() > 0.01


def test_mean_gives_each_domain_the_same_weight_whatever_it_has() -> None:
    head = nn.Linear(4, 4)
    values, _, _ = run(Alone(), config_of("domains.weighting=mean"), head, slice(None), torch.empty(0))
    plain, _, _ = run(Alone(), config_of(), head, slice(None), torch.empty(0))
    # Two clips of each of three domains, and one of none.
    assert (values[:7] / plain[:7]).tolist() == pytest.approx([1] * 7)
    objective = Objective(Alone(), config_of("domains.weighting=mean"), plain_loss, None)  # type: ignore[arg-type]
    assert objective._balanced(torch.tensor([0, 0, 0, 1, -1])).tolist() == pytest.approx([4 / 2 / 3, 4 / 2 / 1, 0])


def test_dro_turns_to_the_worst_group() -> None:
    config, shares = config_of("domains.weighting=dro", "domains.dro_rate=1"), torch.full((6,), 1 / 6)
    _, batch = made()
    model = SimpleNamespace(get_buffer=lambda name: shares)
    objective = Objective(Alone(), config, lambda logits, labels: logits, model)  # type: ignore[arg-type]
    outputs = torch.tensor([1.0, 2, 0, 0, 0, 9, 0, 9])  # live and attacks of domain 0: 1 and 2; the rest 0
    _, values = objective(outputs, batch)
    grown = torch.tensor([2.0, 1, 0, 0, 0, 0]).exp()  # attack, live of each domain
    torch.testing.assert_close(shares, grown / grown.sum())
    expected = 6 * torch.stack([shares[1], 2 * shares[0]])  # six clips of named domains, one in each group
    torch.testing.assert_close(values[:2], expected)
    assert float(values[5]) == 9


@pytest.mark.slow
def test_two_processes_train_as_one_and_scoring_needs_none_of_it(
    folders: str, tmp_path: Path, demo_shards: Path
) -> None:
    options = (folders, "data.shards=", "data.balance=domain_class", *EVERYTHING)
    train_here(small_config(demo_shards, tmp_path / "one", *options))
    two = ranks.train(demo_shards, tmp_path / "two", *options)
    assert losses(two) == pytest.approx(losses(tmp_path / "one"), abs=1e-3)
    trained = package.load(two)
    assert not [name for name in trained.model.state_dict() if "domain" in name]
    shares = weights(two)["domain_weights"]
    assert shares.sum() == pytest.approx(1) and shares.max() > 0.26


@pytest.mark.slow
def test_the_mean_over_domains_does_not_depend_on_accumulation(folders: str, tmp_path: Path, demo_shards: Path) -> None:
    options = (folders, "data.shards=", "domains.names=[casia,msu]", "domains.weighting=mean", "train.max_steps=3")
    found = []
    for parts in (1, 2):
        train_here(small_config(demo_shards, tmp_path / str(parts), *options, f"train.accumulation={parts}"))
        found.append(losses(tmp_path / str(parts)))
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@pytest.mark.parametrize(
    "options, words",
    [
        (["domains.supcon=0.1", "domains.names=[a]"], "name at least two domains"),
        (["domains.adversary=1", "domains.names=[a,a]"], "each once"),
        (["domains.triplet=1", "augment.mixup=0.2"], "blends has two"),
    ],
)
def test_what_cannot_be_is_an_error(options: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        config_of(*options)


@pytest.mark.slow
def test_a_domain_that_training_has_not_is_an_error(folders: str, demo_shards: Path, tmp_path: Path) -> None:
    options = (folders, "data.shards=", "domains.names=[casia,oulu]", "domains.weighting=mean")
    config = small_config(demo_shards, tmp_path / "run", *options)
    with pytest.raises(UserError, match="the domain 'oulu'; it has: casia, msu"):
        targets.check(Dataset.of(config.data), config)
