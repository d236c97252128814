"""The loader: the same pixels at a step for any number of processes and any start; damage is named and counted."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.core.world import World
from livetrain.data import PADDING, Batch, Dataset, Loader, eval_loader, mixup, side_stream, train_loader
from livetrain.data.decoders import decoded_bytes
from livetrain.data.graph import DEPTH
from shards import cli
from tests.shards import clips

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def make_config(shards: Path, global_batch: int = 12, accumulation: int = 1) -> Config:
    """All augmentations likely, so that equality says something about each of them."""
    config = Config()
    config.data.shards, config.data.image_size, config.data.num_frames = str(shards), 32, 3
    config.train.global_batch, config.train.accumulation = global_batch, accumulation
    config.eval.batch_size, config.eval.num_frames = 4, 2
    for name in ("color", "grayscale", "blur", "jpeg", "downscale", "erase"):
        setattr(config.augment, name, 0.5)
    return config


def make_loader(
    config: Config, *, rank: int = 0, world: int = 1, start: int = 0, steps: int = 6, device: torch.device = CPU
) -> Loader:
    dataset = Dataset.open(config.data.shards, config.data)
    return train_loader(
        dataset,
        config,
        world=World(device, rank, world, world),
        mean=MEAN,
        std=STD,
        start_step=start,
        num_steps=steps,
    )


def make_eval_loader(config: Config, split: str, *, rank: int = 0, world: int = 1) -> Loader:
    dataset = Dataset.open(config.data.shards, config.data)
    return eval_loader(dataset, config, split, world=World(CPU, rank, world, world), mean=MEAN, std=STD)


def read(loader: Loader) -> list[Batch]:
    with loader:
        return list(loader)


def steps_of(config: Config, world: int, start: int = 0, steps: int = 6) -> dict[int, tuple[np.ndarray, torch.Tensor]]:
    """step → (rows, clips) of the whole update, all processes joined in the order of the stream."""
    batches = [read(make_loader(config, rank=rank, world=world, start=start, steps=steps)) for rank in range(world)]
    assert len({len(one) for one in batches}) == 1  # equal steps for every rank
    joined: dict[int, list[Batch]] = {}
    for of_all_ranks in zip(*batches, strict=True):
        joined.setdefault(of_all_ranks[0].step, []).extend(of_all_ranks)
    return {
        step: (np.concatenate([b.rows for b in parts]), torch.cat([b.clips for b in parts]))
        for step, parts in joined.items()
    }


def test_a_loader_is_iterated_once(demo_shards: Path) -> None:
    """A second time there is nothing left; it used to wait for ever, as it did after `close`."""
    loader = make_loader(make_config(demo_shards), steps=2)
    assert len(list(loader)) == 2 and list(loader) == []
    loader.close()
    stopped = make_loader(make_config(demo_shards), steps=2)
    next(iter(stopped))
    stopped.close()
    assert list(stopped) == []


def assert_same_steps(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for step in a:
        assert (a[step][0] == b[step][0]).all()
        assert torch.equal(a[step][1], b[step][1])


@pytest.fixture
def two_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many batches in a graph at once as on a GPU."""
    monkeypatch.setattr("livetrain.data.loader.depth", lambda device: DEPTH)


@pytest.fixture(scope="module")
def reference(demo_shards: Path) -> dict[int, tuple[np.ndarray, torch.Tensor]]:
    return steps_of(make_config(demo_shards), world=1)


@pytest.mark.parametrize(
    ("world", "accumulation"),
    [(2, 3), *(pytest.param(*given, marks=pytest.mark.slow) for given in ((2, 1), (3, 1), (1, 4)))],
)
def test_pixels_do_not_depend_on_processes(demo_shards: Path, reference: dict, world: int, accumulation: int) -> None:
    assert_same_steps(reference, steps_of(make_config(demo_shards, accumulation=accumulation), world))


