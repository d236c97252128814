"""launch/: each way to start a run has a configuration of Accelerate and a script, and they start what they say."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from livetrain.core.errors import UserError
from livetrain.jobs import launch as start
from shards import cli as shards_cli
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
    message = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    use_cpu = "1" if name == "two_cpus" else ""
    assert message == f"{use_cpu}|-m livetrain.cli train --config_file launch/{name}.yaml configs/base.yaml name=a b\n"
    assert yaml.safe_load((REPO / "launch" / f"{name}.yaml").read_text())["num_processes"] == WAYS[name]


def test_who_was_killed_failed_first() -> None:
    """Also where the launcher sees in the same moment that a peer lost its connection, which left an exact time."""
    second = 1_800_000_000
    lost = {"message": {"extraInfo": {"exact": second * 10**9 + 5}}}
    peer = SimpleNamespace(exitcode=1, timestamp=second, error_file_data=lost)
    earlier = SimpleNamespace(exitcode=1, timestamp=second, error_file_data={"message": {"extraInfo": {"exact": 7}}})
    killed = SimpleNamespace(exitcode=-signal.SIGKILL, timestamp=second, error_file_data={"message": "<NONE>"})
    assert start.first_of({0: peer, 1: killed}) == (1, killed)
    assert start.first_of({0: peer, 1: earlier}) == (1, earlier)
    # What the launcher ends when it has seen a failure: by SIGTERM, after 30 s by SIGKILL.
    ended = SimpleNamespace(exitcode=-signal.SIGTERM, timestamp=second, error_file_data={"message": "<NONE>"})
    stopped = SimpleNamespace(exitcode=75, timestamp=second, error_file_data={"message": "<NONE>"})
    assert start.first_of({0: ended, 1: stopped}) == (1, stopped)
    late = SimpleNamespace(exitcode=-signal.SIGKILL, timestamp=second + 31, error_file_data={"message": "<NONE>"})
    assert start.first_of({0: late, 1: peer}) == (1, peer)


def test_every_configuration_has_a_script() -> None:
    scripts = {path.stem for path in (REPO / "launch").glob("*.sh")} - {"setup"}
    configurations = {path.stem for path in (REPO / "launch").glob("*.yaml")} - {
        "fsdp2",
        "hsdp",
        "kubernetes",
        "ray_job",
    }
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


# Fields of the published APIs that the manifest may use: JobSet v1alpha2 (jobset.sigs.k8s.io/docs/reference), batch/v1
# and core/v1 (kubernetes.io/docs/reference). A value that is a set of words: one of them; {} under *: each of a map.
POD = {
    "restartPolicy": {"Never", "OnFailure"}, "terminationGracePeriodSeconds": int,
    "containers": [{
        "name": str, "image": str, "workingDir": str, "command": [str], "args": [str],
        "env": [{"name": str, "value": str}], "resources": {"limits": {"*": (int, str)}},
        "volumeMounts": [{"name": str, "mountPath": str}],
    }],
    "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str}, "emptyDir": {"medium": {"Memory", ""}}}],
}  # fmt: skip
JOB = {
    "parallelism": int, "completions": int, "completionMode": {"Indexed", "NonIndexed"}, "backoffLimit": int,
    "podFailurePolicy": {"rules": [{
        "action": {"FailJob", "Ignore", "Count", "FailIndex"},
        "onExitCodes": {"containerName": str, "operator": {"In", "NotIn"}, "values": [int]},
    }]},
    "template": {"spec": POD},
}  # fmt: skip
JOBSET = {
    "apiVersion": {"jobset.x-k8s.io/v1alpha2"}, "kind": {"JobSet"}, "metadata": {"name": str},
    "spec": {
        "network": {"enableDNSHostnames": bool},
        "failurePolicy": {"maxRestarts": int, "rules": [{
            "name": str, "action": {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"},
            "onJobFailureReasons": [{"BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "PodFailurePolicy"}],
        }]},
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
    },
}  # fmt: skip

# KubeRay's ray.io/v1 (ray-project.github.io/kuberay/reference/api).
RAY_PODS = {"rayStartParams": {"*": str}, "template": {"spec": POD}}
RAY_JOB = {
    "apiVersion": {"ray.io/v1"}, "kind": {"RayJob"}, "metadata": {"name": str},
    "spec": {
        "entrypoint": str, "submissionMode": {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"},
        "backoffLimit": int, "shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int,
        "rayClusterSpec": {
            "rayVersion": str, "headGroupSpec": RAY_PODS,
            "workerGroupSpecs": [
                {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, **RAY_PODS}
            ],
        },
    },
}  # fmt: skip


def fits(value: object, schema: object, at: str) -> None:
    if isinstance(schema, dict):
        assert isinstance(value, dict), at
        for name, inner in value.items():
            assert name in schema or "*" in schema, f"{at}.{name} is no field of the API"
            fits(inner, schema.get(name, schema.get("*")), f"{at}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, at
        for number, inner in enumerate(value):
            fits(inner, schema[0], f"{at}[{number}]")
    elif isinstance(schema, set):
        assert value in schema, f"{at}: {value}"
    else:
        assert isinstance(value, schema) and not (schema is not bool and isinstance(value, bool)), f"{at}: {value!r}"


def test_the_manifest_for_kubernetes(tmp_path: Path) -> None:
    """It has fields of the APIs alone, agrees with itself, and its command starts the script as a node."""
    manifest = yaml.safe_load((REPO / "launch" / "kubernetes.yaml").read_text())
    fits(manifest, JOBSET, "manifest")
    (nodes,) = manifest["spec"]["replicatedJobs"]
    job = nodes["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    name = manifest["metadata"]["name"]
    assert environment["HEAD"] == f"{name}-{nodes['name']}-0-0.{name}", "the first pod's name, under the set's"
    assert job["parallelism"] == job["completions"] == int(environment["NODES"])
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    (tmp_path / "launch").mkdir()
    script = tmp_path / "launch" / "many_nodes.sh"
    script.write_text('#!/bin/sh\necho "$NODE of $NODES at $HEAD: $*"\n')
    script.chmod(0o755)
    said = subprocess.run(
        [*container["command"], *container["args"]], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | environment | {"JOB_COMPLETION_INDEX": "1"},
    ).stdout  # fmt: skip
    assert said == f"1 of 2 at {environment['HEAD']}: {' '.join(container['args'])}\n"


def test_the_manifest_for_ray_on_kubernetes() -> None:
    """It has fields of the APIs alone, and its command and options are ours and Ray's."""
    manifest = yaml.safe_load((REPO / "launch" / "ray_job.yaml").read_text())
    fits(manifest, RAY_JOB, "manifest")
    spec = manifest["spec"]
    python, *words = shlex.split(spec["entrypoint"])
    assert python.endswith("bin/python") and words[:3] == ["-m", "livetrain.cli", "shards"]
    given = shards_cli.parser().parse(words[3:])
    assert given.engine == "ray" and given.ray_address == "", "Ray sets RAY_ADDRESS for the job"
    of_ray = next(line for line in (REPO / "requirements.lock").read_text().splitlines() if line.startswith("ray=="))
    assert spec["rayClusterSpec"]["rayVersion"] == of_ray.partition("==")[2]
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    claims = [group["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] for group in groups]
    mounts = [group["template"]["spec"]["containers"][0]["volumeMounts"] for group in groups]
    assert len(set(claims)) == 1 and mounts[0] == mounts[1], "all pods see the same volume"


@pytest.mark.parametrize("name", ["", "one_cpu.yaml", "two_cpus.yaml"])
def test_accelerate_has_no_default_to_warn_about(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value that it would choose and list on six lines is set before."""
    from accelerate.commands import launch as accelerates

    from livetrain.jobs import launch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    warned: list[str] = []
    monkeypatch.setattr(accelerates.logger, "warning", warned.append)
    options = ["--config_file", str(REPO / "launch" / name)] if name else []
    parsed = accelerates.launch_command_parser().parse_args([*options, "script.py"])
    launch._set_defaults(parsed)
    accelerates._validate_launch_command(parsed)
    assert warned == [] and parsed.num_processes == (2 if name == "two_cpus.yaml" else 1)


@pytest.mark.parametrize(
    ("options", "multi_gpu"), [([], True), (["--use_fsdp"], False), (["--num_processes=1"], False)]
)
def test_several_gpus_are_used_in_the_way_that_is_asked_for(
    options: list[str], multi_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--multi_gpu beside --use_fsdp is refused by Accelerate."""
    from accelerate.commands import launch as accelerates

    from livetrain.jobs import launch

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    parsed = accelerates.launch_command_parser().parse_args([*options, "script.py"])
    launch._set_defaults(parsed)
    assert parsed.multi_gpu == multi_gpu and sum([parsed.multi_gpu, parsed.use_fsdp]) <= 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_processes: [1", "cannot be read as YAML"),
        ("- 1", "must hold `key: value` lines"),
        ("num_processes: many", "num_processes: 'many' is no whole number"),
    ],
)
def test_a_launchers_file_that_is_none_is_an_error(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        start.launch("train.py", ["--config_file", str(path), "data.shards=x"])
    assert str(path) in str(error.value)
