"""configs/recipes: each names its source, has no key without effect, and gives a run that can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate import Accelerator

from livetrain.config import load_config
from livetrain.data import Dataset, targets
from livetrain.planner import dry_run
from livetrain.training import setup
from tests.runs import forget_accelerator

FILES = sorted((Path(__file__).parents[2] / "configs" / "recipes").glob("*.yaml"))


QUICK = ("sa_fas", "synthetic_attacks")


@pytest.mark.parametrize(
    "path",
    [path if path.stem in QUICK else pytest.param(path, marks=pytest.mark.slow) for path in FILES],
    ids=lambda path: path.stem,
)
def test_a_recipe_names_its_source_and_can_be_planned(path: Path, demo_shards: Path, tmp_path: Path) -> None:
    said: list[str] = []
    shipped = load_config([path], [], warn=said.append)
    assert said == [] and shipped.name == path.stem
    assert "arXiv" in path.read_text(encoding="utf-8").partition("base:")[0]
    folders = [tmp_path / Path(source).name for source in shipped.data.sources or [shipped.data.shards]]
    for folder in folders:
        folder.symlink_to(demo_shards)
    data = [f"data.sources=[{','.join(map(str, folders))}]"] if shipped.data.sources else [f"data.shards={folders[0]}"]
    small = ["model.pretrained=false", "data.num_frames=2", "eval.num_frames=2", "data.image_size=32"]
    backbone = "test_vit" if "vit" in shipped.model.backbone else "test_resnet"
    words = [*data, *small, f"model.backbone={backbone}", "train.global_batch=4", "train.precision=fp32"]
    config = load_config([path], [*words, f"run_dir={tmp_path / 'run'}"], warn=said.append)
    dataset = Dataset.of(config.data)
    targets.check(dataset, config)
    forget_accelerator()
    accelerator = Accelerator(cpu=True)
    text = dry_run.describe(config, dataset, setup.make_model(config, accelerator), accelerator)
    assert "data.fit=stretch" in text and "updates of 4 clips" in text and said == []
