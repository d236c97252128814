"""metrics.jsonl: nothing lost, nothing doubled, torn lines mended. W&B: beside it, and never in its way."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.figure
import pytest
import wandb
from PIL import Image

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.jobs import doctor_checks
from livetrain.tracking.metrics_log import MetricsLog, read_metrics
from livetrain.tracking.wandb_run import Wandb, wandb_host, wandb_mode


def record(step: int, kind: str = "train", **figures: float) -> dict:
    return {"kind": kind, "step": step, "epoch": step / 10, **figures}


def test_a_run_that_goes_on_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, is_new=True)
    for step in (10, 20, 30):
        assert log.write(record(step, loss=1.0))
    assert log.write(record(30, "dev", eer=0.1))
    again = MetricsLog(path, is_new=False)
    assert not again.write(record(20, loss=1.0)) and not again.write(record(30, loss=1.0))
    assert not again.write(record(30, "dev", eer=0.1)) and again.write(record(40, loss=1.0))
    assert [(r["kind"], r["step"]) for r in read_metrics(path)] == [
        ("train", 10),
        ("train", 20),
        ("train", 30),
        ("dev", 30),
        ("train", 40),
    ]


def test_a_torn_last_line_is_cut_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path, is_new=True).write(record(10, loss=1.0))
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    log = MetricsLog(path, is_new=False)
    assert log.write(record(20, loss=2.0))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20]


def test_a_fresh_start_forgets_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path, is_new=True).write(record(10))
    assert MetricsLog(path, is_new=True).write(record(5))
    assert [r["step"] for r in read_metrics(path)] == [5]


def test_figures_that_are_no_numbers_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path, is_new=True).write(record(1, loss=math.nan, grad_norm=math.inf))
    assert read_metrics(path)[0]["loss"] is None and "NaN" not in path.read_text()


@pytest.fixture
def wandb_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """W&B without anything of this machine's; call it when what it reads has changed."""
    wandb.teardown()  # it forgets its service, which it names in the environment too
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield wandb.teardown
    wandb.teardown()


def test_auto_is_what_wandb_itself_makes_of_this_machine(
    wandb_of_nobody: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mode(**environment: str) -> str:
        wandb_of_nobody()
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return wandb_mode("auto")

    key = "x" * 40
    assert mode() == "offline" and wandb_mode("disabled") == "disabled"
    assert mode(WANDB_API_KEY=key) == "online"
    assert mode(WANDB_API_KEY=key, WANDB_MODE="offline") == "offline"
    assert (
        mode(WANDB_API_KEY=key, WANDB_MODE="disabled") == mode(WANDB_API_KEY=key, WANDB_DISABLED="true") == "disabled"
    )
    usual = wandb_host()
    (tmp_path / "netrc").write_text(f"machine {usual} login user password {key}\n")
    assert mode() == "online"
    assert mode(WANDB_BASE_URL="https://wandb.example.com") == "offline", "the key is of another server"
    # `wandb login --host https://wandb.example.com`
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "settings").write_text("[default]\nbase_url = https://wandb.example.com\n")
    assert mode() == "offline" and wandb_host() == "wandb.example.com"
    (tmp_path / "netrc").write_text(f"machine wandb.example.com login user password {key}\n")
    assert mode() == "online"


def test_half_a_key_hurts_no_run(
    wandb_of_nobody: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    wandb_of_nobody()
    with pytest.raises(UserError, match="W&B does not start: .*tracking.wandb=offline"):
        wandb_mode("auto")
    warnings: list[str] = []
    config = Config()
    config.tracking.wandb = "auto"
    Wandb(config, tmp_path / "run", warnings.append).finish()
    assert len(warnings) == 1 and warnings[0].startswith("warning: W&B failed (UserError: W&B does not start")
    assert doctor_checks.check_wandb().level == "warn"


def pictures(key: str) -> list[bytes]:
    if key == "gone":
        return []
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, format="JPEG")
    return [buffer.getvalue()]


def test_offline_run_is_written_with_curves_figures_and_worst_clips(tmp_path: Path) -> None:
    config = Config(name="tracked")
    config.tracking.wandb = "offline"
    warnings: list[str] = []
    tracker = Wandb(config, tmp_path, warnings.append)
    tracker.log(record(10, loss=0.5))
    worst = [{"key": key, "p_live": 0.9, "label": 0.0, "attack_type": "print", "subject": "g"} for key in ("a", "gone")]
    tables = {"slices": (["value", "rate"], [["phone", 0.5], ["print", None]])}
    tracker.log_verdict(10, {"auc": 0.9}, {"roc": matplotlib.figure.Figure()}, tables, worst, pictures)
    tracker.finish()
    assert warnings == []
    folders = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 1 and list(folders[0].glob("run-*.wandb"))
    media = folders[0] / "files" / "media"
    (clips,), (slices,) = (list(media.rglob(f"*{name}*.table.json")) for name in ("worst_clips", "slices"))
    assert [row[1] for row in json.loads(clips.read_text())["data"]] == ["a", "gone"]
    assert json.loads(slices.read_text())["data"] == [["phone", 0.5], ["print", None]]
    assert list(media.rglob("*roc*.png")) and list(media.rglob("*.png"))


def test_a_failing_wandb_is_told_once_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def fail(**_: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(wandb, "init", fail)
    warnings: list[str] = []
    tracker = Wandb(Config(), tmp_path, warnings.append)
    tracker.log(record(1, loss=0.1))
    tracker.finish()
    assert len(warnings) == 1 and "no route" in warnings[0] and "continues without" in warnings[0]


def test_disabled_starts_nothing(tmp_path: Path) -> None:
    config = Config()
    config.tracking.wandb = "disabled"
    tracker = Wandb(config, tmp_path, print)
    tracker.log(record(1))
    assert not list(tmp_path.iterdir())


class Remote:
    """A W&B run that is online and has lines up to a step."""

    offline = False

    def __init__(self, last: int | None) -> None:
        self.summary = {} if last is None else {"step": last}
        self.lines: list[int] = []

    def log(self, figures: dict) -> None:
        self.lines.append(figures["step"])


@pytest.mark.parametrize(("last", "sent"), [(None, [10, 20, 30]), (20, [30]), (30, [])])
def test_lines_that_a_dead_node_did_not_send_are_sent_again(last: int | None, sent: list[int], tmp_path: Path) -> None:
    config = Config()
    config.tracking.wandb = "disabled"
    wandb = Wandb(config, tmp_path, lambda line: None)
    wandb._run = Remote(last)
    wandb.send_missing([record(step, loss=1.0) for step in (10, 20, 30)])
    assert wandb._run.lines == sent


def test_a_run_that_is_stopped_is_shown_as_preempted(tmp_path: Path) -> None:
    config, marked = Config(), []
    config.tracking.wandb = "disabled"
    wandb = Wandb(config, tmp_path, lambda line: None)
    wandb.mark_preempting()  # without a W&B run, nothing
    wandb._run = Remote(None)
    wandb._run.mark_preempting = lambda: marked.append(True)
    wandb.mark_preempting()
    assert marked == [True]
