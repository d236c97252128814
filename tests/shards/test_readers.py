"""Built shards read back with the public readers: `webdataset`, and DALI's `fn.readers.webdataset` (with .idx)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import wds2idx

from shards.format import index_table
from tests.shards import clips

STORES = {
    "video": (),
    "frames": ("--store", "frames", "--num-frames", 3),
    "transcode": ("--store", "transcode", "--gop", 2),
}


@pytest.fixture(scope="module", params=STORES)
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    clips.corpus(folder / "c")
    # The frames of one small clip need about 10 kB: more room, for as few shards.
    shard_mb = 0.05 if request.param == "frames" else 0.02
    assert clips.build(folder / "c", folder / "s", "--shard-mb", shard_mb, *STORES[request.param]) == 0
    assert len(tars(folder / "s")) > 1
    return folder / "s"


def tars(shards: Path) -> list[Path]:
    return [shards / shard["name"] for shard in json.loads((shards / "dataset.json").read_text())["shards"]]


def stored_media(shards: Path) -> Iterator[tuple[dict, list[bytes]]]:
    """Each row of the index with its media, cut out of the tar by the index's offsets."""
    names = tars(shards)
    for row in index_table.read(shards / "index.arrow").to_pylist():
        data, offset = names[row["shard"]].read_bytes(), row["offset"]
        media = []
        for size in row["frame_sizes"] or [row["size"]]:
            media.append(data[offset : offset + size])
            offset += -(-size // 512) * 512 + 512
        yield row, media


def test_the_parquet_sidecar_has_the_rows_of_the_index(shards: Path) -> None:
    rows = pyarrow.parquet.read_table(shards / "index.parquet").to_pylist()
    assert rows and rows == index_table.read(shards / "index.arrow").to_pylist()


def test_webdataset_reads_every_sample(shards: Path) -> None:
    import webdataset

    samples = list(webdataset.WebDataset([str(tar) for tar in tars(shards)], shardshuffle=False))
    expected = list(stored_media(shards))
    assert [sample["__key__"] for sample in samples] == [row["key"] for row, _ in expected]
    for sample, (row, media) in zip(samples, expected, strict=True):
        extensions = [name for name in sample if not name.startswith("_") and name != "json"]
        assert [sample[name] for name in extensions] == media
        description = json.loads(sample["json"])
        for name in (
            "label",
            "domain",
            "subject",
            "attack_type",
            "split",
            "video",
            "num_frames",
            "width",
            "height",
            "rotation",
            "codec",
        ):
            assert description[name] == row[name]
        assert description["fps"] == pytest.approx(row["fps"], rel=1e-5)


def test_dali_reads_every_sample_through_the_idx(shards: Path) -> None:
    dali = pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn

    expected = list(stored_media(shards))
    is_frames = expected[0][0]["store"] == "frames"
    ext = ["000.jpg", "001.jpg", "002.jpg", "json"] if is_frames else ["mp4;mkv;avi;mov", "json"]

    @dali.pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():
        return tuple(
            fn.readers.webdataset(
                paths=[str(tar) for tar in tars(shards)],
                index_paths=[str(tar.with_suffix(".idx")) for tar in tars(shards)],
                ext=ext,
                missing_component_behavior="error",
            )
        )

    pipe = pipeline()
    pipe.build()
    assert sum(pipe.epoch_size().values()) == len(expected)
    for row, media in expected:
        *payloads, description = (output.as_array()[0].tobytes() for output in pipe.run())
        assert payloads == media
        assert json.loads(description)["video"] == row["video"]


def test_idx_files_are_those_of_wds2idx(shards: Path, tmp_path: Path) -> None:
    for tar in tars(shards):
        creator = wds2idx.IndexCreator(str(tar), str(tmp_path / "x.idx"), verbose=False)
        creator.create_index()
        creator.close()
        assert (tmp_path / "x.idx").read_bytes() == tar.with_suffix(".idx").read_bytes()


def test_tars_are_plain_ustar_without_a_trace_of_the_machine(shards: Path) -> None:
    import tarfile

    for path in tars(shards):
        data = path.read_bytes()
        with tarfile.open(path, "r:") as archive:
            members = archive.getmembers()
        for member in members:
            assert data[member.offset + 257 : member.offset + 265] == b"ustar\x0000"
            assert member.type == tarfile.REGTYPE and member.offset_data == member.offset + 512
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == 0o644


def test_decoded_frames_of_the_shard_are_those_of_the_index(shards: Path) -> None:
    import io

    import av

    for row, media in stored_media(shards):
        frames = []
        for data in media:
            with av.open(io.BytesIO(data)) as container:
                frames += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == row["num_frames"]
        assert {frame.shape for frame in frames} == {(row["height"], row["width"], 3)}
        # The clips grow darker in their bright corner, so display order shows.
        corner = [float(np.mean(frame[: row["height"] // 4, : row["width"] // 4])) for frame in frames]
        assert corner == sorted(corner, reverse=True)


def test_the_command_gives_memory_back_that_arrow_would_keep() -> None:
    code = """
from shards import cli
assert cli.main(["verify", "nowhere"]) == 2
import pyarrow
assert pyarrow.default_memory_pool().backend_name == "system"
"""
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
