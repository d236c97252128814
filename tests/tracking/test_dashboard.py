"""The W&B dashboard shows what runs log: read back from the files of an offline run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from livetrain import cli
from livetrain.tracking import dashboard
from livetrain.tracking.wandb_check import history
from livetrain.training import throughput
from tests.runs import small_config, train_here

ON_A_GPU = {"train/gpu_percent", "train/nvdec_percent", "train/mfu_percent", "train/gpu_memory_gib"}


@pytest.mark.slow
def test_every_figure_of_it_is_in_the_files_of_an_offline_run(demo_shards: Path, tmp_path: Path) -> None:
    train_here(small_config(demo_shards, tmp_path / "run", "tracking.wandb=offline", "train.max_steps=2"))
    (file,) = {path.resolve() for path in tmp_path.glob("run/wandb/*/run-*.wandb")}
    logged = {name.removesuffix("/_type") for figures in history(file) for name in figures}  # of tables and pictures
    summary = {f"verdict/{name}" for name in json.loads((tmp_path / "run" / "verdict.json").read_text())["test"]}
    shown = list(dashboard.figures(dashboard.read(dashboard.DEFINITION)))
    assert len(shown) == len(set(shown)) > 20
    assert set(shown) - logged - summary == ON_A_GPU
    (table,) = (file.parent / "files" / "media").rglob("*verdict/verdict_*.table.json")
    rows = {row[0]: row[1:] for row in json.loads(table.read_text())["data"]}
    assert {"apcer print", "apcer replay", "apcer_max", "bpcer", "hter", "eer", "auc", "threshold"} <= set(rows)
    assert rows["bpcer"][1] == json.loads((tmp_path / "run" / "verdict.json").read_text())["test"]["bpcer"]


def test_the_figures_of_a_gpu_are_what_a_meter_reads_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def __init__(self, device: torch.device) -> None:
            assert device.type == "cuda"

        def read(self) -> dict[str, float]:
            return {"gpu_percent": 90.0, "nvdec_percent": 40.0}

    monkeypatch.setattr(throughput, "Utilisation", Busy)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**31)
    meter = throughput.Meter(
        clips_per_step=8, frames_per_clip=4, flops_per_clip=1e9, device=torch.device("cuda"), precision="bf16", world=1
    )
    meter.add(0.0)
    found = meter.read()
    assert found["mfu_percent"] == pytest.approx(100 * 1e9 * found["samples_per_second"] / 989e12)
    meter.add(0.0)
    assert {name.removeprefix("train/") for name in ON_A_GPU} <= set(meter.read())


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A40", 149.7e12),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA T400 4GB", None),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
    ],
)
def test_peaks_are_of_whole_names(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert throughput.peak_flops(torch.device("cuda"), "bf16") == peak


def test_the_workspace_that_is_saved_has_every_panel(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dashboard", "faces", "--entity", "team", "--print"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert (view["entity"], view["project"], view["display_name"]) == ("team", "faces", "livetrain")
    sections = view["spec"]["section"]["panel_bank_config"]["sections"]
    assert [section["name"] for section in sections] == ["Learning", "Data", "Device", "Verdict"]
    for section in sections:
        flow = section["flow_config"]
        assert flow["columns_per_page"] * flow["rows_per_page"] >= len(section["panels"]), "none on a second page"
    message = json.dumps(sections)
    for name in dashboard.figures(dashboard.read(dashboard.DEFINITION)):
        assert f'{name}"' in message, name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", "needs `name:` and a list `sections:`"),
        ("name: x\nsections: [{name: a, bars: {}}]\n", "knows no 'bars'"),
        ("name: x\nsections: [{lines: {}}]\n", "lacks its name"),
        ("name: x\nsections: [1]\n", "1 is no section"),
        ("name: x\nsections: [{name: a, lines: [dev/eer]}]\n", "lines of section 'a' must be `title: figure` lines"),
        ("name: x\nsections: [{name: a, tables: t}]\n", "tables of section 'a' must be a list"),
        ("- x\n", "must hold `key: value` lines"),
        ("a: [\n", "cannot be read as YAML"),
        (None, "no such file"),
    ],
)
def test_a_definition_that_is_none_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "d.yaml").write_text(text)
    assert cli.main(["dashboard", "p", "--definition", str(tmp_path / "d.yaml"), "--print"]) == 2
    assert message in capsys.readouterr().err


def test_what_wandb_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import wandb_workspaces.workspaces as workspaces

    def save(self: object) -> None:
        raise ConnectionError("no route to host\nat all")

    monkeypatch.setattr(workspaces.Workspace, "save", save)
    assert cli.main(["dashboard", "p", "--entity", "team"]) == 2
    assert "W&B did not take the dashboard (ConnectionError: no route to host" in capsys.readouterr().err
