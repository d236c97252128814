"""Short training runs for tests: in this process, or by `accelerate launch` as users start them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate.state import AcceleratorState, GradientState

from livetrain.checkpoint import folders
from livetrain.config import Config, load_config
from livetrain.distributed.preemption import StopRequest
from livetrain.report import page
from livetrain.train import train
from livetrain.training import gc_control

REPO = Path(__file__).parent.parent

# A transformer: LayerNorm, so that a clip's features do not depend on its company in the batch.
SMALL = (
    "model.backbone=test_vit",
    "data.image_size=96",
    "data.num_frames=2",
    "eval.num_frames=2",
    "eval.batch_size=8",
    "train.global_batch=8",
    "train.max_steps=6",
    "train.log_every=1",
    "train.eval_every_epochs=0",
    "train.save_every_steps=0",
    "optim.lr=1e-3",
    "tracking.wandb=disabled",
)


def small_config(shards: Path, run_dir: Path, *overrides: str) -> Config:
    """The configuration of a run of seconds; `overrides` come last."""
    return load_config([], [f"data.shards={shards}", f"run_dir={run_dir}", *SMALL, *overrides], warn=lambda line: None)


def forget_accelerator() -> None:
    """Have the next Accelerator of this process made again."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def train_here(config: Config, *, with_report: bool = False) -> None:
    """`train(config)` in this process, with Accelerate's process-wide state made again.

    The report takes as long as the rest of so small a run: it is left out where a test does not look at it.
    """
    forget_accelerator()
    with StopRequest() as stop, quickly(with_report=with_report):
        train(config, stop)


@contextlib.contextmanager
def quickly(*, with_report: bool = False) -> Iterator[None]:
    """Runs leave the garbage collector alone (a pass over what a test process holds takes a quarter of so small a run;
    tests/training/test_gc_control.py tests it), and end without report.html.
    """
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(gc_control, "paused_gc", _left_alone))
        if not with_report:
            patches.enter_context(mock.patch.object(page, "write", lambda content, **_: content.run.report))
        yield


def launch(
    shards: Path,
    run_dir: Path,
    *overrides: str,
    processes: int = 1,
    threads: int = 0,
    file: str = "",
    extra: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """The script through `accelerate launch` on `processes` CPU processes of `threads` threads (0: as this one), with
    the launcher's configuration `file` of launch/ and `extra` options.
    """
    environment = os.environ | {
        "ACCELERATE_USE_CPU": "1",
        "OMP_NUM_THREADS": str(threads or torch.get_num_threads()),
    }
    file = file or ("one_cpu.yaml" if processes == 1 else "two_cpus.yaml")
    options = ["--config_file", str(REPO / "launch" / file)]
    options += ["--num_processes", str(processes), "--main_process_port", "0"] if processes > 1 else []
    options += ["--num_machines", "1", "--machine_rank", "0", *extra] if extra else []
    arguments = [f"data.shards={shards}", f"run_dir={run_dir}", *SMALL, *overrides]
    accelerate = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    command = [*accelerate, *options, str(REPO / "livetrain" / "train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPO, timeout=600)


def records(run_dir: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The records of one kind in the run's metrics.jsonl."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(run_dir: Path) -> list[float]:
    """The loss of each update (with train.log_every=1)."""
    return [record["loss"] for record in records(run_dir)]


def weights(run_dir: Path, field: str = "model") -> dict[str, torch.Tensor]:
    """The weights in the run's newest checkpoint, or their moving average (`ema`)."""
    return folders.load(folders.list_steps(run_dir / "checkpoints")[-1]).part(field)


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit-identical."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@contextlib.contextmanager
def _left_alone() -> Iterator[Callable[[int], None]]:
    yield lambda step: None
