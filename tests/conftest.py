"""Fixtures shared by all tests: a small demo corpus and shards built from it, once a session."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and torch come: tests run side by side, one to a core

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import hypothesis
import pytest

from shards import cli
from shards.demo import corpus

hypothesis.settings.register_profile("livetrain", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("livetrain")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A heavy proof may take longer than the timeout in pyproject.toml, but not for ever; so may a test that uses the
    launcher.
    """
    for item in items:
        if item.get_closest_marker("slow") or item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.timeout(1800))
        elif item.get_closest_marker("launch"):
            item.add_marker(pytest.mark.timeout(180))
    usual_priority()
    modules = [getattr(item, "module", None) for item in items]
    if ranks := next((module.ranks for module in modules if hasattr(module, "ranks")), None):
        ranks.prepare()


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell that starts tests in the background has them inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if ranks := getattr(getattr(item, "module", None), "ranks", None):
        ranks.wait_seconds = ranks.SLOW_WAIT_SECONDS if item.get_closest_marker("slow") else ranks.WAIT_SECONDS


def usual_priority() -> None:
    """Undo what SVT-AV1 (libsvtav1, which makes some clips) does to a thread of root's that encodes: it is left at
    SCHED_FIFO 99, as are all processes it starts from then on, and four ranks that wait actively then hold two cores
    against the two that they wait for.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(autouse=True)
def _usual_priority() -> Iterator[None]:
    usual_priority()
    yield
    usual_priority()


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, once for all of pytest-xdist's workers; the others wait for it. Never changed."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    folder = (factory.getbasetemp() if alone else factory.getbasetemp().parent) / f"once-{name}"
    done = folder.with_suffix(".done")  # not a rename at the end: a run directory holds its own path
    with filelock.FileLock(f"{folder}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def demo_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos/ and label.csv: 6 people, live / print / replay, from the project's generator."""
    return made_once(
        tmp_path_factory,
        "demo",
        lambda folder: corpus.generate(folder, num_subjects=6, clips_per_subject=6, max_seconds=1.6),
    )


@pytest.fixture(scope="session")
def demo_shards(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shard folder built from `demo_videos`, several small shards."""

    def build(out: Path) -> None:
        arguments = ["build", "--videos", demo_videos / "videos", "--labels", demo_videos / "label.csv", "--out", out]
        assert cli.main([str(a) for a in [*arguments, "--shard-mb", "0.5"]]) == 0

    return made_once(tmp_path_factory, "shards", build)


@pytest.fixture(scope="session")
def face_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos/ and label.csv: clips in which a photographed face moves (tests.shards.faces.clips)."""
    pytest.importorskip("dlib")
    from tests.shards.faces import clips

    return made_once(tmp_path_factory, "faces", clips.corpus)


@pytest.fixture(scope="session")
def face_shards(face_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `face_videos`, with the faces of 6 frames a clip."""
    from tests.shards.faces import clips

    def build(out: Path) -> None:
        clips.build(face_videos, out)
        assert cli.main(["faces", str(out), "--num-frames", "6"]) == 0

    return made_once(tmp_path_factory, "face-shards", build)


@pytest.fixture(scope="session")
def plain(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of six plain updates. Copy it before changing it."""
    from tests.runs import small_config, train_here  # imports torch

    def train(run_dir: Path) -> None:
        train_here(small_config(demo_shards, run_dir), with_report=True)

    return made_once(tmp_path_factory, "plain", train)


@pytest.fixture(scope="session")
def variant(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same data and architecture as `plain` with other weights, scored."""
    import torch

    from livetrain.checkpoint import folders
    from livetrain.config import load_config
    from livetrain.evaluate import evaluate
    from livetrain.inference.package import load
    from tests.runs import forget_accelerator

    def make(run_dir: Path) -> None:
        config = load_config([plain / "config.yaml"], [f"run_dir={run_dir}", "name=variant"], warn=lambda line: None)
        generator = torch.Generator().manual_seed(1)
        weights = load(plain).model.state_dict()
        for name in ("head.weight", "backbone.norm.weight"):
            weights[name] = weights[name] + 0.1 * torch.randn(weights[name].shape, generator=generator)
        weights = {name: tensor.contiguous() for name, tensor in weights.items()}
        forget_accelerator()
        evaluate(config, folders.save_best(run_dir / "checkpoints", 6, weights, {}))

    return made_once(tmp_path_factory, "variant", make)
