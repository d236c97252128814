"""Real faces, people apart: configs/nuaa.yaml and nuaa_faces.yaml as a user runs them, over three seeds (slow)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shards import cli

REPO = Path(__file__).parent.parent
NUAA = REPO.parent / "shared" / "data" / "nuaa"
WEIGHTS = REPO.parent / "shared" / "weights" / "mobilenetv2_100.safetensors"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (NUAA.exists() and WEIGHTS.exists()),
        reason="shared/data/nuaa and shared/weights are not beside the project",
    ),
]


@pytest.fixture(scope="module")
def nuaa_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("nuaa") / "shards"
    arguments = ["build", "--videos", NUAA / "videos", "--labels", NUAA / "label.csv", "--out", out, "--workers", "2"]
    assert cli.main([str(a) for a in arguments]) == 0
    assert cli.main(["faces", str(out)]) == 0
    return out


@pytest.mark.parametrize("name", ["nuaa", "nuaa_faces"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unseen_people_are_told_from_prints(nuaa_shards: Path, tmp_path: Path, seed: int, name: str) -> None:
    config = ["--config_file", str(REPO / "launch" / "one_cpu.yaml")]
    script = [str(REPO / "livetrain" / "train.py"), str(REPO / "configs" / f"{name}.yaml")]
    options = [f"seed={seed}", f"data.shards={nuaa_shards}", f"model.weights={WEIGHTS}", f"run_dir={tmp_path}"]
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *config, *script, *options]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"WANDB_MODE": "disabled"})
    assert done.returncode == 0, done.stderr
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    test = verdict["test"]
    print(
        f"{name}, seed {seed}: test AUC {test['auc']:.4f}, EER {test['eer']:.4f}, HTER {test['hter']:.4f}, "
        f"APCER {test['apcer_max']:.4f}, BPCER {test['bpcer']:.4f}, {time.monotonic() - started:.0f} s"
    )
    assert test["num_subjects"] == 2 and test["auc"] >= 0.995
