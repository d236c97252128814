"""`livetrain doctor`: each check under made-up conditions, and the real thing on this machine."""

from __future__ import annotations

import compileall
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb

from livetrain import cli
from livetrain.jobs import doctor, doctor_checks
from livetrain.jobs.doctor import Finding
from tests.data.test_loader import damage


def usage(free: float) -> Callable[[Any], Any]:
    return lambda _: SimpleNamespace(free=int(free), total=int(free))


def test_versions() -> None:
    def installed(name: str) -> str:
        return {"torch": "2.14.1+cu130", "timm": "1.0.3"}.get(name, "2.4.0")

    assert doctor_checks.check_versions(["torch==2.14.1", "numpy>=2"], installed).level == "ok"
    found = doctor_checks.check_versions(["torch==2.14.1", "timm==1.0.31"], installed)
    assert (found.level, found.seen) == ("warn", "timm 1.0.3, not 1.0.31") and "make setup" in found.advice
    assert doctor_checks.check_versions().level == "ok", "this environment is the locked one"


def test_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "large.py").write_text("")
    found = doctor_checks.check_bytecode(("json", "large", "not_installed"))
    assert found.level == "warn" and found.seen.startswith("large not compiled: ")
    assert "unset PYTHONDONTWRITEBYTECODE" in found.advice and "run launch/setup.sh" in found.advice
    compileall.compile_file(tmp_path / "large.py", quiet=2)
    assert doctor_checks.check_bytecode(("large",)).level == "ok"


@pytest.mark.parametrize(("free", "level"), [(1e9, "fail"), (5e9, "warn"), (5e11, "ok")])
def test_disk(free: float, level: str, tmp_path: Path) -> None:
    found = doctor_checks.check_disk(tmp_path / "runs", usage(free))
    assert found.level == level and f"{free / 1e9:.0f} GB free" in found.seen and "fsync" in found.seen
    assert list((tmp_path / "runs").iterdir()) == []


def test_shared_memory_and_open_files() -> None:
    assert (
        doctor_checks.check_shared_memory(usage(64e6)).level == "warn"
        and doctor_checks.check_shared_memory(usage(8e9)).level == "ok"
    )
    assert doctor_checks.check_open_files(lambda _: (1024, 4096)).level == "warn"
    for enough in (65536, resource.RLIM_INFINITY):
        assert doctor_checks.check_open_files(lambda _, enough=enough: (enough, enough)).level == "ok"


def test_driver_without_and_with_a_card_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor_checks.check_driver().level == "warn" and "no CUDA device" in doctor_checks.check_driver().seen
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA H200, 470.1\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    found = doctor_checks.check_driver()
    assert found.level == "fail" and "H200, 470.1, but torch sees no CUDA device" in found.seen


def test_nvdec(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert doctor_checks.check_nvdec(missing).level == "skip"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert (
        doctor_checks.check_nvdec(missing).level == "fail"
        and "NVIDIA_DRIVER_CAPABILITIES" in doctor_checks.check_nvdec(missing).advice
    )
    assert "not AV1" in doctor_checks.check_nvdec(lambda _: None).seen
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 9))
    assert "and AV1" in doctor_checks.check_nvdec(lambda _: None).seen


def test_all_reduce_that_hangs_or_breaks() -> None:
    found = doctor_checks.check_all_reduce(1.0, [sys.executable, "-c", "import time; time.sleep(600)"])
    assert found.level == "fail" and "hangs (1 s)" in found.seen
    found = doctor_checks.check_all_reduce(60, [sys.executable, "-c", "raise SystemExit('NCCL error: no route')"])
    assert found.level == "fail" and "no route" in found.seen


def test_shards(demo_shards: Path, tmp_path: Path) -> None:
    assert "clips/s" in doctor_checks.check_shards(demo_shards).seen
    broken, rows = damage(demo_shards, tmp_path / "broken", 1)
    found = doctor_checks.check_shards(broken)
    assert found.level == "fail" and "checksum" in found.seen and "shards verify" in found.advice
    assert doctor_checks.check_shards(tmp_path / "absent").level == "fail"


