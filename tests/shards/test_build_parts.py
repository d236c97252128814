"""`shards build --part I/N` and `shards merge`: the folder of one machine, byte for byte, from several."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from shards import build_parts, cli
from shards.format import manifest
from shards.shard_writer import BUILD_FOLDER

Build = Callable[..., int]


@pytest.fixture
def build(demo_videos: Path, tmp_path: Path) -> Build:
    """Build the demo corpus into tmp_path/parts, with further flags; the exit code."""
    videos, labels = demo_videos / "videos", demo_videos / "label.csv"
    common = ["build", "--videos", str(videos), "--labels", str(labels), "--out", str(tmp_path / "parts")]

    def run(*flags: str) -> int:
        return cli.main([*common, "--shard-mb", "0.5", "--workers", "1", "--check", "probe", *flags])

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != manifest.FILE_NAME}


def test_parts_make_what_one_machine_makes(
    build: Build, demo_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / "parts", tmp_path / "whole"
    assert build("--part", "0/3") == build("--part", "1/3") == 0
    assert "12 videos are probed; 12 of other parts are not yet" in capsys.readouterr().out
    assert cli.main(["merge", str(out)]) == 2
    assert "12 of 36 videos are not probed; run all parts again" in capsys.readouterr().err
    assert build("--part", "2/3") == 0, "all are probed now: it writes"
    assert not (out / manifest.FILE_NAME).exists()
    assert build("--part", "0/3") == 0
    written = capsys.readouterr().out
    assert "shards are written. When all are: shards merge" in written
    assert cli.main(["merge", str(out)]) == 2
    assert "shards are not written; run all parts again" in capsys.readouterr().err
    assert build("--part=1/3") == 0
    assert cli.main(["merge", str(out)]) == 0
    assert not (out / BUILD_FOLDER).exists()
    alone = ["build", "--videos", str(demo_videos / "videos"), "--labels", str(demo_videos / "label.csv")]
    assert cli.main([*alone, "--out", str(whole), "--shard-mb", "0.5", "--check", "probe"]) == 0
    assert content(out) == content(whole)
    assert manifest.read(out) == manifest.read(whole)
    capsys.readouterr()
    assert build("--part", "0/3") == 0
    assert "is built already" in capsys.readouterr().out


def test_merge_finds_what_parts_named_from_another_folder(
    demo_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo_videos)
    flags = ["--shard-mb", "0.5", "--workers", "1", "--check", "probe", "--part", "0/1"]
    out = tmp_path / "parts"
    assert cli.main(["build", "--videos", "videos", "--labels", "label.csv", "--out", str(out), *flags]) == 0
    monkeypatch.chdir(tmp_path)
    assert cli.main(["merge", "parts"]) == 0
    assert cli.main(["verify", "parts"]) == 0


def test_one_machine_may_finish_what_parts_began(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in range(2):
        assert build("--part", f"{part}/2") == 0
    capsys.readouterr()
    assert build() == 0
    assert "continuing a stopped build" in capsys.readouterr().err
    assert cli.main(["verify", str(tmp_path / "parts")]) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--part", "3/3"], "--part 3/3: write I/N with I from 0 to N-1"),
        (["--part", "1"], "write I/N"),
        (["--part", "0/2", "--append"], "--part does not go with --append or --overwrite"),
        (["--part", "0/2", "--seed", "1"], "holds a build of other options (seed)"),
    ],
)
def test_what_is_no_part_is_an_error(
    flags: list[str], words: str, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("--part", "0/2") == 0
    assert build(*flags) == 2
    assert words in capsys.readouterr().err


def test_a_part_is_done_by_one_process_and_none_while_another_build_writes(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("--part", "0/2") == 0
    state = tmp_path / "parts" / BUILD_FOLDER
    with (state / "part-1-of-2.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert build("--part", "1/2") == 2
        assert "another process works on this part" in capsys.readouterr().err
    with (state / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert build("--part", "1/2") == 0, "parts run side by side"
        assert build() == 2 and cli.main(["merge", str(tmp_path / "parts")]) == 2
        said = capsys.readouterr().err
        assert "another build is writing there" in said and "a part of the build is under way" in said
    with (state / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert build("--part", "0/2") == 2
        assert "another build is writing there" in capsys.readouterr().err


def test_merge_without_parts_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / BUILD_FOLDER).mkdir()
    assert cli.main(["merge", str(tmp_path)]) == 2
    assert "holds no parts of a build" in capsys.readouterr().err
    (tmp_path / BUILD_FOLDER / build_parts.ASKED).write_text("[")
    assert cli.main(["merge", str(tmp_path)]) == 2
    assert "asked.json: damaged" in capsys.readouterr().err
