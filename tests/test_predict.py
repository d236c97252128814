"""Prediction on raw videos: the scores of evaluation, a row for every file, and no label is looked at."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator

from livetrain import cli, load_model
from livetrain.config import load_config
from livetrain.core.errors import UserError
from livetrain.data import Dataset, isolated_decode
from livetrain.evaluation.evaluator import evaluate
from livetrain.inference import score_folder
from livetrain.inference.package import load, open_shards, write
from livetrain.inference.score_parts import Parts
from livetrain.inference.video_scorer import Prediction
from livetrain.verdict.scores import FAILED, Scores
from tests import crashing, ranks
from tests.ray_cluster import in_cluster
from tests.runs import forget_accelerator

REPO = Path(__file__).parent.parent


def scored_on_shards(run: Path, *overrides: str) -> Scores:
    """The test split's scores, by the evaluation pass."""
    forget_accelerator()
    config = load_config([run / "config.yaml"], overrides, warn=lambda line: None)
    dataset = Dataset.open(config.data.shards)
    trained = load(run, overrides)
    return evaluate(Accelerator(), config, dataset, config.data.test_split, trained.model).scores


@pytest.fixture(scope="module")
def packed(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(load(plain), tmp_path_factory.mktemp("packed") / "model")


@pytest.fixture(scope="module")
def folder(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine good videos and three broken ones, with a label file that nobody may read."""
    videos = tmp_path_factory.mktemp("videos")
    for path in sorted((demo_videos / "videos").glob("*.mp4"))[:9]:
        shutil.copy(path, videos)
    good = min(videos.glob("*.mp4"))
    (videos / "a_cut.mp4").write_bytes(good.read_bytes()[:4000])
    (videos / "m_empty.mp4").write_bytes(b"")
    (videos / "z_text.mp4").write_text("no video")
    (videos / "label.csv").mkdir()  # whoever opens it fails
    return videos


def run_predict(packed: Path, videos: Path, out: Path, *more: str) -> list[tuple[str, float]]:
    arguments = ["predict", "--checkpoint", str(packed), "--videos", str(videos), "--out", str(out), *more]
    assert cli.main(arguments) == 0
    return table(out)


def table(path: Path) -> list[tuple[str, float]]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["fname", "liveness_score" if path.name != "time_submission.csv" else "time"]
    return [(name, float(value)) for name, value in rows[1:]]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((), marks=pytest.mark.slow),
        ("eval.num_frames=3", "data.sampling=interval", "data.frame_interval_seconds=0.3", "data.fit=center"),
        pytest.param(("train.precision=bf16",), marks=pytest.mark.slow),
    ],
)
def test_raw_videos_score_as_the_same_videos_in_shards_to_the_bit(
    plain: Path, packed: Path, demo_videos: Path, overrides: tuple[str, ...]
) -> None:
    known = scored_on_shards(plain, *overrides)
    paths = [demo_videos / "videos" / name for name in known.video]
    for where in (plain, packed):
        got = load_model(where, *overrides, f"eval.batch_size={len(paths)}").predict(paths)
        if len(paths) <= 8:  # the batch of evaluation was padded to eight
            got = load_model(where, *overrides).predict([*paths, *paths[:1] * (8 - len(paths))])[: len(paths)]
        assert [item.p_live for item in got] == known.p_live.tolist()
        assert {item.num_frames for item in got} == set(known.num_frames.tolist())
    assert len(set(known.p_live.tolist())) > 1


def test_files_on_which_the_decoder_crashes_hangs_or_swells_have_a_row(
    packed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is named and gets the score of failures; all others are scored as without them."""
    good = sorted(path for path in folder.glob("*.mp4") if not path.name.startswith(("a_", "m_", "z_")))
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in good:
        shutil.copy(path, videos)
    reasons = {
        "crash_probe": "the decoder crashed",
        "crash_decode": "the decoder crashed",
        "hang_probe": "the decoder took longer than 3 s",
        "hang_decode": "the decoder took longer than 3 s",
        "swell_probe": "takes more than 6 GB of memory",
        "swell_decode": "takes more than 6 GB of memory",
    }
    for name in reasons:
        shutil.copy(good[0], videos / f"{name}.mp4")
    monkeypatch.setattr(isolated_decode, "work", crashing.work)
    monkeypatch.setattr(isolated_decode, "LIMIT_SECONDS", 3)
    rows = dict(run_predict(packed, videos, tmp_path / "out.csv", "predict.failed_score=0.125", "data.threads=4"))
    errors = capsys.readouterr().err
    for name, reason in reasons.items():
        assert rows.pop(f"{name}.mp4") == 0.125
        assert f"{name}.mp4 got 0.125" in errors and reason in errors
    monkeypatch.undo()
    alone = dict(run_predict(packed, folder, tmp_path / "alone.csv"))
    assert rows == {name: alone[name] for name in rows} and len(rows) == len(good)


def test_every_file_has_a_row_broken_ones_too(
    packed: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result" / "submission.csv"
    rows = dict(run_predict(packed, folder, out, "predict.failed_score=0.125", "--json", str(tmp_path / "all.json")))
    printed = capsys.readouterr()
    broken = ["a_cut.mp4", "m_empty.mp4", "z_text.mp4"]
    assert list(rows) == sorted(path.name for path in folder.glob("*.mp4"))
    assert {name: rows[name] for name in broken} == dict.fromkeys(broken, 0.125)
    assert "12 videos, 3 of them got no score" in printed.out
    assert "m_empty.mp4 got 0.125: empty file (0 bytes)" in printed.err and "a_cut.mp4 got 0.125: trunc" in printed.err
    times = dict(table(out.with_name("time_submission.csv")))
    assert list(times) == list(rows) and all(value > 0 for value in times.values())
    message = {Path(item["video"]).name: item for item in json.loads((tmp_path / "all.json").read_text())}
    assert {name for name, item in message.items() if item["status"] == "failed_to_acquire"} == set(broken)
    for name, item in message.items():
        assert item["p_live"] is None if name in broken else abs(item["p_live"] - rows[name]) < 1e-8
        assert times[name] == pytest.approx(1000 * item["seconds"], abs=1e-3)
    assert sorted(path.name for path in out.parent.iterdir()) == ["submission.csv", "time_submission.csv"]


def test_a_stopped_prediction_goes_on(
    packed: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run_predict(packed, folder, tmp_path / "whole.csv")
    out = tmp_path / "submission.csv"
    asked = score_folder.Asked(packed, folder, out, None, "name", False, ())
    names = [name for name, _ in whole]
    parts = Parts(out)

    def begun() -> None:
        """Two files are scored, as a prediction that was killed leaves it."""
        score_folder._begin(parts, asked, load_model(packed))
        for number in (1, 2):
            assert parts.unscored(number) == [names[number]]
            parts.add(number, [Prediction(names[number], 0.625, True, 0.5, 2, 0.5, "ok")])

    begun()
    os.utime(folder / names[2], (1, 1))  # another version of the file
    assert dict(run_predict(packed, folder, out)) == dict(whole) | {names[1]: 0.625}
    assert "1 of 12 videos are scored" in capsys.readouterr().err
    assert not parts.folder.exists()

    begun()
    other = ["eval.num_frames=1"]  # another question: nothing of it may be kept
    assert dict(run_predict(packed, folder, out, *other))[names[1]] != 0.625
    assert "options key=value: it is made again" in capsys.readouterr().err
    begun()
    assert run_predict(packed, folder, out, "--fresh") == whole


def test_a_table_in_parquet_has_all_that_is_known(packed: Path, folder: Path, tmp_path: Path) -> None:
    whole = run_predict(packed, folder, tmp_path / "out.csv")
    out = tmp_path / "parquet" / "scores.parquet"
    arguments = ["predict", "--checkpoint", str(packed), "--videos", str(folder), "--out", str(out)]
    assert cli.main(arguments) == 0
    rows = pq.read_table(out).to_pylist()
    assert [(row["fname"], float(f"{row['liveness_score']:.9g}")) for row in rows] == whole
    assert {row["fname"]: row["reason"] for row in rows if row["p_live"] is None}["m_empty.mp4"].startswith("empty")
    assert [path.name for path in out.parent.iterdir()] == ["scores.parquet"]


def test_two_ranks_write_the_same_table(packed: Path, folder: Path, tmp_path: Path) -> None:
    run_predict(packed, folder, tmp_path / "one.csv")
    out, log = tmp_path / "two.csv", tmp_path / "log"
    asked = ["--checkpoint", str(packed), "--videos", str(folder), "--out", str(out), "--processes", "2"]
    with ranks.start_script("livetrain.predict", asked, log=log) as started:
        assert started.wait() == [0, 0], log.read_text()
    assert out.read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert "predicting: 6/6" in log.read_text()  # the first of two had half of them


@pytest.mark.slow
def test_two_processes_write_the_same_table(packed: Path, folder: Path, tmp_path: Path) -> None:
    run_predict(packed, folder, tmp_path / "one.csv")
    out = tmp_path / "two.csv"
    command = [sys.executable, "-m", "livetrain.cli", "predict", "--checkpoint", packed, "--videos", folder]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [*map(str, command), "--out", str(out), "--processes", "2"],
        capture_output=True,
        text=True,
        cwd=REPO,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert "predicting: 6/6" in done.stderr  # the first of two had half of them


@pytest.mark.slow
def test_a_ray_cluster_writes_the_same_table(packed: Path, folder: Path, tmp_path: Path) -> None:
    run_predict(packed, folder, tmp_path / "here.csv")
    in_cluster("predict", packed, folder, tmp_path / "ray.csv")
    here, there = table(tmp_path / "here.csv"), table(tmp_path / "ray.csv")
    assert [name for name, _ in there] == [name for name, _ in here]
    # With other numbers of threads a convolution adds in another order.
    assert np.allclose([p for _, p in there], [p for _, p in here], atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.csv", "ray.csv", "time_submission.csv"]


def test_one_file_is_json(packed: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = folder / "id00_0_live.mp4"
    assert cli.main(["predict", "--checkpoint", str(packed), str(good)]) == 0
    printed = json.loads(capsys.readouterr().out)
    model = load_model(packed)
    prediction = model.predict(good)
    assert printed["p_live"] == prediction.p_live == printed["liveness_score"]
    assert printed["live"] == prediction.live == (prediction.p_live >= model.threshold)
    assert cli.main(["predict", "--checkpoint", str(packed), str(good), str(folder / "m_empty.mp4")]) == 0
    both = json.loads(capsys.readouterr().out)
    assert both[1]["p_live"] is None and both[1]["live"] is False and "empty file" in both[1]["reason"]
    assert cli.main(["predict", "--checkpoint", str(packed), str(good), str(folder / "absent.mp4")]) == 2
    said = capsys.readouterr()
    assert "absent.mp4: no such file" in said.err and not said.out, "a typing mistake is no score"


def test_decoding_processes_start_while_the_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import of torch takes as long as theirs."""
    begun: list[str] = []

    def scorer_of(*_: object) -> None:
        begun.append("model")
        raise UserError("no such model")

    monkeypatch.setattr(isolated_decode, "prepare", lambda: begun.append("processes"))
    monkeypatch.setattr(score_folder, "scorer_of", scorer_of)
    assert cli.main(["predict", "--checkpoint", "model", "a.mp4"]) == 2
    assert begun == ["processes", "model"]


def test_a_folder_of_nothing_but_broken_files_is_no_reason_to_stop(packed: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(40):
        (videos / f"{number:02d}.mp4").write_bytes(b"")
    assert run_predict(packed, videos, tmp_path / "out.csv") == [(f"{n:02d}.mp4", 0.0) for n in range(40)]


def test_a_video_that_fails_only_where_it_is_decoded_is_told_with_its_reason(
    packed: Path, folder: Path, tmp_path: Path
) -> None:
    """Packets that are whole but hold garbage: probing by packets does not see it."""
    data = bytearray((folder / "id00_0_live.mp4").read_bytes())
    start = data.index(b"mdat") + 4 + len(data) // 3
    rng = np.random.default_rng(0)
    data[start : start + len(data) // 3] = rng.integers(0, 256, len(data) // 3, dtype=np.uint8).tobytes()
    (tmp_path / "noise.mp4").write_bytes(data)
    found = load_model(packed, "eval.num_frames=8").predict(tmp_path / "noise.mp4")
    assert found.status == "failed_to_acquire" and found.reason and found.p_live is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--videos", "x", "--out", "o.csv"], "--checkpoint is missing"),
        (["--checkpoint", "PACKED"], "name video files, or a folder"),
        (["--checkpoint", "PACKED", "--videos", "x"], "--videos needs --out"),
        (["--checkpoint", "PACKED", "--videos", "no/such", "--out", "o.csv"], "no/such: no such folder"),
        (["--checkpoint", "no/such", "clip.mp4"], "no/such does not exist"),
        (["--checkpoint", "PACKED", "clip.mp4", "evil.num_frames=3"], "unknown key evil.num_frames"),
        (["--checkpoint", "PACKED", "--video", "x"], "unknown option --video"),
        (["--checkpoint", "PACKED", "clip.mp4", "--engine", "ray"], "--engine ray is for folders"),
        (["--checkpoint", "PACKED", "--videos", "x", "--out", "o", "--ray-address", "h:1"], "without --engine ray"),
        (["--checkpoint", "PACKED", "--videos", "x", "--out", "time_submission.csv"], "choose another"),
    ],
)
def test_mistakes(arguments: list[str], says: str, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", *(str(packed) if item == "PACKED" else item for item in arguments)]) == 2
    printed = capsys.readouterr().err
    assert says in printed and "Traceback" not in printed


def test_two_files_of_one_name_need_their_paths(
    packed: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("a", "b"):
        (tmp_path / "videos" / part).mkdir(parents=True)
        shutil.copy(folder / "id00_0_live.mp4", tmp_path / "videos" / part / "clip.mp4")
    arguments = ["predict", "--checkpoint", str(packed), "--videos", str(tmp_path / "videos"), "--out"]
    assert cli.main([*arguments, str(tmp_path / "out.csv")]) == 2
    assert "two videos are called clip.mp4" in capsys.readouterr().err
    rows = run_predict(packed, tmp_path / "videos", tmp_path / "out.csv", "--names", "path")
    assert [name for name, _ in rows] == ["a/clip.mp4", "b/clip.mp4"]


def test_a_score_that_is_nan_is_a_failure_with_its_reason(
    plain: Path, demo_videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(plain)
    with torch.no_grad():
        model.groups[0][0].trained.model.head.bias.fill_(float("nan"))
    found = model.predict(demo_videos / "videos" / "id00_0_live.mp4")
    assert (found.p_live, found.live, found.status) == (None, False, FAILED) and "NaN" in found.reason


def test_an_evaluation_counts_and_names_the_clips_whose_score_is_nan(
    plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_accelerator()
    trained = load(plain)

    def spoil(_module: object, _clips: object, out: tuple) -> tuple:
        return (out[0].index_fill(0, torch.tensor([0]), math.nan), *out[1:])

    trained.model.register_forward_hook(spoil)
    dataset = open_shards(trained.config, plain)
    found = evaluate(Accelerator(), trained.config, dataset, "test", trained.model).scores
    failed = found.key[~found.scored].tolist()
    assert failed and found.scored.any() and not np.isnan(found.p_live[found.scored]).any()
    assert f"the score of {failed[0]} is NaN or Inf" in capsys.readouterr().err
