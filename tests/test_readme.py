"""What the README and the Makefile promise exists: targets, files, config keys, options, verbs, dependencies."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from livetrain import predict
from livetrain.config import known_keys, load_config
from livetrain.inference import ablate, ensemble, package, soup
from livetrain.inference.export import main as export
from livetrain.jobs import doctor, submit, sweep
from livetrain.planner import main as planner
from shards import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Made by a run, or the reader's own.
NOT_IN_THE_REPOSITORY = ("runs/", "data/", "scores/", "checkpoints/", "videos/")


def commands() -> list[list[str]]:
    """The indented command lines of the README, comments removed, as words."""
    lines = re.findall(r"^    (\S.*)$", README, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def assignments() -> set[str]:
    """Every `section.key=value` and top-level `key=value` the README writes, in code."""
    code = " ".join([" ".join(words) for words in commands()] + re.findall(r"`([^`\n]+)`", README))
    return set(re.findall(r"(?<![-\w])([a-z_]+(?:\.[a-z_0-9]+)?=[\w./-]+)", code)) - {"key=value"}


def mentioned_paths() -> set[str]:
    code = re.findall(r"`([^`\n]+)`", README) + [word for words in commands() for word in words]
    words = {word for text in code for word in text.split()}
    return {word for word in words if re.fullmatch(r"\.?[\w-]+/[\w./-]*", word) and not word.startswith(".venv")}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_make_targets_exist() -> None:
    wanted = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"quickstart", "test", "test-slow", "quality"} <= wanted <= make_targets()


@pytest.mark.parametrize("path", sorted(mentioned_paths()))
def test_files_exist(path: str) -> None:
    assert path.startswith(NOT_IN_THE_REPOSITORY) or (ROOT / path).exists()


def test_config_keys_parse() -> None:
    assert len(assignments()) > 10
    for item in sorted(assignments()):
        load_config([], ["data.shards=x", item], warn=lambda line: None)


def test_config_keys_in_the_text_exist() -> None:
    sections = {key.split(".")[0] for key in known_keys() if "." in key}
    named = re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_0-9]+)`", README)
    assert named and set(named) - {"verdict.json"} <= set(known_keys())


def test_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("build", "import", "split", "faces"):
        cli.main([verb, "--help"])
    modules = (submit, sweep, doctor, predict, package, export, planner, ensemble, soup, ablate)
    help_text = " ".join([capsys.readouterr().out, *(str(module.__doc__) for module in modules)])
    shards_commands = " ".join(" ".join(words) for words in commands() if "shards" in words)
    options = set(re.findall(r"`(--[a-z-]+)", README)) | set(re.findall(r" (--[a-z-]+)", shards_commands))
    assert {"--videos", "--columns", "--store"} <= options
    assert [option for option in options if option not in help_text] == []
    cli.main(["--help"])
    verbs = {words[words.index("shards") + 1] for words in commands() if "shards" in words}
    top = capsys.readouterr().out
    assert verbs and all(f"python -m shards {verb}" in top for verb in verbs)


def test_livetrain_verbs_exist() -> None:
    verbs = {words[1] for words in commands() if words and words[0].endswith("bin/livetrain")}
    source = (ROOT / "livetrain" / "cli.py").read_text(encoding="utf-8")
    assert verbs and all(f'"{verb}"' in source for verb in verbs)


def dependencies() -> set[str]:
    """The names of all packages that pyproject.toml asks for, the extras' too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = sum(project["optional-dependencies"].values(), project["dependencies"])
    return {re.split(r"[=<>~;\[ ]", item)[0] for item in required} - {"livetrain"}  # dev takes in the other extras


def test_every_dependency_has_a_reason() -> None:
    table = README.split("## Dependencies")[1]
    reasons = {name for row in re.findall(r"^\| ([\w, -]+) \|", table, re.MULTILINE) for name in row.split(", ")}
    names = dependencies()
    assert names - reasons == set()
    assert reasons - names == {"package"}


def test_quickstart_config_parses_without_a_warning() -> None:
    warnings: list[str] = []
    config = load_config([ROOT / "configs" / "quickstart.yaml"], [], warn=warnings.append)
    assert warnings == [] and config.run_dir == "runs/quickstart"


def test_makefile_runs_what_it_says() -> None:
    """`make -n quickstart`: demo, build, train with the quickstart's files, and the report's path last."""
    command = ["make", "-n", "-B", "--no-print-directory", "quickstart"]
    # Under `make test` the outer make's flags would reach this one.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    plan = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    lines = plan.strip().splitlines()
    steps = ["setup.sh", "livetrain demo", "shards build", "livetrain/train.py configs/quickstart.yaml"]
    assert [step for line in lines for step in steps if step in line] == steps
    assert lines[-1] == "echo runs/quickstart/report.html"
    config = load_config([ROOT / "configs" / "quickstart.yaml"], [], warn=lambda line: None)
    assert f"--out {config.data.shards} " in plan + " "


def test_every_dependency_is_locked_to_one_version_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    lines = [line for line in lock.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+-]+", line) for line in lines)
    locked = {re.sub(r"[._]", "-", line.split("==")[0].lower()) for line in lines}
    assert len(locked) == len(lines)
    assert {name.lower() for name in dependencies()} <= locked


def test_set_up_names_an_option_that_it_does_not_know() -> None:
    """Before it installs anything."""
    done = subprocess.run([ROOT / "launch" / "setup.sh", "--extras", "bench"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "setup: unknown option --extras; there are --no-dev and --extra NAME\n"
