"""The page of `livetrain browse` in a real browser: all pictures are there, and it fits a desktop and a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from livetrain.config import load_config
from livetrain.report import browse
from tests.browser import chromium

pytestmark = pytest.mark.slow  # a browser


@pytest.mark.parametrize("width", [1280, 390])
def test_pictures_load_and_the_page_fits(demo_shards: Path, tmp_path: Path, width: int) -> None:
    options = [f"data.shards={demo_shards}", "data.image_size=64", "train.global_batch=6", "augment.preset=strong"]
    path = tmp_path / "page.html"
    path.write_text(browse.page(load_config([], options, warn=print), 2, 4), encoding="utf-8")
    with chromium.browser() as window:
        chromium.resize(window, width)
        window.get(path.as_uri())
        sizes = window.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth, i.height])")
        assert len(sizes) == 32 and all(complete and natural > 0 and height > 40 for complete, natural, height in sizes)
        assert window.execute_script("return document.documentElement.scrollWidth") <= width
        outside = [url for url in chromium.requests(window) if url.startswith("http")]
        assert not outside and not window.get_log("browser")
        chromium.screenshot(window, tmp_path / f"browse-{width}.png")
