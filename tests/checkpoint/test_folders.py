"""Checkpoints: exact, whole or absent, the newest good one found, the old ones pruned after the new one stands."""

from __future__ import annotations

import errno
import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch.distributed import HashStore

from livetrain.checkpoint import folders, host_copy, safetensors_io
from livetrain.checkpoint.barrier import RankBarrier
from livetrain.checkpoint.folders import Checkpoint
from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256
from livetrain.training.saving import rank_specific


def make(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    model = {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last),
        "count": torch.tensor(step),
        "half": torch.randn(5, generator=generator).bfloat16(),
    }
    state = {
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        "carry": {"best": 0.5},
    }
    whole = host_copy.snapshot({"model": model, "ema": {"w": torch.ones(3)}, "state": state}, {})
    return Checkpoint(step, whole["model"], whole["ema"], whole["state"])


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    before = make(7)
    after = folders.load(folders.save(tmp_path, before, keep_last=2))
    assert after.step == 7 and torch.equal(after.part("ema")["w"], torch.ones(3))
    model = after.part("model")
    assert model.keys() == before.model.keys()
    assert all(torch.equal(model[k], v) and model[k].dtype == v.dtype for k, v in before.model.items())
    assert after.part("state", "carry") == {"best": 0.5}
    assert after.part("state", "optimizer") == {
        "state": {0: {"step": torch.tensor(3.0)}},
        "param_groups": [{"lr": 0.1}],
    }
    for averaged, name in ((False, "count"), (True, "w")):
        assert name in folders.load_weights(after.path, averaged=averaged)[0]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10, 11):
        folders.save(tmp_path, make(step), keep_last=2)
    assert [path.name for path in folders.list_steps(tmp_path)] == ["step-00000010", "step-00000011"]


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "no manifest", "empty manifest"])
def test_damaged_newest_is_passed_over_with_a_warning(damage: str, tmp_path: Path) -> None:
    for step in (5, 6):
        folders.save(tmp_path, make(step), keep_last=3)
    folder = tmp_path / "step-00000006"
    if damage == "flip":
        flip_byte(folder / folders.STATE)
    elif damage == "cut":
        tensors = next(folder.rglob("*.safetensors"))
        tensors.write_bytes(tensors.read_bytes()[:-5])
    elif damage == "missing":
        next(folder.rglob("*.safetensors")).unlink()
    elif damage == "no manifest":
        (folder / folders.MANIFEST).unlink()
    else:
        (folder / folders.MANIFEST).write_text("")
    warnings: list[str] = []
    found = folders.newest(tmp_path, warnings.append)
    assert found is not None and found.step == 5
    assert len(warnings) == 1 and "step-00000006" in warnings[0]


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert folders.newest(tmp_path / "nowhere", print) is None


@pytest.mark.parametrize("writes", [(torch, "save"), (safetensors.torch, "save")])
def test_a_full_disk_leaves_the_last_good_one(writes: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.save(tmp_path, make(1), keep_last=1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*writes, full)
    with pytest.raises(UserError, match="step-00000002.*No space left"):
        folders.save(tmp_path, make(2), keep_last=1)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001"]
    assert folders.newest(tmp_path, print) is not None


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    """A state file that would run code when unpickled: refused, and the code does not run."""
    marker = tmp_path / "owned"

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (marker,))

    evil = Checkpoint(3, {"w": torch.ones(1)}, None, {"optimizer": Evil()})
    folder = folders.save(tmp_path, evil, keep_last=1)
    with pytest.raises(UserError, match="state.pt"):
        folders.load(folder)
    assert not marker.exists()


def test_best_replaces_best(tmp_path: Path) -> None:
    folders.save_best(tmp_path, 5, {"w": torch.zeros(2)}, {"dev": {"eer": 0.5}})
    folders.save_best(tmp_path, 9, {"w": torch.ones(2)}, {"dev": {"eer": 0.1}})
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-00000009"]
    weights, manifest = folders.load_weights(tmp_path / "best-00000009", averaged=False)
    assert manifest["dev"] == {"eer": 0.1} and torch.equal(weights["w"], torch.ones(2))
    with pytest.raises(UserError, match="choose a step"):
        folders.load(tmp_path / "best-00000009")


def save_as(
    teams: list[RankBarrier], folder: Path, step: int, alike: set[str], **broken: Exception
) -> list[Future[Path]]:
    """A checkpoint by several processes, here threads, each with `count` of its own; `broken` names ranks that fail."""
    real = safetensors_io.write

    def save(team: RankBarrier) -> Path:
        item = make(step)
        item.model["count"] = torch.tensor(100 + team.rank)
        outline, share = folders.share_of(item, lambda name: name in alike, team)
        return folders.save(folder, outline, keep_last=2, share=share, team=team)

    def write(where: Path, tensors: dict[str, torch.Tensor], rank: int) -> list[Path]:
        if f"rank{rank}" in broken:
            raise broken[f"rank{rank}"]
        return real(where, tensors, rank)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(teams)) as pool:
        patch.setattr(safetensors_io, "write", write)
        return [pool.submit(save, team) for team in teams]


def make_teams(world: int, patience_seconds: float = 20.0) -> list[RankBarrier]:
    store = HashStore()
    return [RankBarrier(rank, world, store, patience_seconds) for rank in range(world)]


