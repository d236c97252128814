"""The engine interface: the same bytes by worker processes and by a real Ray cluster, whatever is lost on the way."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from livetrain.core import engines
from livetrain.core.engines import LocalEngine, RayEngine, engine_of
from livetrain.core.errors import MachineFault, UserError
from shards import cli
from tests.ray_cluster import in_cluster


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.launch
@pytest.mark.slow
def test_a_build_by_ray_has_the_bytes_of_a_build_here(demo_videos: Path, tmp_path: Path) -> None:
    header, *rows = (demo_videos / "label.csv").read_text().splitlines()
    few = tmp_path / "few"
    (few / "videos").mkdir(parents=True)
    (few / "label.csv").write_text("\n".join([header, *rows[::3]]) + "\n")
    for row in rows[::3]:
        name = row.partition(",")[0]
        (few / "videos" / name).symlink_to(demo_videos / "videos" / name)
    build = ["build", "--videos", few / "videos", "--labels", few / "label.csv", "--out", tmp_path / "here"]
    assert cli.main([*map(str, build), "--shard-mb", "0.5"]) == 0
    said = in_cluster("build", few, tmp_path / "out")
    assert "all as it was built" in said
    assert content(tmp_path / "out") == content(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["lost_node", "killed_driver"])
def test_a_loss_in_mid_build_changes_no_byte(
    scenario: str, demo_videos: Path, demo_shards: Path, tmp_path: Path
) -> None:
    in_cluster(scenario, demo_videos, tmp_path / "out")
    assert content(tmp_path / "out") == content(demo_shards)


@pytest.mark.slow
def test_faults_of_tasks_and_of_the_cluster(tmp_path: Path) -> None:
    in_cluster("faults", tmp_path)


def test_options_choose_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_of("local", "", 3) == LocalEngine(3)
    with pytest.raises(UserError, match="--ray-address has no effect without --engine ray"):
        engine_of("local", "head:6379", 3)
    monkeypatch.setattr(engines, "_library", lambda: None)
    assert engine_of("ray", "", 3) == RayEngine("auto", 0), "all cores of the cluster, not those of this machine"
    assert engine_of("ray", "head:6379", 3, 5) == RayEngine("head:6379", 5)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    usual = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return usual(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert cli.main(["verify", "shards", "--engine", "ray"]) == 2
    assert "--engine ray needs Ray: pip install 'livetrain[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["other bytes", "gone"])
def test_a_node_that_sees_other_files_says_so(change: str, tmp_path: Path) -> None:
    file = tmp_path / "dataset.json"
    file.write_text("a")
    (shared,) = RayEngine().sharing(file).shared
    engines._check((shared,))
    engines._check.cache_clear()
    file.unlink() if change == "gone" else file.write_text("ab")
    with pytest.raises(MachineFault, match=f"does not see {file} as the driver does.*file system that all nodes share"):
        engines._check((shared,))
