"""Opening a shard folder: what is in it, and clear words where it is none."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from livetrain.core.errors import UserError
from livetrain.data import Dataset, FetchError
from livetrain.data.clip_pictures import pictures_of


def test_splits_joined_by_plus(demo_shards: Path) -> None:
    dataset = Dataset.open(demo_shards)
    both = dataset.rows("dev+test")
    assert sorted([*dataset.rows("dev"), *dataset.rows("test")]) == both.tolist()
    with pytest.raises(UserError, match="in split 'devv'"):
        dataset.rows("test+devv")


def test_a_flipped_bit_is_seen_at_reading(demo_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_shards, tmp_path / "flipped")
    dataset = Dataset.open(tmp_path / "flipped")
    place = int(dataset.column("offset")[0] + dataset.column("size")[0] // 2)
    with (dataset.root / dataset.shard_name(0)).open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(FetchError, match="checksum"):
        dataset.video_bytes(0)
    assert dataset.video_bytes(1)


def test_bytes_are_the_original_videos(demo_videos: Path, demo_shards: Path) -> None:
    dataset = Dataset.open(demo_shards)
    assert len(dataset) == len(list((demo_videos / "videos").iterdir()))
    for row in range(len(dataset)):
        data = dataset.video_bytes(row)
        assert hashlib.sha256(data).hexdigest() == dataset.text("sha256", row)
        assert data == (demo_videos / "videos" / dataset.text("video", row)).read_bytes()


def test_splits_partition_the_rows(demo_shards: Path) -> None:
    dataset = Dataset.open(demo_shards)
    rows = np.concatenate([dataset.rows(split) for split in ("train", "dev", "test")])
    assert sorted(rows.tolist()) == list(range(len(dataset)))
    with pytest.raises(UserError, match="'trian'.*dev, test, train"):
        dataset.rows("trian")


def test_thumbnails_are_upright(demo_shards: Path) -> None:
    dataset = Dataset.open(demo_shards)
    rotation = dataset.column("rotation")
    turned = np.flatnonzero(rotation % 180 == 90)
    assert len(turned)
    for row in (0, int(turned[0])):
        picture = Image.open(io.BytesIO(pictures_of(dataset, row, (), shown_height=80)[0]))
        width, height = (int(dataset.column(name)[row]) for name in ("width", "height"))
        width, height = (height, width) if rotation[row] % 180 == 90 else (width, height)
        assert picture.height == 80 and abs(picture.width - 80 * width / height) <= 1


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="python -m shards build"):
        Dataset.open(tmp_path / "nowhere")


def test_other_format(demo_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_shards, tmp_path / "other")
    manifest = json.loads((tmp_path / "other" / "dataset.json").read_text())
    (tmp_path / "other" / "dataset.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        Dataset.open(tmp_path / "other")
    (tmp_path / "other" / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json cannot be read"):
        Dataset.open(tmp_path / "other")


def test_cut_and_missing_tars_are_fetch_errors(demo_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_shards, tmp_path / "cut")
    dataset = Dataset.open(tmp_path / "cut")
    last = len(dataset) - 1
    tar = tmp_path / "cut" / dataset.shard_name(last)
    tar.write_bytes(tar.read_bytes()[: int(dataset.column("offset")[last]) + 10])
    with pytest.raises(FetchError, match="early"):
        dataset.video_bytes(last)
    dataset.close()
    tar.unlink()
    with pytest.raises(FetchError, match="No such file"):
        dataset.video_bytes(last)
    dataset.close()
