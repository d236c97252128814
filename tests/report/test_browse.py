"""`livetrain browse`: the page shows the batch that training gets, and says how it was made."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from livetrain import cli
from livetrain.config import load_config
from livetrain.core.world import World
from livetrain.data import Dataset, train_loader
from livetrain.report import browse
from tests.data.test_loader import damage

OPTIONS = ("data.image_size=48", "data.num_frames=6", "train.global_batch=6", "augment.preset=strong", "seed=3")


def test_the_page_shows_what_training_gets(demo_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert cli.main(["browse", str(demo_shards), *OPTIONS, "--step", "7", "--clips", "4", "--out", str(out)]) == 0
    text = out.read_text()
    config = load_config([], [f"data.shards={demo_shards}", *OPTIONS], warn=lambda line: None)
    options = {
        "world": World(torch.device("cpu")),
        "mean": (0,) * 3,
        "std": (1,) * 3,
    }
    with train_loader(Dataset.open(demo_shards), config, **options, start_step=7, num_steps=8) as loader:
        batch = next(iter(loader))
    seen = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r"data:image/png;base64,([^\"]+)", text)
    ]
    assert len(seen) == 16, "four frames of each of four clips"
    for index in range(4):
        frames = (batch.clips[index].permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
        assert all((seen[4 * index + i] == frames[number]).all() for i, number in enumerate((0, 2, 3, 5)))
        assert batch.keys[index] in text and ", ".join(map(str, batch.frames[index].tolist())) in text
    assert len(re.findall("data:image/jpeg", text)) == 16 and "http" not in text
    assert "across" in text and "gamma_power" in text and "motion_blur_kernel" not in text, "off in these four"


def test_a_clip_that_cannot_be_had_is_told(demo_shards: Path, tmp_path: Path) -> None:
    broken, rows = damage(demo_shards, tmp_path / "broken", 1)
    config = load_config([], [f"data.shards={broken}", "train.global_batch=24", "data.image_size=32"], warn=print)
    text = browse.page(config, 0, 24)
    assert text.count("Not decoded: its checksum is not the one") == len(rows)


def test_a_run_and_its_options(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert cli.main(["browse", str(plain), "--out", str(out)]) == 0
    assert "96 x 96 pixels" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "needs a configuration"),
        (["no/such.yaml"], "no/such.yaml"),
        (["SHARDS", "--step", "-1"], "--step must be 0 or more"),
        (["SHARDS", "augment.blurr=1"], "augment.blur"),
    ],
)
def test_mistakes(arguments: list[str], says: str, demo_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["browse", *(str(demo_shards) if item == "SHARDS" else item for item in arguments)]) == 2
    assert says in capsys.readouterr().err


def test_the_page_of_a_run_goes_into_its_folder(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text((plain / "config.yaml").read_text())
    monkeypatch.setattr("livetrain.report.browse.page", lambda *_: "a page")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["browse", "run", "--step", "3"]) == 0
    assert cli.main(["browse", str(plain / "config.yaml")]) == 0
    assert (run / "browse-3.html").exists() and (tmp_path / "browse-0.html").exists()
