"""Several shard folders as one data set: names apart, people apart, the right bytes, and domains to choose by."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from livetrain.config import Config, DataConfig, load_config
from livetrain.core.errors import UserError
from livetrain.data import Dataset, plan
from livetrain.data.mixture import BLOCK
from livetrain.data.plan import Samples
from shards import cli
from tests.shards.clips import note_changes


@pytest.fixture(scope="module")
def folders(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The demo shards under two names: two data sets whose people have the same names."""
    root = tmp_path_factory.mktemp("sources")
    return [Path(shutil.copytree(demo_shards, root / name)) for name in ("casia", "msu")]


@pytest.fixture(scope="module")
def both(folders: list[Path]) -> Dataset:
    return Dataset.of(DataConfig(sources=[str(folder) for folder in folders]))


def test_rows_follow_each_other(both: Dataset, folders: list[Path]) -> None:
    one = Dataset.open(folders[0])
    n = len(one)
    assert len(both) == 2 * n and both.domains == ["casia", "msu"] and one.domains == [""]
    assert both.rows("train").tolist() == [*one.rows("train"), *(n + one.rows("train"))]
    assert (both.column("num_frames") == np.tile(one.column("num_frames"), 2)).all()
    for row in (0, n - 1):
        for first, name in ((0, "casia"), (n, "msu")):
            assert both.video_bytes(first + row) == one.video_bytes(row)
            assert both.text("key", first + row) == f"{name}/{one.text('key', row)}"
            assert both.text("video", first + row) == f"{name}/{one.text('video', row)}"
            assert both.text("subject", first + row) == f"{name}/{one.text('subject', row)}"
            assert both.shard_path(first + row) == folders[name == "msu"] / one.shard_name(row)
            assert both.row_of(both.text("key", first + row)) == first + row
    assert both.row_of(one.text("key", 0)) is None and both.row_of("msu/nothing") is None
    every = both.rows("train")
    assert both.num_subjects(every) == 2 * one.num_subjects(one.rows("train"))
    assert both.manifest["num_samples"] == 2 * n and len(both.manifest["shards"]) == 2 * len(one.manifest["shards"])
    both.prefetch(every.astype(np.int64))
    both.close()


