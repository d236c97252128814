"""Perturbations: fixed, each changes what it says and nothing else, the same in any process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from livetrain.config import Config
from livetrain.core.world import World
from livetrain.data import PADDING, Batch, Dataset, eval_loader, plan
from livetrain.data.perturb import PERTURBATIONS, Shifts, perturb
from tests.data.test_plan import make_samples


def batches(shards: Path, shifts: Shifts | None) -> list[Batch]:
    config = Config()
    config.data.shards, config.data.image_size = str(shards), 64
    config.eval.batch_size, config.eval.num_frames = 8, 2
    loader = eval_loader(
        Dataset.open(shards),
        config,
        "test",
        world=World(torch.device("cpu")),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        shifts=shifts,
    )
    with loader:
        return list(loader)


@pytest.fixture(scope="module")
def seen(demo_shards: Path) -> dict[str, torch.Tensor]:
    """Pixels of the valid clips under every perturbation, in [0, 1]."""
    found = {}
    for perturbation in (None, *PERTURBATIONS):
        parts = batches(demo_shards, Shifts.same(perturbation) if perturbation else None)
        assert not any(part.failures for part in parts)
        found[perturbation.name if perturbation else ""] = torch.cat([part.clips[part.valid] for part in parts])
    return found


def test_each_changes_the_pixels_of_every_clip(seen: dict[str, torch.Tensor]) -> None:
    assert len({item.name for item in PERTURBATIONS}) == len(PERTURBATIONS) == len(seen) - 1
    for item in PERTURBATIONS:
        changed = (seen[item.name] - seen[""]).abs().amax(dim=(1, 2, 3, 4))
        assert (changed > 0.01).all(), item.name


def test_each_does_what_it_says(seen: dict[str, torch.Tensor]) -> None:
    def detail(clips: torch.Tensor) -> float:
        return float((clips[..., 1:] - clips[..., :-1]).abs().mean())

    clean = seen[""]
    assert seen["dark"].mean() < clean.mean() < seen["bright"].mean()
    assert torch.allclose(seen["dark"], 0.6 * clean, atol=2 / 255)
    assert (seen["gray"][:, :, 0] - seen["gray"][:, :, 2]).abs().max() < 2 / 255
    assert detail(clean) > detail(seen["blur2"]) > detail(seen["blur4"])
    assert detail(clean) > detail(seen["downscale2"]) > detail(seen["downscale4"])
    error = {name: float((seen[name] - clean).abs().mean()) for name in ("jpeg50", "jpeg15")}
    assert 0 < error["jpeg50"] < error["jpeg15"] < 0.1


def test_a_perturbed_pass_repeats_to_the_bit(demo_shards: Path, seen: dict[str, torch.Tensor]) -> None:
    again = batches(demo_shards, Shifts.same(next(item for item in PERTURBATIONS if item.name == "jpeg15")))
    assert torch.equal(torch.cat([part.clips[part.valid] for part in again]), seen["jpeg15"])


def test_spread_over_a_split_each_clip_is_under_one_always_the_same(
    demo_shards: Path, seen: dict[str, torch.Tensor]
) -> None:
    dataset = Dataset.open(demo_shards)
    shifts, rows = Shifts.spread(dataset, "test"), dataset.rows("test")
    which = shifts.of(rows)
    for live in (True, False):
        counts = np.bincount(which[(dataset.column("label")[rows] >= 0.5) == live], minlength=len(PERTURBATIONS))
        assert counts.max() - counts.min() <= 1
    parts = batches(demo_shards, shifts)
    found = torch.cat([part.clips[part.valid] for part in parts])
    assert np.concatenate([part.rows[part.valid.numpy()] for part in parts]).tolist() == rows.tolist()
    for place, kind in enumerate(which.tolist()):
        assert torch.equal(found[place], seen[PERTURBATIONS[kind].name][place]), PERTURBATIONS[kind].name
    assert (Shifts.spread(dataset, "test").of(rows) == which).all()


def test_spread_over_many_clips_are_all_and_in_other_orders() -> None:
    samples, config = make_samples(40), Config()
    config.eval.num_frames, config.eval.batch_size = 4, 40
    clean = plan.plan_evaluation(samples, config, 0, 0, 1)
    kinds = np.arange(clean.rows.max() + 1) % len(PERTURBATIONS)
    mixed = perturb(clean, samples, config, Shifts("", PERTURBATIONS, kinds))
    for number, kind in enumerate(PERTURBATIONS):
        here = kinds[np.maximum(clean.rows, 0)] == number
        alone = perturb(clean, samples, config, Shifts.same(kind))
        assert here.any() and (mixed.frames[here] == alone.frames[here]).all(), kind.name
        for name, values in alone.params.items():
            assert (mixed.params[name][here] == values[here]).all(), (kind.name, name)
        on = {name for name in mixed.params if name.endswith("_on") and mixed.params[name][here].any()}
        assert on == {name for name in alone.params if name.endswith("_on")}


def test_crop_keeps_the_middle_and_shorten_the_start() -> None:
    samples, config = make_samples(20), Config()
    config.eval.num_frames = 4
    clean = plan.plan_evaluation(samples, config, 0, 0, 1)
    rows = clean.rows != PADDING
    by_name = {item.name: perturb(clean, samples, config, Shifts.same(item)) for item in PERTURBATIONS}
    box = by_name["crop60"].params["box"]
    assert np.allclose(box, [0.2, 0.2, 0.8, 0.8], atol=1 / 240) and (by_name["crop60"].frames == clean.frames).all()
    short = by_name["shorten4"].frames
    lengths = samples.columns["num_frames"][clean.rows[rows]]
    assert (short[rows].max(axis=1) < np.ceil(lengths / 4)).all() and (short[rows].max(axis=1) > 0).all()
    assert (by_name["shorten4"].params["box"] == clean.params["box"]).all()
    assert all((item.rows == clean.rows).all() for item in by_name.values())