@pytest.mark.parametrize(("start", "world"), [(1, 1), (4, 1), (5, 2)])
def test_pixels_do_not_depend_on_where_the_loader_starts(
    demo_shards: Path, reference: dict, start: int, world: int
) -> None:
    later = steps_of(make_config(demo_shards), world, start=start)
    assert list(later) == list(range(start, 6))
    assert_same_steps({step: reference[step] for step in later}, later)


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (3, 4)])
def test_pixels_do_not_depend_on_threads_and_prefetch(
    demo_shards: Path, reference: dict, threads: int, prefetch: int
) -> None:
    config = make_config(demo_shards)
    config.data.threads, config.data.prefetch = threads, prefetch
    assert_same_steps(reference, steps_of(config, world=1))


def test_batches_say_what_they_hold(demo_shards: Path) -> None:
    dataset = Dataset.open(demo_shards)
    for batch in read(make_loader(make_config(demo_shards), steps=2)):
        assert batch.clips.shape == (12, 3, 3, 32, 32) and batch.clips.dtype == torch.float32
        assert batch.valid.all() and not batch.failures
        assert batch.keys == dataset.columns["key"].take(batch.rows).to_pylist()
        assert batch.labels.tolist() == dataset.column("label")[batch.rows].tolist()
        assert set(dataset.columns["split"].take(batch.rows).to_pylist()) == {"train"}
        assert 0.1 < batch.clips.std() < 4


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_covers_each_sample_once(demo_shards: Path, world: int) -> None:
    config = make_config(demo_shards)
    batches = [b for rank in range(world) for b in read(make_eval_loader(config, "train", rank=rank, world=world))]
    rows = np.concatenate([b.rows for b in batches])
    valid = torch.cat([b.valid for b in batches]).numpy()
    assert (valid == (rows != PADDING)).all()
    assert sorted(rows[valid].tolist()) == Dataset.open(demo_shards).rows("train").tolist()
    pixels = clips_by_row(batches)
    alone = clips_by_row(read(make_eval_loader(config, "train")))
    assert all(torch.equal(pixels[row], alone[row]) for row in rows[valid].tolist())
    assert all(not clip.any() for row, clip in pixels.items() if row == PADDING)


def clips_by_row(batches: list[Batch]) -> dict[int, torch.Tensor]:
    return {row: clip for batch in batches for row, clip in zip(batch.rows.tolist(), batch.clips, strict=True)}


def test_evaluation_ignores_augmentation(demo_shards: Path) -> None:
    plain = make_config(demo_shards)
    plain.augment.enabled = False
    a, b = (read(make_eval_loader(c, "dev"))[0].clips for c in (make_config(demo_shards), plain))
    assert torch.equal(a, b)


def damage(shards: Path, out: Path, num: int) -> tuple[Path, list[int]]:
    """A copy of the shards in which `num` training clips are overwritten with zeros; returns their rows."""
    shutil.copytree(shards, out)
    dataset = Dataset.open(out)
    rows = dataset.rows("train")[:num].tolist()
    for row in rows:
        with (out / dataset.shard_name(row)).open("r+b") as file:
            file.seek(int(dataset.column("offset")[row]))
            file.write(b"\0" * int(dataset.column("size")[row]))
    return out, rows


def test_damaged_clips_are_skipped_named_and_counted(demo_shards: Path, reference: dict, tmp_path: Path) -> None:
    broken, rows = damage(demo_shards, tmp_path / "broken", 3)
    config = make_config(broken)
    loader = make_loader(config)
    batches = read(loader)
    seen = 0
    for batch in batches:
        bad = np.isin(batch.rows, rows)
        seen += int(bad.sum())
        assert (batch.valid.numpy() == ~bad).all()
        assert not batch.clips[torch.from_numpy(bad)].any()
        whole = reference[batch.step][1]
        assert torch.equal(batch.clips[torch.from_numpy(~bad)], whole[torch.from_numpy(~bad)])
        assert {failure.key for failure in batch.failures} == {batch.keys[i] for i in np.flatnonzero(bad)}
    assert seen == len(loader.failures) >= 3
    assert all(failure.shard.endswith(".tar") and failure.reason for failure in loader.failures)