def test_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def says(word: str, code: int = 0) -> Callable[..., Any]:
        return lambda *_, **__: subprocess.CompletedProcess([], code, word, "")

    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    levels = [doctor_checks.check_clock(says(word)).level for word in ("yes\n", "no\n")]
    assert levels == ["ok", "warn"] and doctor_checks.check_clock(says("", 1)).level == "skip"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert doctor_checks.check_clock().level == "skip" and doctor_checks.check_compiler().level == "warn"


def test_wandb_never_shows_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()  # what it has read of this machine

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    assert doctor_checks.check_wandb(refuse).level == "ok", "offline asks no server"
    monkeypatch.setenv("WANDB_API_KEY", "secret" * 7)
    found = doctor_checks.check_wandb(refuse)
    assert found.level == "warn" and "no route" in found.seen and "secret" not in str(found)
    assert doctor_checks.check_wandb(lambda *_, **__: SimpleNamespace(close=lambda: None)).level == "ok"


def facts(node: str, time: float = 0.0, **versions: str) -> dict[str, Any]:
    return {"node": node, "time": time, "versions": {"torch": "2.14.1", "timm": "1.0.31"} | versions}


def test_nodes_are_compared() -> None:
    assert doctor_checks.compare_nodes([facts("a"), facts("b", 0.5)]).level == "ok"
    assert doctor_checks.compare_nodes([facts("a"), facts("b", 30.0)]).level == "warn"
    found = doctor_checks.compare_nodes([facts("a"), facts("b", timm="1.0.9"), facts("c")])
    assert found.level == "fail" and found.seen == "timm: 1.0.31 on a+c, 1.0.9 on b"


def test_nodes_through_srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An srun that starts the command twice, as on two nodes."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert doctor_checks.check_nodes().level == "fail"
    script = tmp_path / "srun"
    script.write_text('#!/bin/sh\nshift\nSLURMD_NODENAME=n0 "$@"\nSLURMD_NODENAME=n1 "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = doctor_checks.check_nodes()
    assert "2 nodes with the same versions" in found.seen
    script.write_text("#!/bin/sh\necho 'srun: error: Unable to contact slurm controller' >&2\nexit 1\n")
    assert doctor_checks.check_nodes() == Finding("nodes", "fail", "srun: error: Unable to contact slurm controller",
                                           "srun must reach every node, and find this Python there")  # fmt: skip


def test_a_check_that_breaks_is_a_failure_and_the_others_go_on() -> None:
    message: list[Finding] = []
    found = doctor.examine([("a", lambda: 1 / 0), ("b", lambda: Finding("b", "ok", "fine"))], message.append)  # type: ignore[list-item]
    assert message == found and [item.level for item in found] == ["fail", "ok"]
    assert found[0].seen == "ZeroDivisionError: division by zero"


@pytest.mark.slow
def test_the_real_thing(
    demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On this machine: DALI runs, two processes really sum, clips are read."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = ["--shards", str(demo_shards), "--run-dir", str(tmp_path)]
    code = cli.main(["doctor", *options, "--json"])
    found = {item["check"]: item for item in json.loads(capsys.readouterr().out)}
    assert {"versions", "driver", "nvdec", "dali", "all-reduce", "disk", "wandb", "shards"} <= found.keys()
    for name in ("dali", "shards"):
        assert found[name]["level"] == "ok", found[name]
    if not torch.cuda.is_available():
        assert found["all-reduce"]["level"] == "ok" and "gloo over 2" in found["all-reduce"]["seen"]
    assert code == int(any(item["level"] == "fail" for item in found.values()))


def test_lines_and_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        doctor.format_line(Finding("disk", "fail", "1 GB free", "free some")).splitlines()[1].strip() == "→ free some"
    )
    assert cli.main(["doctor", "--help"]) == 0 and "--shards DIR" in capsys.readouterr().out
    assert cli.main(["doctor", "--fast"]) == 2 and "--fast" in capsys.readouterr().err
