"""Ensembles: weights that dev chose, one table and one predictor of several runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from livetrain import cli, load_model
from livetrain.config import load_config, to_yaml
from livetrain.core.errors import UserError
from livetrain.inference import ensemble
from livetrain.verdict import scores
from livetrain.verdict.scores import Scores
from tests.runs import forget_accelerator


def some_scores(p_live: list[float | None], first: int = 0) -> Scores:
    rows = [
        {
            "video": f"{number}.mp4",
            "key": str(number),
            "p_live": p,
            "label": number % 2,
            "subject": f"g{number}",
            "attack_type": "live" if number % 2 else "print",
            "num_frames": 2,
            "seconds": 0.5,
            "status": "ok" if p is not None else "failed_to_acquire",
        }
        for number, p in enumerate(p_live, start=first)
    ]
    return Scores.from_rows(rows)


def log_loss(p: np.ndarray, live: np.ndarray) -> float:
    return float(-np.where(live, np.log(p), np.log(1 - p)).mean())


def test_fitted_weights_have_the_least_log_loss() -> None:
    random = np.random.default_rng(0)
    live = random.random(400) < 0.5
    p = np.stack(
        [np.clip(np.where(live, 0.7, 0.3) + noise * random.normal(size=400), 0.01, 0.99) for noise in (0.2, 0.3)]
    )
    weights = ensemble.fit_weights(p, live)
    grid = np.linspace(0, 1, 1001)
    best = grid[np.argmin([log_loss(share * p[0] + (1 - share) * p[1], live) for share in grid])]
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert weights[0] == pytest.approx(best, abs=2e-3) and 0.5 < best < 1


def test_a_member_that_knows_nothing_gets_no_weight() -> None:
    random = np.random.default_rng(0)
    live = random.random(300) < 0.5
    good, noise = np.clip(np.where(live, 0.9, 0.1) + 0.05 * random.normal(size=300), 0.01, 0.99), random.random(300)
    weights = ensemble.fit_weights(np.stack([noise, good]), live)
    assert weights[0] == 0 and weights[1] == 1


def test_a_video_that_one_member_could_not_score_has_no_score() -> None:
    found = ensemble.combine([some_scores([0.2, None, 0.6]), some_scores([0.4, 0.5, 0.8])], np.array([0.25, 0.75]))
    assert found.status.tolist() == ["ok", "failed_to_acquire", "ok"]
    assert found.p_live[[0, 2]] == pytest.approx([0.35, 0.75]) and found.seconds.tolist() == [1.0] * 3
    one = ensemble.combine([some_scores([0.2, None]), some_scores([0.4, 0.5])], np.array([0.0, 1.0]))
    assert one.p_live.tolist() == [0.4, 0.5]  # who has no weight has no say


def test_folds_pool_their_dev_videos() -> None:
    first, second = some_scores([0.1, 0.9]), some_scores([0.2, 0.8], first=2)
    dev, weights = ensemble.dev_and_weights(["a", "b"], [first, second], "fitted")
    assert dev.key.tolist() == ["0", "1", "2", "3"] and weights.tolist() == [0.5, 0.5]
    with pytest.raises(UserError, match="a and b have different dev videos that overlap"):
        ensemble.dev_and_weights(["a", "b"], [some_scores([0.1, 0.9]), some_scores([0.1, 0.9], first=1)], "fitted")


def test_an_ensemble_predicts_what_its_scores_say(
    plain: Path, variant: Path, demo_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "both"
    assert cli.main(["ensemble", str(plain), str(variant), "--out", str(out), "--weights", "uniform"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"0.5000  {plain}"
    test = scores.read(out / "scores" / "test.csv")
    single = [scores.read(run / "scores" / "test.csv").p_live for run in (plain, variant)]
    assert test.p_live == pytest.approx((single[0] + single[1]) / 2) and not np.allclose(*single)
    model = load_model(out)
    found = model.predict([demo_videos / "videos" / name for name in test.video])
    assert [item.p_live for item in found] == pytest.approx(test.p_live.tolist(), abs=1e-6)
    assert model.threshold == json.loads((out / "verdict.json").read_text())["threshold"]
    assert len(model.groups) == 1  # decoded once for both
    assert cli.main(["report", str(out)]) == 0 and (out / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_predict_makes_the_ensemble_it_is_asked_for(
    plain: Path, variant: Path, demo_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v").mkdir()
    for name in ("id00_0_live.mp4", "id01_0_print.mp4"):
        (tmp_path / "v" / name).symlink_to(demo_videos / "videos" / name)
    out = tmp_path / "submission.csv"
    asked = ["predict", "--videos", str(tmp_path / "v"), "--out", str(out), "--ensemble", str(plain)]
    assert cli.main([*asked, str(variant)]) == 0
    assert json.loads((tmp_path / "submission.csv.ensemble" / "ensemble.json").read_text())["weights"] == "fitted"
    model = load_model(tmp_path / "submission.csv.ensemble")
    expected = [model.predict(path).p_live for path in sorted((tmp_path / "v").iterdir())]
    lines = out.read_text().splitlines()[1:]
    assert [float(line.split(",")[1]) for line in lines] == pytest.approx(expected, abs=1e-7)
    out.unlink()
    assert cli.main([*asked, str(variant), "eval.num_frames=1"]) == 0, "the same is taken again"
    capsys.readouterr()
    for more, says in (
        ([str(plain)], "is of other runs"),
        ([str(variant), "--checkpoint", str(plain)], "choose one"),
    ):
        assert cli.main([*asked, *more]) == 2
        assert says in capsys.readouterr().err
    file = tmp_path / "submission.csv.ensemble" / "ensemble.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"sources_sha256": {**content["sources_sha256"], str(variant): "0" * 64}}))
    assert cli.main([*asked, str(variant)]) == 2
    assert f"is of other weights of {variant}" in capsys.readouterr().err, "a run that was trained again since"
    assert cli.main(["predict", "--ensemble", str(plain), str(variant)]) == 2
    assert "needs --videos DIR and --out FILE" in capsys.readouterr().err


@pytest.mark.slow
def test_members_that_see_other_clips_are_read_side_by_side(
    plain: Path, variant: Path, demo_videos: Path, tmp_path: Path
) -> None:
    ensemble.build([plain, variant], tmp_path / "both", "uniform")
    file = tmp_path / "both" / "members" / "01" / "livetrain.json"
    content = json.loads(file.read_text())
    content["config"]["eval"]["num_frames"] = 5
    file.write_text(json.dumps(content))
    video = demo_videos / "videos" / "id00_0_live.mp4"
    both = load_model(tmp_path / "both")
    single = [load_model(plain).predict(video), load_model(variant, "eval.num_frames=5").predict(video)]
    assert len(both.groups) == 2
    assert both.predict(video).p_live == pytest.approx(sum(item.p_live for item in single) / 2, abs=1e-6)
    broken = both.predict([tmp_path / "absent.mp4", video])
    assert broken[0].p_live is None and broken[1].p_live == pytest.approx(both.predict(video).p_live, abs=1e-6)


@pytest.mark.slow
def test_a_checkpoint_is_scored_first(plain: Path, tmp_path: Path) -> None:
    forget_accelerator()
    dev, test = ensemble.scored(max((plain / "checkpoints").glob("step-*")))
    known = [scores.read(plain / "scores" / f"{split}.csv") for split in ("dev", "test")]
    assert sorted(dev.key) == sorted(known[0].key) and sorted(test.key) == sorted(known[1].key)
    assert dev.p_live == pytest.approx(known[0].p_live, abs=1e-6) and test.scored.all()


def test_mistakes(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in [
        ([str(plain), "--out", str(tmp_path / "x")], "needs two runs or more"),
        ([str(plain), str(tmp_path), "--out", str(tmp_path / "x")], "livetrain evaluate RUN"),
        ([str(plain), str(plain), "--out", str(plain)], "holds something already"),
    ]:
        assert cli.main(["ensemble", *arguments]) == 2
        assert says in capsys.readouterr().err


def test_a_mean_of_scores_is_a_score_whatever_the_weights_round_to(tmp_path: Path) -> None:
    weights = np.array([0.1, 0.2, 0.7000000000000002])
    assert weights.sum() > 1
    found = ensemble.combine([some_scores([1.0, 0.0])] * 3, weights)
    scores.write(tmp_path / "dev.csv", found)
    assert scores.read(tmp_path / "dev.csv").p_live.tolist() == [1.0, 0.0]


@pytest.mark.slow
def test_members_agree_on_how_the_threshold_is_chosen(plain: Path, variant: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(variant, other)
    config = load_config([other / "config.yaml"], ["verdict.criterion=max_apcer", "verdict.max_apcer=0.3"])
    (other / "config.yaml").write_text(to_yaml(config))
    with pytest.raises(UserError, match=r"different verdict\.criterion \(eer and max_apcer\)"):
        ensemble.build([plain, other], tmp_path / "both")
    same = tmp_path / "same"
    shutil.copytree(other, same)
    ensemble.build([other, same], tmp_path / "both")
    chosen = json.loads((tmp_path / "both" / "verdict.json").read_text())["threshold_from"]
    assert (chosen["criterion"], chosen["max_apcer"]) == ("max_apcer", 0.3)
