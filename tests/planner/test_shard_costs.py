"""`livetrain plan DIR`: decoders, reasons and costs of a folder of many kinds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from livetrain import cli
from livetrain.data import Dataset
from livetrain.planner.rates import RATES, frames_per_second
from livetrain.planner.shard_costs import routes
from shards.format import index_table
from tests.shards import clips
from tests.shards.kinds import KINDS

NAMES = (
    "h264.mp4", "h264_cropped.mp4", "h264_b_frames.avi", "h264_interlaced.mp4", "h264_10bit.mp4", "vp9.webm",
    "h264.mkv", "h264_2x2.mp4",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "videos").mkdir()
    for name in NAMES:
        (folder / "videos" / name).write_bytes(KINDS[name].data)
    rows = [{"fname": name, "liveness_score": number % 2} for number, name in enumerate(NAMES)]
    clips.write_labels(folder / "label.csv", rows, ("fname", "liveness_score"))
    for store in ("original", "remux", "frames"):
        assert clips.build(folder, folder / store, "--store", store) == 0
    return folder


def test_lanes_and_reasons(folder: Path) -> None:
    found = {
        (route.decoder, route.why.partition(":")[0]): route.num_clips
        for route in routes(Dataset.open(folder / "original"), 8)
    }
    assert found == {
        ("nvdec", ""): 2,
        ("nvdec", "coded size is not the shown one"): 1,
        ("cpu", "vp9"): 1,
        ("cpu", "yuv420p10le"): 1,
        ("cpu", "interlaced"): 1,
        ("cpu", "times do not tell its frames"): 1,
        ("cpu", "smaller than NVDEC takes"): 1,
    }
    assert sum(found.values()) == len(NAMES)
    found = {
        (route.decoder, route.why) for route in routes(Dataset.open(folder / "remux"), 8) if route.store == "remux"
    }
    assert not any("coded size" in why for _, why in found)
    (route,) = routes(Dataset.open(folder / "frames"), 8)
    assert (route.decoder, route.num_clips) == ("image", len(NAMES))


def test_the_verb(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(folder / "original"), "--frames", "16"]) == 0
    message = capsys.readouterr().out
    assert "16 frames of each" in message and "ms of a GPU" in message and "ms of a core" in message
    assert cli.main(["plan", str(folder)]) == 2
    assert "holds no finished shards" in capsys.readouterr().err


def test_wide_colours_are_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / "original", tmp_path / "s")
    rows = index_table.read(tmp_path / "s" / "index.arrow").to_pylist()
    assert cli.main(["plan", str(tmp_path / "s")]) == 0 and "tone-mapped" not in capsys.readouterr().out
    for row, transfer in zip(rows, ("hlg", "pq", "hlg"), strict=False):
        row |= {"matrix": "bt2020", "transfer": transfer}
    index_table.write(tmp_path / "s" / "index.arrow", rows)
    clips.note_changes(tmp_path / "s")
    assert cli.main(["plan", str(tmp_path / "s")]) == 0
    assert "3 clips are BT.2020, 1 clips are PQ, 2 clips are HLG: not tone-mapped" in capsys.readouterr().out


def test_measured_sizes_cost_what_was_measured() -> None:
    for rate in RATES:
        found = frames_per_second(rate.decoder, rate.codec, rate.width, rate.height)
        assert found == rate.frames_per_second
    assert frames_per_second("nvdec", "h264", 3840, 2160 + 16) == pytest.approx(302 / 4, rel=0.01)
    assert frames_per_second("image", "jpeg", 64, 48) == 22831, "one size was measured"


@pytest.mark.parametrize(("decoder", "least"), [("nvdec", 1.1), ("cpu", 1.4)])
def test_small_transcodes_cost_less_than_originals(decoder: str, least: float) -> None:
    """Transcodes of 256 lines took 32 ms a clip of 8 frames on a core, the originals of 640x480 75 ms."""
    original, small = (frames_per_second(decoder, "h264", *size) for size in ((640, 480), (336, 256)))
    assert least < small / original < 2.4
    assert frames_per_second(decoder, "h264", 64, 48) > small, "and never endless"
    assert frames_per_second(decoder, "h264", 64, 48) < 3 * original
