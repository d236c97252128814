"""An online run, against a W&B server on loopback: stopped and gone on with it is one run, with every figure once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from livetrain.core.errors import Stopped
from livetrain.tracking import dashboard
from livetrain.tracking.metrics_log import read_metrics
from livetrain.tracking.wandb_run import wandb_mode
from livetrain.training.trainer import Trainer
from tests.runs import small_config, train_here
from tests.tracking.test_dashboard import ON_A_GPU
from tests.wandb_server import Server, serve


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve() as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        wandb.teardown()  # it forgets its service, which it names in the environment too
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
        wandb.teardown()
        yield found
        wandb.teardown()


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_one(
    server: Server,
    demo_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert wandb_mode("auto") == "online"
    run = tmp_path / "run"
    config = small_config(demo_shards, run, "tracking.wandb=auto", "train.max_steps=5", "train.eval_every_epochs=0.3")
    with monkeypatch.context() as patch:
        after = Trainer._after

        def asked(self: Trainer, done: int, *rest: object) -> str:
            if done == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
            return after(self, done, *rest)  # type: ignore[arg-type]

        patch.setattr(Trainer, "_after", asked)
        with pytest.raises(Stopped):
            train_here(config)
    (first,) = server.runs.values()
    assert first.preempting and first.exit_codes == [1]
    train_here(config)
    assert "W&B failed" not in capsys.readouterr().err
    (whole,) = server.runs.values()
    assert whole.exit_codes[-1] == 0 and whole.num_starts >= 2
    logged = [row for row in whole.history.values() if "train/loss" in row]
    lines = [record for record in read_metrics(run / "metrics.jsonl") if record["kind"] == "train"]
    assert [(row["step"], row["train/loss"]) for row in logged] == [(line["step"], line["loss"]) for line in lines]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert whole.config["seed"]["value"] == 0
    shown = set(dashboard.figures(dashboard.read(dashboard.DEFINITION)))
    known = {name for row in whole.history.values() for name in row} | set(whole.summary)
    assert shown - known == ON_A_GPU
    assert whole.summary["verdict/bpcer"] == json.loads((run / "verdict.json").read_text())["test"]["bpcer"]
