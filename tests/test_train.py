"""Training runs, whole: what is left behind, stopping and continuing, and each option doing what it says."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from livetrain.checkpoint import folders
from livetrain.config import Config
from livetrain.core import entrypoint
from livetrain.core.errors import EXIT_NON_FINITE, NonFiniteLoss, UserError
from livetrain.data import Dataset, Loader
from livetrain.inference.package import load
from livetrain.model import LivenessModel
from livetrain.tracking.run_lock import Ownership
from livetrain.train import main
from livetrain.training.state import STORED_AS
from livetrain.training.step import Updater
from shards import cli
from tests.data.test_loader import damage
from tests.runs import losses, records, same_weights, small_config, train_here, weights


def run_again(plain: Path, shards: Path, tmp_path: Path, *overrides: str) -> Path:
    train_here(small_config(shards, tmp_path / "run", *overrides))
    return tmp_path / "run"


def test_run_directory_is_complete(plain: Path, demo_shards: Path) -> None:
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "verdict.json", "report.html"):
        assert (plain / name).stat().st_size > 0, name
    assert [record["step"] for record in records(plain)] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(record[key]) for record in records(plain) for key in ("loss", "grad_norm", "lr"))
    assert all(
        0 <= record["data_wait_percent"] <= 100 < record["samples_per_second"] * 1e6 for record in records(plain)
    )
    for name in ("prepare_seconds", "graph_seconds", "ready"):  # a line has none where all was done before
        found = [record[f"loader_{name}"] for record in records(plain) if f"loader_{name}" in record]
        assert found and all(0 <= value < 60 for value in found), name
    assert [record["step"] for record in records(plain, "dev")] == [6]
    dataset = Dataset.open(demo_shards)
    for split in ("dev", "test"):
        lines = (plain / "scores" / f"{split}.csv").read_text().splitlines()
        assert len(lines) == 1 + len(dataset.rows(split))


@pytest.mark.slow
def test_the_same_run_gives_the_same_bits(plain: Path, demo_shards: Path, tmp_path: Path) -> None:
    again = run_again(plain, demo_shards, tmp_path)
    assert losses(again) == losses(plain) and same_weights(weights(again), weights(plain))
    assert (again / "scores" / "test.csv").read_text().count(",") > 0


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    real = Updater.update

    def update(self: Updater, number: int, batches: list, **options: bool) -> object:
        if number == step:
            raise KeyboardInterrupt
        return real(self, number, batches, **options)

    monkeypatch.setattr(Updater, "update", update)


@pytest.mark.parametrize(
    "options",
    [
        ("model.backbone=test_efficientnet", "train.swa_start=0.4", "train.swa_bn_updates=2", "eval.shifted_dev=true"),
        pytest.param(
            ("train.ema_decay=0.9", "model.dropout=0.3", "train.accumulation=2", "train.precision=bf16"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits(
    options: tuple[str, ...], demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after update 4 with a checkpoint at 3, a dev evaluation in between; logging windows of two."""
    common = (*options, "train.log_every=2", "train.save_every_steps=3", "train.eval_every_epochs=0.5")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train_here(small_config(demo_shards, whole, *common))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train_here(small_config(demo_shards, stopped, *common))
    assert [path.name for path in (stopped / "checkpoints").glob("step-*")] == ["step-00000003"]
    train_here(small_config(demo_shards, stopped, *common))
    timing = ("time", "samples_per_second", "frames_per_second", "data_wait_percent", "step_seconds", "loader_")
    for kind in ("train", "dev"):
        a, b = (
            [{k: v for k, v in r.items() if not k.startswith(timing)} for r in records(d, kind)]
            for d in (whole, stopped)
        )
        assert a == b and len(a) >= 2
    assert same_weights(weights(whole), weights(stopped))
    assert same_weights(weights(whole, "ema"), weights(stopped, "ema"))
    assert not same_weights(weights(whole, "ema"), weights(whole))
    assert (whole / "verdict.json").read_text() == (stopped / "verdict.json").read_text()


def test_resume_never_refuses_a_used_directory(plain: Path, demo_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="resume=never"):
        train_here(small_config(demo_shards, plain, "resume=never"))
    with pytest.raises(UserError, match="no such folder"):
        train_here(small_config(demo_shards, tmp_path / "run", "resume=/nowhere"))


