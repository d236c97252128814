"""`livetrain plan`: what it takes from shards, what it says, what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from livetrain import cli
from livetrain.bench.clips import ClipSet, make_clips
from livetrain.config import load_config
from livetrain.core.errors import UserError
from livetrain.data import Dataset
from livetrain.planner import hardware, inputs

SMALL = ("model.backbone=test_vit", "data.image_size=160", "data.num_frames=2", "train.global_batch=16")


@pytest.mark.parametrize("gop", [1, 8, 0])
def test_nvdec_starts_at_the_key_frame_before(gop: int, tmp_path: Path) -> None:
    """Frames decoded: with all of them key frames the wanted ones, else from the key frame on, each once."""
    import av

    video = make_clips(tmp_path, ClipSet(96, 64, seconds=1.6, gop=gop, num_clips=1))[0]
    with av.open(str(video)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    order = sorted(p.pts or 0 for p in packets)
    keys = [n for n, p in enumerate(packets) if p.is_keyframe]
    for wanted in ([0], [39], [3, 30], [5, 5, 6]):
        fed: set[int] = set()
        for frame in wanted:
            position = next(n for n, p in enumerate(packets) if p.pts == order[frame])
            fed |= set(range(max(k for k in keys if k <= position), position + 1))
        assert inputs.frames_from_keys(video.read_bytes(), np.array(wanted)) == len(fed)


def test_the_demand_of_a_run(demo_shards: Path) -> None:
    keys = [f"data.shards={demo_shards}", *SMALL]
    config = load_config([], keys, warn=lambda line: None)
    dataset = Dataset.open(demo_shards)
    rows = dataset.rows("train")
    size = dataset.column("size")[rows].mean()
    assert inputs.stored_bytes(config, dataset) == pytest.approx(size)
    picture = dataset.column("width")[rows].astype(int) * dataset.column("height")[rows]
    longest = int(dataset.column("num_frames")[rows].max())
    assert 2 * picture.min() <= inputs.decoded_pixels(config, dataset) <= longest * picture.max()


def test_a_measured_mfu_holds_with_gradient_checkpointing(demo_shards: Path) -> None:
    """1,000 clips/s with an MFU as the meter has it (training's FLOPs, nothing that is computed twice) are predicted to
    be 1,000 clips/s, whether activations are recomputed or not; from the data sheet, recomputing takes longer.
    """
    from livetrain.model import build_model, count_training_flops
    from livetrain.planner.formulas import compute_seconds

    found = {}
    for value in ("false", "true"):
        keys = [f"data.shards={demo_shards}", *SMALL, f"model.grad_checkpointing={value}", "train.precision=bf16"]
        config = load_config([], [*keys, "model.pretrained=false"], warn=lambda line: None)
        model = build_model(config.model, config.loss, config.data.image_size)
        demand = inputs.demand(config, Dataset.open(demo_shards), model)
        machine = hardware.load("a100")
        mfu = count_training_flops(model, (2, 3, 160, 160), config) * 1000 / machine.peak_flops
        assert compute_seconds(demand, machine, mfu) == pytest.approx(1 / 1000)
        found[value] = demand.computed_share * demand.flops
    assert found["true"] == pytest.approx(4 / 3 * found["false"])


def test_it_needs_no_weights(demo_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from livetrain.planner import main

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("timm.models._builder.load_pretrained", never)
    keys = [f"data.shards={demo_shards}", *SMALL, "model.pretrained=true"]
    config = load_config([], keys, warn=lambda line: None)
    assert "clips/s" in main.describe(config, 1, 8, "h100", None)
    config = load_config([], [*keys, "model.weights=absent.safetensors"], warn=lambda line: None)
    assert "clips/s" in main.describe(config, 1, 8, "h100", None)


def test_the_prediction_names_everything(demo_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "plan",
        f"data.shards={demo_shards}",
        *SMALL,
        "--gpus",
        "8",
        "--hardware",
        "a100",
        "train.precision=bf16",
    ]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    for word in ("clips/s, MFU", "days", "MB/s a node", "saturates first", "GiB a GPU", "not hidden", "8 x a100"):
        assert word in said
    rows = re.findall(r"^\| +([\d,]+) \| ", said, re.MULTILINE)
    assert rows == ["1", "2", "4", "8", "16", "32", "64", "128", "256", "512", "1,024"]
    assert "data sheet: give --mfu" in said
    assert cli.main([*command, "--mfu", "20"]) == 0
    assert "MFU 20 % as measured" in capsys.readouterr().out


def test_mistakes_are_told(demo_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([], "needs --gpus N"),
        (["--gpus", "3"], "train.global_batch=16 does not divide over 3 processes"),
        (["--gpus", "2", "--hardware", "h1000"], "--hardware h1000: there are h100, h200"),
        (["--gpus", "2", "--mfu", "0"], "--mfu 0: a percentage"),
        (["--check", str(tmp_path)], "no measurement there that the planner predicts"),
    ):
        assert cli.main(["plan", f"data.shards={demo_shards}", *SMALL, *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_machine_of_your_own(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("base: h100\nstore_bandwidth: 5e9\nnum_nvdec: 0\n")
    found = hardware.load(str(path))
    assert (found.name, found.store_bandwidth, found.num_nvdec) == ("site", 5e9, 0)
    assert found.peak_flops == hardware.KNOWN["h100"].peak_flops
    for content, message in (
        ("store_bandwidth: 5e9\n", "needs `base:`"),
        ("base: h100\nstore_bandwith: 5e9\n", "unknown field store_bandwith; did you mean store_bandwidth"),
        ("base: h100\nstore_bandwidth: fast\n", "is not a finite number"),
        ("base: h100\nstore_bandwidth: 0\n", "must be above 0"),
        ("base: [\n", "cannot be read as YAML"),
        ("- h100\n", "must hold `key: value` lines"),
        ("base: [h100]\n", "needs `base:`"),
        ("base: h100\nnum_nvdec: .nan\n", "num_nvdec=nan is not a finite number"),
        ("base: h100\nnum_nvdec: .inf\n", "num_nvdec=inf is not a finite number"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            hardware.load(str(path))
    with pytest.raises(UserError, match=r"--hardware absent.yaml: no such file; there are .*h100"):
        hardware.load("absent.yaml")