ALIKE = {"model/conv.weight", "model/half", "ema/w", "state/optimizer/state/0/step"}


def test_each_process_writes_its_share_and_the_first_what_is_not_alike(tmp_path: Path) -> None:
    folder = tmp_path / ".step-00000004.tmp" / "tensors"
    folder.mkdir(parents=True)
    stale = {f"shard-{name}.safetensors" for name in ("00009-model-00001-of-00001", "00001-model-00002-of-00003")}
    for name in stale:
        (folder / name).write_bytes(b"of an attempt on nine processes that was killed")
    assert {done.result().name for done in save_as(make_teams(3), tmp_path, 4, ALIKE)} == {"step-00000004"}
    found = folders.load(tmp_path / "step-00000004")
    model, expected = found.part("model"), make(4)
    assert model["count"] == 100, "the first process's, not one that another wrote"
    assert torch.equal(model["conv.weight"], expected.model["conv.weight"]) and found.part("ema")["w"].sum() == 3
    files = sorted((found.path / "tensors").iterdir())
    assert len(files) == 3 and not stale & {path.name for path in files}
    names = [set(safetensors.torch.load_file(path)) for path in files]
    assert sum(map(len, names)) == len(set().union(*names)) == 5, "each tensor once"


def test_a_process_that_cannot_write_is_named_and_the_one_before_stays(tmp_path: Path) -> None:
    teams = make_teams(2)
    assert all(done.result() for done in save_as(teams, tmp_path, 1, ALIKE))
    first, second = save_as(teams, tmp_path, 2, ALIKE, rank1=OSError(errno.ENOSPC, "No space left on device"))
    for done in (first, second):
        with pytest.raises(UserError, match=r"step-00000002.*rank 1: .*No space left"):
            done.result()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001"]
    assert all(done.result() for done in save_as(teams, tmp_path, 3, ALIKE)), "and the next one works"


def test_a_process_that_is_gone_is_named(tmp_path: Path) -> None:
    (alone,) = save_as(make_teams(2, patience_seconds=0.2)[:1], tmp_path, 2, ALIKE)
    with pytest.raises(UserError, match=r"rank 1 did not write its part: it took more than 0.2 s"):
        alone.result()
    assert not list(tmp_path.iterdir())


def test_folders_of_two_machines_are_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "SECONDS_TO_BE_SEEN", 0.1)
    first, second = make_teams(2)
    elsewhere = threading.Thread(target=save_as, args=([second], tmp_path / "there", 1, ALIKE))
    elsewhere.start()
    (done,) = save_as([first], tmp_path / "here", 1, ALIKE)
    elsewhere.join()
    with pytest.raises(UserError, match="run_dir must be one folder for all machines"):
        done.result()


def test_a_checkpoint_from_before_pieces_is_told(tmp_path: Path) -> None:
    folder = folders.save(tmp_path, make(1), keep_last=1)
    torch.save({"optimizer": {}}, folder / folders.STATE)
    manifest = json.loads((folder / folders.MANIFEST).read_text())
    manifest["sha256"][folders.STATE] = file_sha256(folder / folders.STATE)
    (folder / folders.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="older version"):
        folders.load(folder)


def test_batch_statistics_are_the_first_processs(tmp_path: Path) -> None:
    """Two processes whose statistics differ, as they do under DDP after an update."""
    teams = make_teams(2)
    model = timm.create_model("test_resnet", num_classes=0)
    own = rank_specific(model)
    assert "model/bn1.running_mean" in own and "ema/bn1.running_mean" in own
    assert not own & {f"model/{name}" for name, _ in model.named_parameters()}
    with ThreadPoolExecutor(2) as pool:
        saved = []
        for team in teams:
            state = {
                name: torch.full_like(t, team.rank) if f"model/{name}" in own else t
                for name, t in model.state_dict().items()
            }
            whole = host_copy.snapshot({"model": state}, {})["model"]
            outline, share = folders.share_of(Checkpoint(1, whole, None, {}), lambda name: name not in own, team)
            saved.append(pool.submit(folders.save, tmp_path, outline, keep_last=1, share=share, team=team))
    found = folders.load(saved[0].result()).part("model")
    assert all(bool((found[name.removeprefix("model/")] == 0).all()) for name in own if name.startswith("model/"))
    assert all(torch.equal(found[name], parameter) for name, parameter in model.named_parameters())


def test_an_old_checkpoint_that_cannot_be_removed_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is in use on NFS: it is reported, and the next save removes it."""
    import errno

    def save(step: int) -> list[str]:
        folders.save(tmp_path, folders.Checkpoint(step, {"w": torch.ones(2)}, None, {}), keep_last=1)
        return [path.name[-2:] for path in folders.list_steps(tmp_path)]

    save(1)
    with monkeypatch.context() as patch:

        def busy(self: Path, target: Path) -> None:
            if target.name.endswith(".gone"):
                raise OSError(errno.EBUSY, "Device or resource busy")
            usual(self, target)

        usual = Path.rename
        patch.setattr(Path, "rename", busy)
        assert save(2) == ["01", "02"]
    assert "cannot remove" in capsys.readouterr().err and save(3) == ["03"]