def test_domains_come_equally_often(both: Dataset) -> None:
    """Of one domain all of the training clips, of the other the live ones alone."""
    config = load_config([], ["data.shards=x", "data.balance=domain"], warn=lambda line: None)
    n, live = len(both) // 2, both.column("label") >= 0.5
    samples = Samples.of_training(both, config)
    few = Dataset(both.shard_sets, both.columns.filter(pa.array((np.arange(2 * n) < n) | live)))
    uneven = Samples.of_training(few, config)
    for found, dataset in ((samples, both), (uneven, few)):
        rows = found.rows[found.at(np.arange(BLOCK), 0)[1]]
        assert Counter(dataset.text("domain", int(row)) for row in rows) == {"casia": BLOCK // 2, "msu": BLOCK // 2}
    assert np.ptp(np.bincount(uneven.rows < n)) > 0, "they are not equally many"


def test_classes_of_each_domain_come_equally_often(both: Dataset) -> None:
    config = load_config([], ["data.shards=x", "data.balance=domain_class"], warn=lambda line: None)
    samples = Samples.of_training(both, config)
    rows = samples.rows[samples.at(np.arange(BLOCK), 0)[1]]
    live = both.column("label")[rows] >= 0.5
    found = Counter((both.text("domain", int(row)), bool(of)) for row, of in zip(rows, live, strict=True))
    assert found == {(name, of): BLOCK // 4 for name in ("casia", "msu") for of in (True, False)}


def test_domains_choose_rows(both: Dataset) -> None:
    n = len(both) // 2
    train, test = both.rows("train"), both.rows("test")
    assert both.rows("train@msu").tolist() == [row for row in train if row >= n]
    assert both.rows("train+test@-msu").tolist() == sorted(row for row in [*train, *test] if row < n)
    assert both.rows("all@casia").tolist() == list(range(n))
    for split, message in (
        ("train@siw", "no domain 'siw'; it has: casia, msu"),
        ("train@-casia+msu", "no sample .* split 'train' of 'train@-casia"),
        ("trian@msu", "split 'trian' of 'trian@msu'"),
    ):
        with pytest.raises(UserError, match=message):
            both.rows(split)


def test_large_ones_have_one_index_file_for_all_processes(
    both: Dataset,
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("livetrain.data.joined_index.FEW_ROWS", 1)
    config = DataConfig(sources=[str(folder) for folder in folders], cache_dir=str(tmp_path / "cache"))
    mapped = Dataset.of(config)
    assert mapped.columns.equals(both.columns) and mapped.fingerprint == both.fingerprint
    (file,) = (tmp_path / "cache").glob("*index.arrow")
    written = file.stat().st_mtime_ns, file.stat().st_ino
    maps = Path("/proc/self/maps").read_text()
    assert f"{file}\n" in maps
    assert np.shares_memory(mapped.column("size"), mapped.columns["size"].chunk(0).to_numpy()), "a view of the file"
    assert Dataset.of(config).columns.equals(both.columns)
    assert file.stat().st_ino == written[1], "the second one takes it"

    config.cache_dir = str(folders[0] / "dataset.json")  # cannot be a folder
    assert Dataset.of(config).columns.equals(both.columns)
    assert "set data.cache_dir to a folder" in capsys.readouterr().err


def test_rejected_videos_keep_their_domain(folders: list[Path], tmp_path: Path) -> None:
    parts = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders]
    for part, split in zip(parts, ("dev", "test"), strict=True):
        with (part / "rejected.csv").open("a") as file:
            file.write(f"bad.mp4,0,print,p1,,{split},empty\n")
        note_changes(part)
    dataset = Dataset.of(DataConfig(sources=[str(part) for part in parts]))
    assert [(row["video"], row["subject"], row["domain"]) for row in dataset.rejected("dev")] == [
        ("casia/bad.mp4", "casia/p1", "casia")
    ]
    assert [row["video"] for row in dataset.rejected("all@msu")] == ["msu/bad.mp4"]
    assert dataset.rejected("dev@msu") == [] and len(dataset.rejected()) == 2


def test_folders_of_one_name_and_mixed_domains_are_refused(folders: list[Path], tmp_path: Path) -> None:
    again = shutil.copytree(folders[0], tmp_path / "casia")
    with pytest.raises(UserError, match="two folders are called 'casia'"):
        Dataset.of(DataConfig(sources=[str(folders[0]), str(again)]))


def test_weights_reach_the_plan(both: Dataset) -> None:
    config = Config()
    config.data.sources, config.data.weights, config.train.global_batch = ["casia", "msu"], [3.0, 1.0], 40
    samples = plan.Samples.of_training(both, config)
    rows = np.concatenate([plan.plan_train(samples, config, step, 0, 0, 1).rows for step in range(63)])
    assert (rows < len(both) // 2).sum() == 3 * (rows >= len(both) // 2).sum()
    assert set(rows.tolist()) == set(both.rows("train").tolist())
    config.data.train_split = "train@-casia"
    rows = plan.plan_train(plan.Samples.of_training(both, config), config, 0, 0, 0, 1).rows
    assert (rows >= len(both) // 2).all(), "a source without a sample in the split has no share"


def test_a_folder_of_several_domains_names_its_people_apart(demo_videos: Path, tmp_path: Path) -> None:
    lines = (demo_videos / "label.csv").read_text().splitlines()
    text = "\n".join([f"{lines[0]},domain", *(f"{line},d{i % 2}" for i, line in enumerate(lines[1:]))])
    (tmp_path / "label.csv").write_text(text)
    build = ["build", "--videos", demo_videos / "videos", "--labels", tmp_path / "label.csv", "--out", tmp_path / "s"]
    assert cli.main([*map(str, build), "--workers", "1", "--check", "probe"]) == 0
    dataset = Dataset.open(tmp_path / "s")
    assert dataset.domains == ["d0", "d1"] and dataset.text("subject", 0).startswith(dataset.text("domain", 0) + "/")
    assert "/" not in dataset.text("key", 0), "one folder: its keys are its own"