def test_resume_with_another_model_is_refused(plain: Path, demo_shards: Path, tmp_path: Path) -> None:
    checkpoint = sorted((plain / "checkpoints").glob("step-*"))[-1]
    with pytest.raises(UserError, match="does not fit the model"):
        train_here(small_config(demo_shards, tmp_path / "x", f"resume={checkpoint}", "model.pool=attention"))


@pytest.mark.slow
def test_accumulation_changes_nothing_but_memory(plain: Path, demo_shards: Path, tmp_path: Path) -> None:
    """Sums in another order: losses agree to 1e-4, and would not if micro-batches were weighted wrongly."""
    again = run_again(plain, demo_shards, tmp_path, "train.accumulation=4")
    assert losses(again) == pytest.approx(losses(plain), abs=1e-4)
    assert records(again)[0]["grad_norm"] == pytest.approx(records(plain)[0]["grad_norm"], rel=1e-3)


def test_learning_rate_warms_up_and_falls_by_a_cosine_per_update(demo_shards: Path, tmp_path: Path) -> None:
    train_here(small_config(demo_shards, tmp_path / "run", "optim.warmup_steps=2", "optim.min_lr_ratio=0.1"))
    rates = [record["lr"] for record in records(tmp_path / "run")]
    assert rates[0] < rates[1] < rates[2] <= 1e-3 * (1 + 1e-9)
    assert rates[2] > rates[3] > rates[4] > rates[5] >= 1e-4 * (1 - 1e-9)


@pytest.mark.slow
def test_clipping_bounds_the_update(demo_shards: Path, tmp_path: Path) -> None:
    """Plain SGD moves the weights by lr times the clipped gradient: no farther than lr * clip in all."""
    common = ("optim.name=momentum", "optim.momentum=0", "optim.lr=1", "optim.weight_decay=0", "train.max_steps=1")
    common = (*common, "optim.schedule=constant")
    moved = {}
    for clip in (0.0, 0.01):
        run_dir = tmp_path / f"clip{clip}"
        train_here(small_config(demo_shards, run_dir, *common, f"optim.clip_grad_norm={clip}"))
        moved[clip] = weights(run_dir)
    start_dir = tmp_path / "start"
    train_here(small_config(demo_shards, start_dir, *common, "optim.lr=0"))
    start = weights(start_dir)

    def distance(after: dict[str, torch.Tensor]) -> float:
        return math.sqrt(sum(float((after[name].double() - start[name].double()).pow(2).sum()) for name in start))

    assert distance(moved[0.01]) == pytest.approx(0.01, rel=1e-3)
    grad_norm = records(tmp_path / "clip0.0")[0]["grad_norm"]
    assert distance(moved[0.0]) == pytest.approx(grad_norm, rel=1e-3) and grad_norm > 0.02
    assert records(tmp_path / "clip0.01")[0]["grad_norm"] == pytest.approx(
        grad_norm, rel=1e-6
    )  # logged before clipping


@pytest.mark.slow
def test_clipping_by_value_and_by_the_weights_norm(demo_shards: Path, tmp_path: Path) -> None:
    """Plain SGD with rate 1 moves each weight by its clipped gradient: by no more than the value; each unit by no more
    than its share of its own norm.
    """
    common = ("optim.name=momentum", "optim.momentum=0", "optim.lr=1", "optim.weight_decay=0", "train.max_steps=1")
    common = (*common, "optim.schedule=constant")
    found = {}
    for name, option in (
        ("start", "optim.lr=0"),
        ("value", "optim.clip_grad_value=1e-3"),
        ("agc", "optim.clip_agc=0.01"),
    ):
        train_here(small_config(demo_shards, tmp_path / name, *common, option))
        found[name] = weights(tmp_path / name)
    largest = max(float((found["value"][key] - found["start"][key]).abs().max()) for key in found["start"])
    assert largest == pytest.approx(1e-3, rel=1e-2)
    key = "backbone.blocks.0.mlp.fc1.weight"
    start, moved = found["start"][key], found["agc"][key] - found["start"][key]
    share = moved.norm(dim=1) / start.norm(dim=1).clamp(min=1e-3)
    assert 0.005 < float(share.max()) <= 0.01 * 1.01


def test_bf16_computes_in_16_bits(plain: Path, demo_shards: Path, tmp_path: Path) -> None:
    again = run_again(plain, demo_shards, tmp_path, "train.precision=bf16")
    assert losses(again) != losses(plain) and losses(again) == pytest.approx(losses(plain), abs=0.15)
    assert all(tensor.dtype == torch.float32 for tensor in weights(again).values() if tensor.is_floating_point())


