"""Files and their rows in parts: what was scored stays, whatever is added, changed or killed; memory stays flat."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from livetrain.core.errors import MachineFault
from livetrain.inference import score_parts
from livetrain.inference.score_parts import Parts
from livetrain.inference.video_scorer import Prediction
from shards.videos import find_videos

REQUEST = {"videos": "v", "models": "m", "overrides": []}


def made(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def begin(parts: Parts, videos: Path, size: int = 2, request: dict[str, object] = REQUEST) -> tuple[int, int]:
    num_files, num_known, _ = parts.begin(videos, find_videos(videos), request, size, fresh=False)
    return num_files, num_known


def scored(names: Sequence[str], p: float) -> list[Prediction]:
    return [Prediction(name, p, True, 0.5, 4, 0.1, "ok") for name in names]


def scores(parts: Parts) -> dict[str, float]:
    return {row["name"]: row["p_live"] for rows in parts.rows() for row in rows}


def test_what_is_scored_stays_when_files_come_go_and_change(tmp_path: Path) -> None:
    videos = made(tmp_path / "videos", ["b.mp4", "c.mp4", "d/x.mp4", "e.mp4", "f.mp4"])
    parts = Parts(tmp_path / "out.csv")
    assert begin(parts, videos) == (5, 0)
    assert parts.todo() == [(0, 2), (1, 2), (2, 1)]
    for number in (0, 1):
        parts.add(number, scored(parts.unscored(number), 0.25))
    made(videos, ["a.mp4", "d/w.mp4"])
    (videos / "c.mp4").unlink()
    (videos / "e.mp4").write_text("another version")
    assert begin(parts, videos) == (6, 2)
    left = {name for number, _ in parts.todo() for name in parts.unscored(number)}
    assert left == {"a.mp4", "d/w.mp4", "e.mp4", "f.mp4"}
    with pytest.raises(MachineFault, match=r"000000\.parquet has no row of a\.mp4"):
        scores(parts)
    for number, num in parts.todo():
        assert num == len(parts.unscored(number))
        parts.add(number, scored(parts.unscored(number), 0.75))
    expected = {"a.mp4": 0.75, "b.mp4": 0.25, "d/w.mp4": 0.75, "d/x.mp4": 0.25, "e.mp4": 0.75, "f.mp4": 0.75}
    assert list(scores(parts).items()) == sorted(expected.items())


def test_another_request_keeps_nothing(tmp_path: Path) -> None:
    videos = made(tmp_path / "videos", ["a.mp4", "b.mp4"])
    parts = Parts(tmp_path / "out.csv")
    begin(parts, videos)
    parts.add(0, scored(["a.mp4", "b.mp4"], 0.5))
    assert begin(parts, videos) == (2, 2)
    names = find_videos(videos)
    assert parts.begin(videos, names, REQUEST | {"models": "n"}, 2, fresh=False) == (
        2, 0, ["weights or settings of the model"],
    )  # fmt: skip
    parts.add(0, scored(names, 0.5))
    assert parts.begin(videos, names, REQUEST | {"models": "n"}, 2, fresh=True) == (2, 0, [])


@pytest.mark.parametrize("when", ["listing", "between the folders"])
def test_a_kill_while_it_begins_loses_no_row(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = made(tmp_path / "videos", ["a.mp4", "b.mp4", "c.mp4"])
    parts = Parts(tmp_path / "out.csv")
    begin(parts, videos)
    parts.add(0, scored(parts.unscored(0), 0.25))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if when == "listing":
        monkeypatch.setattr(score_parts, "write_json", killed)
    else:
        monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        begin(parts, videos)
    monkeypatch.undo()
    assert begin(parts, videos) == (3, 2)


def test_a_part_that_is_damaged_is_scored_again(tmp_path: Path) -> None:
    videos = made(tmp_path / "videos", ["a.mp4", "b.mp4", "c.mp4"])
    parts = Parts(tmp_path / "out.csv")
    begin(parts, videos)
    for number, _ in parts.todo():
        parts.add(number, scored(parts.unscored(number), 0.25))
    (parts.folder / "000000.parquet").write_bytes(b"PAR1")
    assert begin(parts, videos) == (3, 1)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_parts, "_version", lambda path: {"num_bytes": 1, "mtime_ns": 1})
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def peak(num: int, number: int) -> int:
        def names() -> Iterator[str]:
            return (f"folder/{number:09d}.mp4" for number in range(num))

        parts = Parts(tmp_path / f"{num}-{number}.csv")
        tracemalloc.start()
        for known in (0, num // 100 * 50):  # twice: the rows of the first are joined
            assert parts.begin(tmp_path, names(), REQUEST, 50, fresh=False)[:2] == (num, known)
            for number, _ in parts.todo()[::2]:
                parts.add(number, scored(parts.unscored(number), 0.5))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(200, 0)  # what is imported and cached at first
    # Whatever else the process does at the moment is counted too: the lower of two.
    few, many = (min(peak(num, number) for number in range(2)) for num in (300, 3000))
    assert many < 1.5 * few + 100_000
