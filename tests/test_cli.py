"""`livetrain VERB`: what each verb does, and how it ends when asked for something that cannot be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from livetrain import cli, evaluate, train
from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.inference import package
from livetrain.jobs import launch
from livetrain.verdict import metrics, scores, threshold
from tests.runs import forget_accelerator

REPO = Path(__file__).parent.parent


def livetrain(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "livetrain.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=600)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["help"]):
        assert cli.main(arguments) == 0
        assert "livetrain VERB" in capsys.readouterr().out
    assert cli.main(["train", "--help"]) == 0
    assert "data.shards" in capsys.readouterr().out
    assert cli.main(["evaluate", "--help"]) == 0
    assert "livetrain/evaluate.py" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"livetrain {metadata.version('livetrain')}\n"


def test_every_verbs_help_comes_without_torch() -> None:
    """All in one process; importing torch takes seconds."""
    code = """
import contextlib, io, sys
from livetrain import cli
for verb in cli.VERBS:
    for flag in ("--help", "-h"):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            assert cli.main([verb, flag]) == 0, verb
        assert len(said.getvalue()) > 100, (verb, said.getvalue())
    assert "torch" not in sys.modules, verb
assert cli.main(["trian"]) == 2 and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=REPO)
    assert done.returncode == 0, done.stderr
    assert "did you mean train?" in done.stderr


def test_every_verb_has_a_function() -> None:
    for name, verb in cli.VERBS.items():
        assert callable(cli._function(verb.runs)), name
        assert not verb.help or f"livetrain {name}" in cli.docstring(verb.help), f"{verb.help} does not show `{name}`"
    listed = cli.overview()
    assert all(f"  {name} " in listed for name in cli.VERBS)


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m livetrain --help | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=REPO, timeout=60)
    assert done.stdout == "livetrain VERB …\n0\n" and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "unknown verb 'trian'; did you mean train"),
        (["xyzzy"], "unknown verb 'xyzzy'; `livetrain --help` lists them"),
        (["report"], "livetrain report: the following arguments are required: RUN"),
        (["report", "no/such/run"], "no/such/run has no verdict.json; `livetrain evaluate"),
        (["shards", "verify", "no/such/folder"], "no/such/folder"),
        (["soup"], "livetrain soup: the following arguments are required: --out"),
        (["sweep"], "name the sweep first"),
        (["cancel"], "name the runs to cancel"),
        (["train", "--config_file", "absent.yaml", "x=1"], "--config_file absent.yaml: no such file"),
    ],
)
def test_mistakes(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert says in printed.err and "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "configs/absent.yaml"], "configs/absent.yaml"),
        (["train", "configs/nuaa.yaml", "optim.lrr=1"], "optim.lr"),
        (["evaluate", "no/such/run"], "no/such/run is not a run directory"),
        (["evaluate"], "name the run directory first"),
    ],
)
def test_mistakes_in_the_scripts(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = {"train": train, "evaluate": evaluate}[arguments[0]]
    assert script.main(arguments[1:]) == 2
    printed = capsys.readouterr()
    assert says in printed.err and "Traceback" not in printed.err


@pytest.mark.slow
def test_a_mistake_through_the_launcher_has_no_traceback_either() -> None:
    done = livetrain("train", "configs/nuaa.yaml", "optim.lrr=1")
    assert done.returncode == 2, done.stderr
    assert "optim.lr" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["a.yaml", "x=1"], 0),
        (["--config_file", "launch/one_gpu.yaml", "a.yaml", "x=1"], 2),
        (["--num_processes=2", "--multi_gpu", "a.yaml"], 2),
        (["--multi_gpu", "--num_processes", "2", "optim.lr=1"], 3),
        (["runs/quick", "checkpoint=a"], 0),
        (["--config_file", "launch/one_gpu.yaml"], 2),
    ],
)
def test_the_launchers_options_come_first(arguments: list[str], options: int) -> None:
    assert launch.split(arguments) == (arguments[:options], arguments[options:])


