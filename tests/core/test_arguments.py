"""Command lines: no abbreviations, and errors that name the closest flag or choice."""

from __future__ import annotations

from pathlib import Path

import pytest

from livetrain import cli
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError


def make() -> Parser:
    parser = Parser("demo", "Help.")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--store", choices=("original", "frames"), default="original")
    parser.add_argument("--out", type=Path)
    return parser


def test_options_and_files_in_any_order() -> None:
    options = make().parse(["a", "--store", "frames", "b", "--out", "c"])
    assert ([str(path) for path in options.files], options.store, str(options.out)) == (["a", "b"], "frames", "c")


def test_the_rest_is_kept_for_the_configuration() -> None:
    parser = Parser("demo")
    parser.add_argument("--out")
    options, rest = parser.parse_some(["a.yaml", "--out", "x", "optim.lr=1"])
    assert (options.out, rest) == ("x", ["a.yaml", "optim.lr=1"])
    with pytest.raises(UserError, match="unknown option --ouch; did you mean --out?"):
        parser.parse_some(["a.yaml", "--ouch", "x"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--stor", "frames"], "livetrain demo: unknown option --stor; did you mean --store?"),
        (["--stor=frames"], "unknown option --stor; did you mean --store?"),
        (["--xyzzy"], "unknown option --xyzzy; `livetrain demo --help` lists them"),
        (["--store", "frame"], "did you mean frames?"),
        (["--out"], "argument --out: expected one argument"),
    ],
)
def test_mistakes_name_the_closest(arguments: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        make().parse(arguments)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["shards", "verify", "x", "--thoroug"], "shards verify: unknown option --thoroug; did you mean --thorough?"),
        (["shards", "bild"], "did you mean build?"),
        (["shards", "split", "x", "--protocol", "kfld"], "did you mean kfold?"),
        (["plan", "--gpu", "3"], "livetrain plan: unknown option --gpu; did you mean --gpus?"),
        (["doctor", "--jason"], "unknown option --jason; did you mean --json?"),
    ],
)
def test_verbs_use_them(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_every_verb_and_its_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in cli.VERBS)
    assert "--frames-per-second" in script and "--gpus-per-node" in script and "--evaluate-on" in script


def test_the_home_directory_also_where_a_shell_leaves_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert make().parse(["--out=~/shards", "~/a.csv", "b~/c"]).out == Path("/home/ann/shards")
    assert make().parse(["~/a.csv", "b~/c"]).files == [Path("/home/ann/a.csv"), Path("b~/c")]
    _, rest = Parser("demo").parse_some(["run_dir=~/run", "name=a=~/b", "name=~bob", "name=~"])
    assert rest == ["run_dir=/home/ann/run", "name=a=~/b", "name=~bob", "name=~"]
    assert make().parse(["--out=~"]).out == Path("/home/ann")
