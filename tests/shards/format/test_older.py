"""Shard folders of format 5, where people were called groups: read, verified, split again and added to as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256
from livetrain.data import Dataset
from shards import cli, existing
from shards.format import index_table, manifest
from shards.verify import verify
from tests.shards import clips

OLD = {new: old for old, new in {**manifest.RENAMED, **index_table.RENAMED}.items()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = clips.corpus(tmp_path_factory.mktemp("c") / "c")
    (corpus / "videos" / "bad.mp4").write_bytes(b"no video")
    with (corpus / "label.csv").open("a") as file:
        file.write("bad.mp4,0,print,ann\n")
    out = tmp_path_factory.mktemp("s") / "s"
    assert clips.build(corpus, out) == 0
    return out


@pytest.fixture
def old(built: Path, tmp_path: Path) -> Path:
    """The folder as version 0.1 wrote it."""
    folder = Path(shutil.copytree(built, tmp_path / "old"))
    content = manifest.read(folder)
    table = index_table.read(folder / index_table.FILE_NAME)
    table = table.rename_columns([OLD.get(name, name) for name in table.column_names])
    table = table.replace_schema_metadata({"livetrain_index": "5"})
    with pa.OSFile(str(folder / "old"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    (folder / "old").rename(folder / index_table.FILE_NAME)  # not into the file: it is mapped
    rejected = folder / "rejected.csv"
    rejected.write_text(rejected.read_text().replace("subject", "group", 1))
    for shard in content["shards"]:
        tar = folder / shard["name"]
        assert b'"subject":' in tar.read_bytes()
        tar.write_bytes(tar.read_bytes().replace(b'"subject":', b'"group"  :'))  # the same length, and still JSON
        shard["sha256"] = file_sha256(tar)
    content = {OLD.get(name, name): value for name, value in content.items()} | {"format": 5}
    content["splits"] = {
        name: {OLD.get(key, key): value for key, value in counts.items()} for name, counts in content["splits"].items()
    }
    content["files"] |= {name: file_sha256(folder / name) for name in (index_table.FILE_NAME, "rejected.csv")}
    manifest.write(folder, content)
    return folder


def test_training_finds_people_and_rejected_videos(built: Path, old: Path) -> None:
    was, dataset = Dataset.open(built), Dataset.open(old)
    rows = dataset.rows("all")
    assert set(dataset.texts("subject", rows)) == set(was.texts("subject", rows)) != {""}
    assert dataset.manifest["has_subjects"] and dataset.manifest["splits"] == was.manifest["splits"]
    assert dataset.rejected() == was.rejected() and dataset.rejected()[0]["subject"] == "ann"


def test_it_is_verified_down_to_the_samples(old: Path) -> None:
    assert verify(old, thorough=True) == []


def test_its_splits_are_kept(built: Path, old: Path) -> None:
    for name in ("", index_table.FILE_NAME):
        was, kept = existing.read(built / name), existing.read(old / name)
        assert kept.people == was.people and len(kept.people) > 1


def test_a_new_split_brings_it_up_to_date(old: Path) -> None:
    assert cli.main(["split", str(old), "--protocol", "kfold", "--folds", "3"]) == 0
    assert (manifest.read(old)["format"], verify(old, thorough=True)) == (manifest.FORMAT, [])
    assert (old / "rejected.csv").read_text().startswith("video,label,attack_type,subject")


def test_other_formats_are_refused_by_number(built: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "four"))
    manifest.write(folder, manifest.read(folder) | {"format": 4})
    for read in (manifest.read, Dataset.open):
        with pytest.raises(UserError, match=r"format 4, this version reads 5 and 6; build"):
            read(folder)