def test_evaluate_and_report_make_again_what_training_made(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    for name in ("scores/dev.csv", "scores/test.csv", "verdict.json", "report.html"):
        (run / name).unlink()
    forget_accelerator()
    # The folder that is named is written to, not the run_dir in its config.yaml, which is where it was copied from.
    assert evaluate.main([str(run)]) == 0  # what the launcher starts
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(run / "report.html")
    assert (run / "verdict.json").read_text() == (plain / "verdict.json").read_text()
    for split in ("dev", "test"):
        first, again = (scores.read(folder / "scores" / f"{split}.csv") for folder in (plain, run))
        for column in set(scores.COLUMNS) - {"seconds"}:
            assert getattr(first, column).tolist() == getattr(again, column).tolist(), column

    (run / "report.html").unlink()
    assert cli.main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").stat().st_size > 10_000


def test_evaluate_takes_a_named_checkpoint_and_refuses_a_damaged_one(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    newest = max((run / "checkpoints").glob("step-*"))
    arguments = [str(run), f"checkpoint={newest}"]
    record = (run / "verdict.json").read_text()
    forget_accelerator()
    assert evaluate.main(arguments) == 0
    (made,) = (run / "evaluations").glob(f"*{newest.name}*/verdict.json")
    assert json.loads(made.read_text())["test"]["num_clips"] > 0
    assert (run / "verdict.json").read_text() == record, "the run's own record stays"
    weights = next(newest.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    capsys.readouterr()
    assert evaluate.main(arguments) == 2
    printed = capsys.readouterr()
    assert str(newest) in printed.err and "Traceback" not in printed.err


@pytest.mark.slow
def test_another_way_of_scoring_gets_its_own_threshold_and_leaves_the_record(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    best = max((run / "checkpoints").glob("best-*"))
    record = {path: path.read_bytes() for path in (run / "verdict.json", best / "threshold.json", run / "config.yaml")}
    package.load(run, ["eval.aggregate=max"])
    assert "eval.aggregate=model, not max" in capsys.readouterr().err
    assert package.load(run, ["eval.aggregate=max"]).threshold is None
    forget_accelerator()
    assert evaluate.main([str(run), "eval.aggregate=max"]) == 0
    (made,) = (run / "evaluations").iterdir()
    assert made.name.startswith("aggregate-max-")
    chosen, own = threshold.read(made), threshold.read(best)
    assert chosen is not None and own is not None and chosen.scoring["eval.aggregate"] == "max"
    dev = scores.read(made / "scores" / "dev.csv")
    assert chosen.threshold == metrics.eer_threshold(dev.live, dev.p_live)
    assert json.loads((made / "verdict.json").read_text())["threshold_from"]["scoring"] == chosen.scoring
    assert {path: path.read_bytes() for path in record} == record, "the run's own record stays"
    assert package.load(run).threshold == own.threshold
    assert package.load(run, ["eval.aggregate=max"]).threshold == chosen.threshold, "found where evaluate stored it"
    assert evaluate.main([str(run), "eval.aggregate=max", f"run_dir={run}"]) == 2
    assert "holds the run's own verdict" in capsys.readouterr().err


def test_keys_that_make_another_model_are_refused(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(plain), "model.pool=max"]) == 2
    printed = capsys.readouterr().err
    assert "model.pool=max makes another model" in printed and "eval.aggregate" in printed
    with pytest.raises(UserError, match="model.pool=max makes another model"):
        package.load(plain, ["model.pool=max"])
    made = package.write(package.load(plain), tmp_path / "package")
    with pytest.raises(UserError, match="model.pool=max makes another model"):
        package.load(made, ["model.pool=max"])


@pytest.mark.parametrize(
    ("key", "value"), [("shards", "b"), ("sources", ["b"]), ("dev_split", "test"), ("fold", "1/3"), ("leave_out", "x")]
)
def test_a_dev_split_is_the_runs_own_by_all_that_says_where_data_are(key: str, value: object) -> None:
    trained, config = Config(), Config()
    assert evaluate.differing(trained, config) == {}
    setattr(config.data, key, value)
    assert key in evaluate.DATA and evaluate.differing(trained, config) == {f"data.{key}": value}
    names = {evaluate.name_of({"data.shards": path}) for path in ("/a/x", "/b/x")}
    assert len(names) == 2 and all(name.startswith("shards-x-") for name in names)


def test_the_help_of_train_imports_no_omegaconf() -> None:
    """A third of a second; help is under half of one."""
    code = "import sys; from livetrain import cli; cli.main(['train', '--help']); sys.exit('omegaconf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, cwd=REPO).returncode == 0


def test_a_dry_run_is_asked_for_as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(launch, "launch", lambda script, arguments: asked.append(arguments) or 0)
    assert cli.main(["train", "--num_processes", "2", "a.yaml", "--dry-run", "seed=1"]) == 0
    assert cli.main(["train", "a.yaml"]) == 0
    assert asked == [["--num_processes", "2", "a.yaml", "seed=1", "dry_run=true"], ["a.yaml"]]
