"""examples/: each runs on small shards and does what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.runs import SMALL, forget_accelerator, losses, quickly

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_of_them_are_run_here() -> None:
    tested = {"iterate_loader", "own_loss", "predict_from_python", "finetune_package"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_the_loader_in_a_foreign_loop(demo_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 < example("iterate_loader").main(str(demo_shards)) < 5
    assert "step 4: loss" in capsys.readouterr().out


@pytest.mark.slow
def test_an_own_loss_is_the_one_that_is_trained(demo_shards: Path, tmp_path: Path) -> None:
    forget_accelerator()
    module, run = example("own_loss"), tmp_path / "run"
    with quickly():
        module.main(str(demo_shards), str(run), *SMALL)
    forget_accelerator()
    (usual := example("own_loss")).asymmetric = lambda logits, labels: 2 * module.asymmetric(logits, labels)
    with quickly():
        usual.main(str(demo_shards), str(tmp_path / "other"), *SMALL)
    assert losses(tmp_path / "other")[0] == pytest.approx(2 * losses(run)[0], rel=1e-5)


def test_predictions_from_python(plain: Path, demo_videos: Path) -> None:
    videos = sorted((demo_videos / "videos").iterdir())[:2]
    found = example("predict_from_python").main(str(plain), [str(path) for path in videos])
    assert len(found) == 2 and all(p is not None and 0 < p < 1 for p in found)


@pytest.mark.slow
def test_a_package_is_fine_tuned_from_its_own_weights(plain: Path, demo_shards: Path, tmp_path: Path) -> None:
    from livetrain.inference import package

    packed = package.write(package.load(plain), tmp_path / "package")
    forget_accelerator()
    options = (
        "train.max_steps=1",
        "train.global_batch=8",
        "optim.lr=0",
        "optim.weight_decay=0",
        "tracking.wandb=disabled",
    )
    with quickly():
        run = example("finetune_package").main(str(packed), str(demo_shards), str(tmp_path / "run"), *options)
    before, after = (package.load(path).model.state_dict() for path in (packed, run))
    names = [
        name for name in before if name.startswith("backbone.") and "running" not in name and "num_batches" not in name
    ]
    assert names and all((before[name] == after[name]).all() for name in names)
