"""launch/: each way to start a run has a configuration of Accelerate and a script, and they start what they say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from tests.runs import REPO, SMALL, records

WAYS = {"one_cpu": 1, "two_cpus": 2, "one_gpu": 1, "eight_gpus": 8}
HERE = {"one_cpu", "two_cpus"} | ({"one_gpu"} if torch.cuda.is_available() else set())


@pytest.mark.parametrize("name", WAYS)
def test_a_script_hands_its_configuration_and_the_arguments_on(name: str, tmp_path: Path) -> None:
    """With a Python that writes down how it was called."""
    project = tmp_path / "project"
    (project / ".venv" / "bin").mkdir(parents=True)
    python = project / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$ACCELERATE_USE_CPU|$@"\n')
    python.chmod(0o755)
    (project / "launch").symlink_to(REPO / "launch")
    environment = {key: value for key, value in os.environ.items() if key != "ACCELERATE_USE_CPU"}
    script = [str(project / "launch" / f"{name}.sh"), "configs/base.yaml", "name=a b"]
    told = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    use_cpu = "1" if name == "two_cpus" else ""
    assert told == f"{use_cpu}|-m livetrain.cli train --config_file launch/{name}.yaml configs/base.yaml name=a b\n"
    assert yaml.safe_load((REPO / "launch" / f"{name}.yaml").read_text())["num_processes"] == WAYS[name]


def test_every_configuration_has_a_script() -> None:
    scripts = {path.stem for path in (REPO / "launch").glob("*.sh")} - {"setup"}
    configurations = {path.stem for path in (REPO / "launch").glob("*.yaml")} - {"fsdp2", "hsdp"}
    assert scripts == configurations == {*WAYS, "many_nodes"}


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_a_script_trains(name: str, demo_shards: Path, tmp_path: Path) -> None:
    if name not in HERE:
        pytest.skip(f"{name}: this machine has not what it takes")
    arguments = [*SMALL, f"data.shards={demo_shards}", f"run_dir={tmp_path / 'run'}", "train.max_steps=2"]
    done = subprocess.run([REPO / "launch" / f"{name}.sh", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2]
    assert f'"num_processes": {WAYS[name]}' in (tmp_path / "run" / "environment.json").read_text()
