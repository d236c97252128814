"""Videos to predict."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def some_videos(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six demo clips and one that cannot be decoded."""
    folder = tmp_path_factory.mktemp("some")
    for path in sorted((demo_videos / "videos").glob("*.mp4"))[:6]:
        shutil.copy(path, folder)
    (folder / "empty.mp4").write_bytes(b"")
    return folder