def test_fp16_without_a_gpu_is_a_clear_error(demo_shards: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=r"train\.precision=fp16 needs a CUDA device"):
        train_here(small_config(demo_shards, tmp_path / "run", "train.precision=fp16"))


@pytest.mark.gpu
def test_fp16_trains_with_a_scaler(demo_shards: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    train_here(small_config(demo_shards, tmp_path / "run", "train.precision=fp16"))
    assert len(losses(tmp_path / "run")) == 6


def test_a_non_finite_loss_stops_the_run_and_names_step_and_clips(demo_shards: Path, tmp_path: Path) -> None:
    config = small_config(demo_shards, tmp_path / "run", "optim.name=sgd", "optim.lr=1e30", "optim.schedule=constant")
    with pytest.raises(NonFiniteLoss, match=r"step [12]: .*not finite; clips: \S+, ") as caught:
        train_here(config)
    keys = set(Dataset.open(demo_shards).columns["key"].to_pylist())
    named = str(caught.value).split("clips: ")[1].split(". ")[0].split(", ")
    assert named and set(named) <= keys
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert entrypoint.run(lambda: train_here(config) or 0) == EXIT_NON_FINITE


def spoil(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> dict[int, dict[str, torch.Tensor]]:
    """Have the pictures of updates first … last be no numbers. Returns the weights after each update."""
    real, after = Updater.update, {}

    def update(self: Updater, number: int, batches: list, **options: bool) -> object:
        if first <= number <= last:
            batches = [dataclasses.replace(batch, clips=batch.clips * math.nan) for batch in batches]
        result = real(self, number, batches, **options)
        after[number] = {name: value.clone() for name, value in self.model.state_dict().items()}
        return result

    monkeypatch.setattr(Updater, "update", update)
    return after


def test_an_update_without_a_number_can_be_left_out(
    demo_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, moving average and batch statistics stay as they were; the run continues, and over a stop counts on."""
    after = spoil(monkeypatch, 2, 3)
    config = small_config(
        demo_shards, tmp_path / "run", "train.on_non_finite=skip", "model.backbone=test_resnet", "train.ema_decay=0.9"
    )
    train_here(config)
    assert same_weights(after[3], after[1]) and not same_weights(after[4], after[1])
    for field in ("model", "ema"):
        assert all(bool(value.isfinite().all()) for value in weights(tmp_path / "run", field).values())
    assert [record["num_left_out"] for record in records(tmp_path / "run")] == [0, 0, 1, 2, 2, 2]
    message = [line for line in capsys.readouterr().err.splitlines() if "is skipped" in line]
    assert len(message) == 2 and message[0].startswith("warning: step 2: the loss of 8 clips is not finite; clips: ")
    assert losses(tmp_path / "run")[4:] == [loss for loss in losses(tmp_path / "run")[4:] if math.isfinite(loss)]


@pytest.mark.slow
def test_too_many_such_updates_in_a_row_end_the_run(
    demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 2, 99)
    overrides = ("train.on_non_finite=skip", "train.max_steps=20", "train.save_every_steps=6")
    with pytest.raises(NonFiniteLoss, match=r"step 11: .* the 10th such step in a row"):
        train_here(small_config(demo_shards, tmp_path / "run", *overrides))
    with pytest.raises(NonFiniteLoss, match=r"step 11: .* the 10th such step in a row"):
        train_here(small_config(demo_shards, tmp_path / "run", *overrides))


@pytest.mark.slow
def test_a_second_head_learns_the_attack_types_and_stays_in_training(demo_shards: Path, tmp_path: Path) -> None:
    runs = {}
    for weight in (0.0, 0.5):
        runs[weight] = tmp_path / f"weight{weight}"
        options = ("loss.attack_types=[print,replay]", f"loss.attack_types_weight={weight}", "optim.weight_decay=0")
        train_here(small_config(demo_shards, runs[weight], *options))
    # Six updates at first: the same network but for the heads' own first guesses, of about ln 3.
    added = losses(runs[0.5])[0] - losses(runs[0.0])[0]
    assert added == pytest.approx(0.5 * math.log(3), rel=0.5)
    heads = {weight: weights(run)["attack_head.weight"] for weight, run in runs.items()}
    assert heads[0.5].shape == (3, 64) and not torch.equal(heads[0.5], heads[0.0])
    trained = load(runs[0.5])
    assert trained.model.attack_head is None and not any("attack_head" in name for name in trained.model.state_dict())
    with pytest.raises(UserError, match=r"attack type 'mask'; it has: print, replay"):
        train_here(small_config(demo_shards, tmp_path / "mask", "loss.attack_types=[mask]"))


def test_memory_that_does_not_suffice_says_what_to_change(
    demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device's allocator is played: what it raises is what torch raises."""
    real = LivenessModel.forward

    def forward(self: LivenessModel, clips: torch.Tensor, per_frame: bool = False) -> object:
        if per_frame == (mode == "eval"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(self, clips, per_frame)

    monkeypatch.setattr(LivenessModel, "forward", forward)
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", lambda path: Path(path).write_bytes(b"blocks"))
    for mode, advice in (
        (
            "train",
            r"step 0: out of memory \(CUDA out of memory.*train.accumulation=2 halves it.*out-of-memory-0.pickle",
        ),
        ("eval", r"scoring dev: out of memory .*set eval.batch_size below 8"),
    ):
        with pytest.raises(UserError, match=advice):
            train_here(small_config(demo_shards, tmp_path / mode, "eval.aggregate=mean"))
    assert (tmp_path / "train" / "out-of-memory-0.pickle").read_bytes() == b"blocks"


def test_damaged_clips_are_skipped_and_counted(
    demo_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    broken, rows = damage(demo_shards, tmp_path / "broken", 2)
    train_here(small_config(broken, tmp_path / "run", "data.max_lost_percent=50"))
    key = Dataset.open(broken).text("key", rows[0])
    errors = capsys.readouterr().err
    assert records(tmp_path / "run")[-1]["num_skipped"] == errors.count("warning: skipped shard-") > 0
    assert f"key {key}:" in errors
    with pytest.raises(UserError, match="data.on_error=skip"):
        train_here(small_config(broken, tmp_path / "stop", "data.on_error=stop"))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_run_that_lost_clips_names_them_and_fails_where_they_are_many(demo_shards: Path, tmp_path: Path) -> None:
    """Of 24 wanted in every epoch: two that never arrive, one that comes back after a repair.

    What the run has then is kept: with more allowed it continues to its verdict.
    """
    broken, rows = damage(demo_shards, tmp_path / "broken", 3)
    run, few = tmp_path / "run", "train.save_every_steps=1"
    with pytest.raises(UserError, match=r"[23] of \d+ training clips .*data.max_lost_percent=1; all are in .*lost.csv"):
        train_here(small_config(broken, run, few, "train.log_every=100"))
    dataset = Dataset.open(broken)
    keys = {dataset.text("key", row) for row in rows}
    lost = {row["key"]: row for row in read_csv(run / "lost.csv")}
    assert lost.keys() <= keys and all("checksum" in row["reason"] for row in lost.values())
    assert not (run / "verdict.json").exists()
    repaired = int(rows[0])
    for row in dataset.columns["shard"].to_pylist()[repaired : repaired + 1]:
        name = dataset.manifest["shards"][row]["name"]
        offset, size = (int(dataset.column(column)[repaired]) for column in ("offset", "size"))
        with (demo_shards / name).open("rb") as source, (broken / name).open("r+b") as target:
            source.seek(offset)
            target.seek(offset)
            target.write(source.read(size))
    train_here(small_config(broken, run, few, "train.log_every=100", "data.max_lost_percent=20", "train.max_steps=24"))
    message = [row["key"] for row in read_csv(run / "lost.csv")]
    assert sorted(message) == sorted(keys - {dataset.text("key", repaired)})
    notices = json.loads((run / "verdict.json").read_text())["notices"]
    assert notices == ["LOST: 2 training clips failed to load the last time they were requested: lost.csv"]


@pytest.mark.slow
def test_clips_that_the_gpus_decoder_refuses_are_counted(
    demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DALI's decoder on the CPU takes no H.264: it stands in for NVDEC and what that does not take."""
    train_here(small_config(demo_shards, tmp_path / "plain", "train.max_steps=3"))
    monkeypatch.setattr(Loader, "_decoder", lambda self, row: "cpu" if row in self.refusals.rows else "nvdec")
    train_here(small_config(demo_shards, tmp_path / "run", "train.max_steps=3"))
    assert [record["num_refused"] for record in records(tmp_path / "plain")] == [0, 0, 0]
    counts = [record["num_refused"] for record in records(tmp_path / "run")]
    assert counts == sorted(counts) and counts[-1] == 24, "the loader is ahead: all of the split"
    assert losses(tmp_path / "run") == losses(tmp_path / "plain")


@pytest.mark.slow
def test_damaged_test_clips_are_failures_to_acquire(demo_shards: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(demo_shards, broken)
    dataset = Dataset.open(broken)
    row = int(dataset.rows("test")[0])
    with (broken / dataset.shard_name(row)).open("r+b") as file:
        file.seek(int(dataset.column("offset")[row]))
        file.write(b"\0" * int(dataset.column("size")[row]))
    train_here(small_config(broken, tmp_path / "run", "train.max_steps=1"))
    lines = [line for line in (tmp_path / "run" / "scores" / "test.csv").read_text().splitlines() if "failed" in line]
    assert len(lines) == 1 and dataset.text("key", row) in lines[0]


def test_dry_run_prints_the_plan_and_leaves_nothing(
    demo_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train_here(small_config(demo_shards, tmp_path / "run", "dry_run=true"))
    message = capsys.readouterr().out
    for word in ("train", "dev", "test", "people", "6 updates of 8 clips", "parameters", "FLOPs", "memory"):
        assert word in message
    assert "decoders     cpu 100%: h264" in message
    loading, model = (
        float(re.search(rf"{word} ([\d,.]+)", message)[1].replace(",", "")) for word in ("loading", "model")
    )
    expected = float(re.search(r"expected +([\d,.]+) clips/s", message)[1].replace(",", ""))
    assert expected == pytest.approx(1 / (1 / loading + 1 / model), rel=0.05), "both on the same cores"
    assert ("limited by the model" in message) == (model < loading)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_profile_shows_the_updates_of_its_window(demo_shards: Path, tmp_path: Path) -> None:
    train_here(small_config(demo_shards, tmp_path / "run", "profile=true", "train.max_steps=18"))
    with gzip.open(tmp_path / "run" / "profile" / "rank-0.json.gz") as file:
        events = json.load(file)["traceEvents"]
    steps = {event["name"] for event in events if event.get("name", "").startswith("ProfilerStep")}
    assert len(steps) == 5 and any("conv" in event.get("name", "") for event in events)
    assert [path.name for path in (tmp_path / "run" / "profile").iterdir()] == ["rank-0.json.gz"]


def test_user_mistakes_end_with_code_2_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments in (
        ["optim.lrr=1"],
        ["data.shards=/nowhere", f"run_dir={tmp_path}"],
        ["no_such_file.yaml"],
        ["data.shards=x", "model.pool=median"],
    ):
        assert main(arguments) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ") and "Traceback" not in message


@pytest.mark.slow
def test_changed_options_are_named_when_a_run_goes_on(
    plain: Path, demo_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(plain, tmp_path / "run")
    train_here(small_config(demo_shards, tmp_path / "run", "train.max_steps=7", "optim.weight_decay=0.2"))
    message = capsys.readouterr().err
    assert "optim.weight_decay was 0.05" in message and "train.max_steps was 6" in message
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed=1", "seed was 0 and is 1"),
        *(
            pytest.param(*given, marks=pytest.mark.slow)
            for given in (
                ("train.global_batch=4", "train.global_batch was 8 and is 4"),
                ("data.num_frames=1", "data.num_frames was 2 and is 1"),
                ("model.drop_path=0.1", "model.drop_path was 0.0 and is 0.1"),
            )
        ),
        ("data.shards=resplit", "the data are not those it was trained on"),
    ],
)
def test_what_makes_another_run_is_refused_without_run_fork(
    plain: Path, demo_shards: Path, tmp_path: Path, change: str, message: str
) -> None:
    """Elsewhere the same shards are the same data; the same place with other splits is not."""
    shutil.copytree(plain, tmp_path / "run")
    shutil.copytree(demo_shards, tmp_path / "moved")
    common = ("train.max_steps=7",)
    if change == "data.shards=resplit":
        assert cli.main(["split", str(tmp_path / "moved"), "--protocol", "random", "--seed", "5"]) == 0
    else:
        common = (*common, change)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"{re.escape(message)}.*run.fork=true"):
        train_here(small_config(tmp_path / "moved", tmp_path / "run", *common))
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    train_here(small_config(tmp_path / "moved", tmp_path / "run", *common, "run.fork=true"))
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.slow
def test_a_run_may_begin_at_a_checkpoint_of_other_data(plain: Path, demo_shards: Path, tmp_path: Path) -> None:
    """Also when it is started again before it had a checkpoint of its own."""
    shutil.copytree(demo_shards, tmp_path / "other")
    assert cli.main(["split", str(tmp_path / "other"), "--protocol", "random", "--seed", "5"]) == 0
    begin = sorted((plain / "checkpoints").glob("step-*"))[-1]
    options = (f"resume={begin}", "train.max_steps=8", "seed=3")
    train_here(small_config(tmp_path / "other", tmp_path / "run", *options))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    train_here(small_config(tmp_path / "other", tmp_path / "run", *options))
    assert [record["step"] for record in records(tmp_path / "run")] == [7, 8]


@pytest.mark.slow
def test_shifted_dev_is_evaluated_beside_dev_and_may_choose(demo_shards: Path, tmp_path: Path) -> None:
    options = ("eval.shifted_dev=true", "eval.select_on=shifted", "eval.criterion=loss", "train.eval_every_epochs=0.5")
    train_here(small_config(demo_shards, tmp_path / "run", *options, "optim.lr=0.02"))
    dev, shifted = records(tmp_path / "run", "dev"), records(tmp_path / "run", "shifted")
    assert [record["step"] for record in dev] == [record["step"] for record in shifted] and len(dev) > 2
    assert all(one["loss"] != other["loss"] for one, other in zip(dev, shifted, strict=True))
    best = min(shifted, key=lambda record: record["loss"])
    assert (tmp_path / "run" / "checkpoints" / f"best-{best['step']:08d}").is_dir()
    state = folders.load(folders.list_steps(tmp_path / "run" / "checkpoints")[-1]).part("state", STORED_AS)
    assert state["best_loss"] == best["loss"] != min(record["loss"] for record in dev), "shifted dev chose, not dev"
    with pytest.raises(UserError, match="eval.select_on=worst needs eval.shifted_dev=true"):
        small_config(demo_shards, tmp_path / "run", "eval.select_on=worst")


def test_best_weights_are_those_the_dev_split_chose(demo_shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train_here(
        small_config(demo_shards, run_dir, "train.eval_every_epochs=0.34", "eval.criterion=loss", "optim.lr=0.02")
    )
    dev = records(run_dir, "dev")
    assert len(dev) >= 2
    best = min(dev, key=lambda record: record["loss"])
    (folder,) = (run_dir / "checkpoints").glob("best-*")
    assert int(folder.name.split("-")[1]) == best["step"]
    assert json.loads((folder / "checkpoint.json").read_text())["dev"]["loss"] == pytest.approx(best["loss"])


@pytest.mark.slow
def test_seed_changes_the_run(plain: Path, demo_shards: Path, tmp_path: Path) -> None:
    assert losses(run_again(plain, demo_shards, tmp_path, "seed=1")) != losses(plain)


def test_config_type() -> None:
    assert isinstance(Config(), Config)


@pytest.mark.slow
def test_options_of_the_optimizer_that_change_take_effect(
    demo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weight decay and betas are those of the command, not of the checkpoint; another optimizer is another run."""
    run, seen = tmp_path / "run", []
    usual = Updater.update

    def spied(self: Updater, *arguments: Any, **options: Any) -> Any:
        seen.append([(group["weight_decay"], group["betas"]) for group in self.optimizer.param_groups])
        return usual(self, *arguments, **options)

    train_here(small_config(demo_shards, run, "train.max_steps=2", "optim.weight_decay=0.1"))
    monkeypatch.setattr(Updater, "update", spied)
    train_here(small_config(demo_shards, run, "train.max_steps=4", "optim.weight_decay=0.3", "optim.beta1=0.8"))
    assert {decay for groups in seen for decay, _ in groups} == {0.0, 0.3}
    assert {betas[0] for groups in seen for _, betas in groups} == {0.8} and len(seen) == 2
    assert "optim.weight_decay was 0.1 when this run began and is 0.3" in capsys.readouterr().err
    for option in ("optim.name=sgd", "optim.layer_decay=0.7"):
        with pytest.raises(UserError, match=f"holds another run: {option.partition('=')[0]} was"):
            train_here(small_config(demo_shards, run, "train.max_steps=6", option))
    monkeypatch.undo()
    before = weights(run)
    train_here(small_config(demo_shards, run, "train.max_steps=6", "optim.name=sgd", "run.fork=true", "optim.lr=0"))
    assert "it starts without a history" in capsys.readouterr().err
    assert same_weights(weights(run), before), "with the checkpoint's weights"


@pytest.mark.slow
def test_training_ends_when_dev_does_not_become_better(demo_shards: Path, tmp_path: Path) -> None:
    """And continues to the verdict; the same command again finds it done."""
    run = tmp_path / "run"
    options = ("train.max_steps=60", "train.eval_every_epochs=0.5", "train.patience=2", "optim.lr=0")
    train_here(small_config(demo_shards, run, *options, "optim.warmup_steps=0"))
    assert len(records(run, "dev")) == 3 and records(run)[-1]["step"] < 10
    assert (run / "verdict.json").exists()
    train_here(small_config(demo_shards, run, *options, "optim.warmup_steps=0"))
    assert len(records(run, "dev")) == 3


@pytest.mark.slow
def test_checkpoints_by_the_clock(demo_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_here(small_config(demo_shards, run, "train.save_every_minutes=1e-6", "train.keep_last=100"))
    assert [int(path.name[5:]) for path in sorted((run / "checkpoints").glob("step-*"))] == [2, 4, 6]


@pytest.mark.slow
def test_a_second_command_is_refused(demo_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Ownership(run), pytest.raises(UserError, match=rf"{run} is being written by process {os.getpid()} on"):
        train_here(small_config(demo_shards, run))
    train_here(small_config(demo_shards, run))


@pytest.mark.slow
def test_an_average_warms_up(demo_shards: Path, tmp_path: Path) -> None:
    """After few updates it is not of the initial weights."""
    runs = {}
    for warmup in ("true", "false"):
        run = runs[warmup] = tmp_path / warmup
        train_here(small_config(demo_shards, run, "train.ema_decay=0.999", f"train.ema_warmup={warmup}"))
    distances = {}
    for warmup, run in runs.items():
        model, average = weights(run), weights(run, "ema")
        distances[warmup] = sum(float((model[name] - average[name]).abs().sum()) for name in model)
    assert distances["true"] < 0.5 * distances["false"]


@pytest.mark.slow
def test_one_frame_at_once(demo_shards: Path, tmp_path: Path) -> None:
    """Batch norm over a single value is refused with what to set; what needs none trains."""
    single = ("train.global_batch=1", "data.num_frames=1", "train.max_steps=2")
    train_here(small_config(demo_shards, tmp_path / "vit", *single))
    options = ("model.backbone=resnet18", "data.image_size=32")
    with pytest.raises(UserError, match="model.backbone=resnet18 cannot train on one frame at once .*data.num_frames"):
        train_here(small_config(demo_shards, tmp_path / "bn", *single, *options))
    train_here(small_config(demo_shards, tmp_path / "two", *single, *options, "data.num_frames=2"))


@pytest.mark.slow
def test_arithmetic_is_as_the_configuration_says(demo_shards: Path, tmp_path: Path) -> None:
    """Each key reaches torch, and the defaults take it back."""
    from livetrain.training.setup import _set_arithmetic

    def state() -> tuple[object, ...]:
        cudnn = torch.backends.cudnn
        determinism = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic
        return (*determinism, cudnn.benchmark, torch.get_float32_matmul_precision())

    keys = ("train.deterministic=true", "train.tf32=true", "train.cudnn_benchmark=true")
    expected = [(True, True, False, "highest"), (False, False, False, "high"), (False, False, True, "highest")]
    try:
        for key, wanted in zip(keys, expected, strict=True):
            _set_arithmetic(small_config(demo_shards, tmp_path, key))
            assert state() == wanted, key
    finally:
        _set_arithmetic(small_config(demo_shards, tmp_path))
    assert state() == (False, False, False, "highest")


def test_a_warm_up_longer_than_the_run_is_said(
    demo_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(small_config(demo_shards, tmp_path / "run", "optim.warmup_steps=500", "train.max_steps=4"))
    assert "optim.warmup_steps=500 in a run of 4 steps: it warms up over 2" in capsys.readouterr().err
    assert [record["lr"] for record in records(tmp_path / "run")][2] == pytest.approx(1e-3), "the peak"