def test_damaged_clip_stops_the_run_when_told_to(demo_shards: Path, tmp_path: Path) -> None:
    broken, rows = damage(demo_shards, tmp_path / "broken", 1)
    config = make_config(broken)
    config.data.on_error = "stop"
    key = Dataset.open(broken).text("key", rows[0])
    with pytest.raises(UserError, match=rf"shard-\d+\.tar, key {key}: .*data\.on_error=skip"):
        read(make_loader(config))


def test_missing_shards_stop_the_run_even_when_skipping(demo_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_shards, tmp_path / "gone")
    for tar in (tmp_path / "gone").glob("*.tar"):
        tar.unlink()
    with pytest.raises(UserError, match="consecutive clip"):
        read(make_loader(make_config(tmp_path / "gone")))


@pytest.fixture(scope="module")
def frame_shards(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("frames")
    arguments = ["build", "--videos", demo_videos / "videos", "--labels", demo_videos / "label.csv", "--out", out]
    assert cli.main([str(a) for a in [*arguments, "--store", "frames", "--num-frames", "6"]]) == 0
    return out


def test_frame_shards_load_and_name_damage(frame_shards: Path, tmp_path: Path) -> None:
    good = steps_of(make_config(frame_shards), world=1, steps=4)
    assert_same_steps(good, steps_of(make_config(frame_shards), world=2, steps=4))
    broken, rows = damage(frame_shards, tmp_path / "broken", 2)
    loader = make_loader(make_config(broken), steps=4)
    for batch in read(loader):
        bad = torch.from_numpy(np.isin(batch.rows, rows))
        assert torch.equal(batch.valid, ~bad)
        assert torch.equal(batch.clips[~bad], good[batch.step][1][~bad])
    assert {failure.key for failure in loader.failures} == set(
        Dataset.open(broken).columns["key"].take(rows).to_pylist()
    )


@pytest.fixture(scope="module")
def vp9_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that DALI's video decoder takes on the CPU too: the GPU's way through the loader, without a GPU."""
    folder = tmp_path_factory.mktemp("vp9")
    (folder / "videos").mkdir()
    lines = ["fname,liveness_score"]
    for number in range(12):
        data = clips.video(6, 64, 48, seed=number, kind="matroska", codec="vp9")
        (folder / "videos" / f"{number:02d}.mkv").write_bytes(data)
        lines.append(f"{number:02d}.mkv,{number % 2}")
    (folder / "label.csv").write_text("\n".join(lines))
    arguments = ["build", "--videos", folder / "videos", "--labels", folder / "label.csv", "--out", folder / "shards"]
    assert cli.main([str(a) for a in arguments]) == 0
    return folder / "shards"


@pytest.mark.usefixtures("two_in_flight")
def test_a_clip_that_the_decoder_refuses_is_found_by_name(vp9_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage from before the clip was stored, so its checksum is right: DALI refuses the batch, the others come."""
    monkeypatch.setattr(Loader, "_decoder", lambda self, row: "nvdec")
    config = make_config(vp9_shards, global_batch=4)
    good = steps_of(config, world=1, steps=4)
    bad = int(good[0][0][1])
    whole = Dataset.video_bytes

    def cut(self: Dataset, row: int) -> bytes:
        data = whole(self, row)
        return data[: len(data) // 3] if row == bad else data

    monkeypatch.setattr(Dataset, "video_bytes", cut)
    loader = make_loader(config, steps=4)
    for batch in read(loader):
        valid = torch.from_numpy(batch.rows != bad)
        assert torch.equal(batch.valid, valid)
        assert torch.equal(batch.clips[valid], good[batch.step][1][valid])
    assert {failure.key for failure in loader.failures} == {Dataset.open(vp9_shards).text("key", bad)}


@pytest.mark.slow
@pytest.mark.usefixtures("two_in_flight")
def test_a_clip_that_the_decoder_does_not_take_is_decoded_by_libav(
    demo_shards: Path, reference: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DALI's decoder takes no H.264 on the CPU, as NVDEC takes no 4:2:2: the clips come anyway, reported."""
    monkeypatch.setattr(Loader, "_decoder", lambda self, row: "cpu" if row in self.refusals.rows else "nvdec")
    loader = make_loader(make_config(demo_shards))
    batches = read(loader)
    assert not any(batch.failures for batch in batches)
    assert loader.refusals.rows == {int(row) for batch in batches for row in batch.rows}
    assert_same_steps(reference, {batch.step: (batch.rows, batch.clips) for batch in batches})


@pytest.mark.usefixtures("two_in_flight")
@pytest.mark.parametrize("kind", ["frames", "vp9"])
def test_a_batch_is_decoded_in_rounds_where_its_pictures_are_large(
    kind: str, frame_shards: Path, vp9_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pixels, never more at a time than data.decode_memory_mb allows, or one clip."""
    shards = frame_shards if kind == "frames" else vp9_shards
    decoder = "image" if kind == "frames" else "nvdec"  # what DALI decodes, as on a GPU
    monkeypatch.setattr(Loader, "_decoder", lambda self, row: decoder)
    whole = read(make_loader(make_config(shards), steps=2))
    rounds: list[tuple[int, int]] = []  # clips and bytes of each
    collect = Loader._collect

    def collected(self: Loader, item: Any, media: Any) -> Any:
        prepared = collect(self, item, media)
        for parts in prepared.rounds:
            rows = [int(item.rows[position]) for positions, _ in parts.values() for position in positions]
            rounds.append((len(rows), sum(decoded_bytes(self._clips, row, item.frames.shape[1]) for row in rows)))
        return prepared

    monkeypatch.setattr(Loader, "_collect", collected)
    largest = max(decoded_bytes(Dataset.open(shards), row, 3) for row in range(len(Dataset.open(shards))))
    for budget in (5 * largest, 1):
        rounds.clear()
        config = make_config(shards)
        monkeypatch.setattr(config.data, "decode_memory_mb", DEPTH * budget / 1e6)
        again = read(make_loader(config, steps=2))
        assert [batch.step for batch in again] == [batch.step for batch in whole]
        assert all(torch.equal(one.clips, two.clips) for one, two in zip(whole, again, strict=True))
        assert not any(batch.failures for batch in again)
        assert sum(count for count, _ in rounds) == 24 and len(rounds) >= 4
        assert all(size <= budget or count == 1 for count, size in rounds), rounds


def test_every_batch_is_handed_over_by_the_loaders_stream(demo_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a batch that is not would be read before it is there. Labels and masks go by the same stream."""
    calls: list[tuple[str, Any]] = []

    class Side(side_stream.SideStream):
        def upload(self, array: Any) -> torch.Tensor:
            calls.append(("upload", threading.current_thread().name))
            return super().upload(array)

        def ready(self) -> str:
            return f"mark {sum(name == 'upload' for name, _ in calls)}"

        def hand_over(self, ready: Any, tensors: Any) -> None:
            calls.append(("hand over", (ready, list(tensors))))

    monkeypatch.setattr("livetrain.data.loader.SideStream", Side)
    batches = read(make_loader(make_config(demo_shards), steps=3))
    given = [value for name, value in calls if name == "hand over"]
    assert [mark for mark, _ in given] == ["mark 2", "mark 4", "mark 6"]
    for batch, (_, tensors) in zip(batches, given, strict=True):
        of = (batch.clips, batch.labels, batch.kinds, batch.domains, batch.valid)
        assert [id(t) for t in tensors] == [id(t) for t in of]
    assert {value for name, value in calls if name == "upload"} == {"livetrain-loader"}


def test_frames_and_videos_show_the_same_pictures(demo_shards: Path, frame_shards: Path) -> None:
    """Evaluation frames of a stored clip are near those of its video (JPEG rounding, neighbouring frames), upright
    both.
    """
    as_video, as_frames = (clips_by_key(make_config(shards)) for shards in (demo_shards, frame_shards))
    assert as_video.keys() == as_frames.keys()
    distances = [(as_video[key] - as_frames[key]).abs().mean().item() for key in as_video]
    turned = [(as_video[key] - as_frames[key].rot90(2, (2, 3))).abs().mean().item() for key in as_video]
    assert np.median(distances) < 0.35 < np.median(turned)


def clips_by_key(config: Config) -> dict[str, torch.Tensor]:
    batches = read(make_eval_loader(config, "dev"))
    return {key: clip for batch in batches for key, clip in zip(batch.keys, batch.clips, strict=True) if key}


def test_mixup_blends_neighbours_and_their_labels(demo_shards: Path, reference: dict, tmp_path: Path) -> None:
    """Against the clips without it; a pair with a damaged clip stays as it is."""
    broken, rows = damage(demo_shards, tmp_path / "broken", 1)
    config = make_config(broken)
    config.augment.mixup, config.augment.mixup_alpha = 1.0, 1.0
    labels = Dataset.open(broken).column("label")
    seen_bad = 0
    for batch in read(make_loader(config)):
        shares = mixup.planned(config, np.arange(12) + 12 * batch.step).shares
        bad = np.isin(batch.rows, rows)
        seen_bad += int(bad.sum())
        shares[bad | bad[mixup.partners(12)]] = 1
        plain = reference[batch.step][1].clone()
        plain[torch.from_numpy(bad)] = 0
        own = torch.from_numpy(shares).view(-1, 1, 1, 1, 1)
        expected = own * plain + (1 - own) * plain[torch.from_numpy(mixup.partners(12))]
        torch.testing.assert_close(batch.clips, expected)
        given = np.where(bad, 0, labels[batch.rows])
        wanted = shares * given + (1 - shares) * given[mixup.partners(12)]
        np.testing.assert_allclose(batch.labels.numpy(), wanted, rtol=1e-6)
    assert seen_bad >= 1


def test_cutmix_sets_a_rectangle_of_the_neighbour_in(demo_shards: Path, reference: dict) -> None:
    config = make_config(demo_shards)
    config.augment.cutmix = 1.0
    labels, other = Dataset.open(demo_shards).column("label"), mixup.partners(12)
    seen = 0
    for batch in read(make_loader(config)):
        planned = mixup.planned(config, np.arange(12) + 12 * batch.step)
        plain = reference[batch.step][1]
        for index, (top, left, bottom, right) in enumerate(planned.cuts.tolist()):
            expected = plain[index].clone()
            expected[..., top:bottom, left:right] = plain[other[index], ..., top:bottom, left:right]
            assert torch.equal(batch.clips[index], expected)
            area = (bottom - top) * (right - left) / config.data.image_size**2
            own, theirs = labels[batch.rows[index]], labels[batch.rows[other[index]]]
            assert float(batch.labels[index]) == pytest.approx((1 - area) * own + area * theirs)
            seen += area > 0.05
    assert seen > 6


@pytest.mark.usefixtures("two_in_flight")
@pytest.mark.parametrize("num", [3, *(pytest.param(num, marks=pytest.mark.slow) for num in (2, 4, 8))])
def test_several_pipelines_of_a_decoder_change_no_byte(
    demo_shards: Path, reference: dict, monkeypatch: pytest.MonkeyPatch, num: int
) -> None:
    """By the graph of frames decoded on the CPU, of which there is one otherwise; test_nvdec.py has NVDEC's."""
    monkeypatch.setattr(Loader, "_num_pipelines", lambda self, decoder: num)
    with make_loader(make_config(demo_shards)) as loader:
        for batch in loader:
            assert torch.equal(batch.clips, reference[batch.step][1])
        assert sorted(loader._graphs) == [("cpu", number) for number in range(num)]


def test_close_while_data_is_coming(demo_shards: Path) -> None:
    loader = make_loader(make_config(demo_shards), steps=500)
    next(iter(loader))
    loader.close()
    assert not loader._thread.is_alive()
    assert loader.wait_seconds > 0


def test_gpu_decoder_without_a_gpu_is_told(demo_shards: Path) -> None:
    config = make_config(demo_shards)
    config.data.decoder = "gpu"
    with pytest.raises(UserError, match=r"data\.decoder"):
        make_loader(config)
