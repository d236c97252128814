"""verify: silent on what was built, and naming what is damaged, down to any single byte."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from livetrain.core.files import file_sha256
from shards import cli
from shards.format import index_table, manifest
from shards.verify import verify
from tests.shards import clips


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    clips.corpus(folder / "c", clips_per_person=2)
    assert clips.build(folder / "c", folder / "original", "--shard-mb", 0.02) == 0
    assert clips.build(folder / "c", folder / "frames", "--shard-mb", 0.02, "--store", "frames", "--num-frames", 2) == 0
    assert clips.build(folder / "c", folder / "transcode", "--shard-mb", 0.02, "--store", "transcode") == 0
    assert clips.build(folder / "c", folder / "remux", "--shard-mb", 0.02, "--store", "remux") == 0
    return folder


@pytest.fixture(params=["original", "remux", "frames", "transcode"])
def shards(request: pytest.FixtureRequest, pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine / request.param, tmp_path / "s"))


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def run(shards: Path) -> int:
    return cli.main(["verify", str(shards), "--workers", "1"])


def test_a_whole_folder(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(shards) == 0
    assert capsys.readouterr().out == f"{shards}: all as it was built\n"
    assert cli.main(["verify", str(shards), "--workers", "2"]) == 0
    assert cli.main(["verify", str(shards), "--workers", "2", "--thorough"]) == 0


def test_a_flipped_byte_of_a_sample_names_shard_sample_and_video(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = index_table.read(shards / "index.arrow").to_pylist()[3]
    name = f"shard-{row['shard']:06d}.tar"
    flip(shards / name, row["offset"] + row["size"] - 9)
    assert run(shards) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{name}: SHA-256 differs from when it was built"
    assert lines[1] == f"{name}: sample {row['key']}: its media differ from what was stored of {row['video']}"
    assert lines[2:] == [f"{shards}: 2 findings of damage"]


@pytest.mark.parametrize(
    "shards",
    ["original", "frames", *(pytest.param(store, marks=pytest.mark.slow) for store in ("remux", "transcode"))],
    indirect=True,
)
def test_a_flipped_byte_anywhere_in_any_file_is_found_and_the_file_named(shards: Path) -> None:
    choice = random.Random(0)
    for path in sorted(shards.iterdir()):
        whole = path.read_bytes()
        for _ in range(6):
            flip(path, choice.randrange(len(whole)))
            quick, thorough = verify(shards), verify(shards, thorough=True)
            assert quick and all(line.startswith(path.name) for line in [*quick, *thorough])
            assert quick == thorough
            path.write_bytes(whole)
    assert verify(shards) == []


@pytest.mark.parametrize("name", ["shard-000001.tar", "shard-000001.idx", "index.arrow", "rejected.csv"])
def test_a_missing_or_short_file(shards: Path, name: str) -> None:
    (shards / name).write_bytes((shards / name).read_bytes()[:-1000])
    assert verify(shards)[0].startswith(f"{name}: ")
    (shards / name).unlink()
    assert verify(shards) == [f"{name}: missing"]


def test_a_shard_that_does_not_belong(shards: Path) -> None:
    shutil.copy(shards / "shard-000000.tar", shards / "shard-000099.tar")
    assert verify(shards) == ["shard-000099.tar: not part of this build"]


def test_a_thorough_check_finds_an_index_that_disagrees_with_its_tar_though_all_checksums_fit(shards: Path) -> None:
    rows = index_table.read(shards / "index.arrow").to_pylist()
    rows[0]["offset"] += 512
    rows[1]["num_frames"] += 1
    rows[2]["domain"] = "elsewhere"
    index_table.write(shards / "index.arrow", rows)
    content = manifest.read(shards)
    content["files"]["index.arrow"] = file_sha256(shards / "index.arrow")
    manifest.write(shards, content)
    assert verify(shards) == []
    found = verify(shards, thorough=True)
    assert [line.split(": ", 2)[1] for line in found] == [f"sample {rows[i]['key']}" for i in range(3)]
    assert "not where the index says" in found[0]
    assert "differ in num_frames" in found[1] and "differ in domain" in found[2]


def test_a_folder_without_a_finished_build_is_a_mistake_not_damage(
    tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shards / "dataset.json").unlink()
    for folder in (tmp_path / "nowhere", shards):
        assert run(folder) == 2
        assert "dataset.json: no such file" in capsys.readouterr().err
