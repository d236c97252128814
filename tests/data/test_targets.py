"""What the second head learns to name: live, or one of the attack types it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from livetrain.core.errors import UserError
from livetrain.data import Dataset, mixup, targets
from tests.data.test_loader import make_config, make_loader, read


def test_live_comes_first_and_what_is_not_named_has_no_column() -> None:
    found = targets.one_hot(["live", "replay", "mask", "print", ""], ["print", "replay"])
    assert found.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert targets.one_hot(["live", "mask"], []).shape == (2, 0)


def test_a_type_that_training_has_not_is_an_error_that_names_those_it_has(demo_shards: Path) -> None:
    config, dataset = make_config(demo_shards), Dataset.open(demo_shards)
    config.loss.attack_types = ["replay", "print"]
    targets.check(dataset, config)
    config.loss.attack_types = ["replay", "mask"]
    with pytest.raises(UserError, match=r"attack type 'mask'; it has: print, replay"):
        targets.check(dataset, config)


def test_batches_tell_the_type_of_each_clip_blended_as_its_label(demo_shards: Path) -> None:
    config, dataset = make_config(demo_shards), Dataset.open(demo_shards)
    config.loss.attack_types = ["print"]
    config.augment.mixup, config.augment.mixup_alpha = 1.0, 1.0
    seen = 0
    for batch in read(make_loader(config)):
        plain = np.array([
            {"live": (1, 0), "print": (0, 1)}.get(dataset.text("attack_type", row), (0, 0)) for row in batch.rows
        ])  # fmt: skip
        shares = mixup.planned(config, np.arange(12) + 12 * batch.step).shares[:, None]
        expected = shares * plain + (1 - shares) * plain[mixup.partners(12)]
        torch.testing.assert_close(batch.kinds, torch.from_numpy(expected).float())
        torch.testing.assert_close(batch.kinds[:, 0], batch.labels)
        seen += int((plain.sum(axis=1) == 0).sum())
    assert seen > 0, "replays have no column"
    config.loss.attack_types = []
    assert next(iter(read(make_loader(config)))).kinds.shape == (12, 0)


def test_training_sees_the_kinds_that_its_split_names(demo_shards: Path) -> None:
    config, dataset = make_config(demo_shards), Dataset.open(demo_shards)
    config.data.train_split = "train:-replay"
    targets.check(dataset, config)
    seen = {dataset.text("attack_type", int(row)) for batch in read(make_loader(config)) for row in batch.rows}
    assert seen == {"live", "print"}
    assert len(dataset.rows("train:live+print")) + len(dataset.rows("train:replay")) == len(dataset.rows("train"))
    with pytest.raises(UserError, match=r"no clip of kind 'mask'; it has: live, print, replay"):
        dataset.rows("train:mask")


def test_a_training_split_of_one_class_is_an_error_unless_attacks_are_made(demo_shards: Path) -> None:
    config, dataset = make_config(demo_shards), Dataset.open(demo_shards)
    config.data.train_split = "train:-live"
    with pytest.raises(UserError, match="'train:-live' has attacks alone, and no live clips to learn from"):
        targets.check(dataset, config)
    config.data.train_split = "train:live"
    with pytest.raises(UserError, match=r"live clips alone, and no attacks to learn from; augment\.recapture makes"):
        targets.check(dataset, config)
    config.augment.recapture = 0.5
    targets.check(dataset, config)
    labels = [float(label) for batch in read(make_loader(config)) for label in batch.labels]
    assert {0.0, 1.0} == set(labels)
