"""Attacks made of live clips: planned, labelled so, the same in all frames; each operator does what its name says."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from livetrain.config import AugmentConfig, load_config
from livetrain.core.errors import UserError
from livetrain.data import Dataset, plan, recapture, targets
from livetrain.data import recapture_operators as operators
from livetrain.data.augment import PATH
from livetrain.data.recapture_operators import OPERATORS
from tests.data.test_graph import FRAMES, NUM_FRAMES, SIZE, clip, jpegs, make_graph, params, small, take
from tests.data.test_loader import make_config, make_loader, read

NAMES = [item.name for item in OPERATORS]


def drawn(n: int, seed: int = 0, config: AugmentConfig | None = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Of n live clips, all made attacks unless `config` says otherwise."""
    epochs, rows = np.zeros(n, np.int64), np.arange(n)
    config = config or AugmentConfig(recapture=1.0)
    chosen, found = recapture.planned(config, seed, epochs, rows, np.ones(n, np.bool_), SIZE)
    return chosen, params(n) | found


def all_operators(example: dict[str, np.ndarray], **options: object) -> object:
    return make_graph(augmentations=[recapture.Recapture(OPERATORS)], example=example, **options)


def only(name: str, frames: np.ndarray, **values: object) -> tuple[np.ndarray, np.ndarray]:
    """(before, after) of one clip that goes through one operator, float32 [F, S, S, 3]; `values` for what it drew."""
    _, found = drawn(1)
    for other in NAMES:
        found[f"{other}_on"] = np.array([other == name])
    for key, value in values.items():
        assert found[key][0].shape == np.shape(value), key
        found[key] = np.asarray(value, np.float32)[None]
    out = all_operators(found).run([frames], FRAMES[:1], found)  # type: ignore[attr-defined]
    return frames.astype(np.float32), out[0].numpy().transpose(0, 2, 3, 1)


def plain(level: float | tuple[float, float, float]) -> np.ndarray:
    return np.full((NUM_FRAMES, SIZE, SIZE, 3), level, np.float64).astype(np.uint8)


def test_a_live_clip_that_is_not_chosen_stays_as_it_is() -> None:
    _, found = drawn(1)
    off = {key: np.zeros_like(value) if key.endswith("_on") else value for key, value in found.items()}
    frames = clip(3)
    out = all_operators(found).run([frames], FRAMES[:1], off)  # type: ignore[attr-defined]
    assert (out[0].numpy().transpose(0, 2, 3, 1) == frames).all()


@pytest.mark.parametrize("name", NAMES)
def test_each_operator_changes_the_picture_and_all_frames_alike(name: str) -> None:
    still = np.repeat(clip(3)[:1], NUM_FRAMES, axis=0)
    stands = {"screen_cos": np.ones((PATH, 1, 1, 1)), "screen_sin": np.zeros((PATH, 1, 1, 1))}
    before, after = only(name, still, **stands)
    assert np.abs(after - before).mean() > 0.2
    assert (after == after[:1]).all()


def test_same_inputs_give_the_same_pixels_in_any_batch() -> None:
    _, found = drawn(4)
    clips = [clip(seed) for seed in range(4)]
    together = all_operators(found).run(clips, FRAMES, found)  # type: ignore[attr-defined]
    other = all_operators(found, num_threads=1, max_clips=1)
    for index in range(4):
        alone = other.run([clips[index]], FRAMES[:1], take(found, [index]))  # type: ignore[attr-defined]
        assert torch.equal(alone[0], together[index])


def test_stored_jpegs_take_the_same_way() -> None:
    _, found = drawn(3, seed=2)
    files = [jpegs(clip(seed, 60, 80)) for seed in range(3)]
    decoded = [small([np.array(Image.open(io.BytesIO(file))) for file in clip_files]) for clip_files in files]
    change = [recapture.Recapture(OPERATORS)]
    as_jpegs = make_graph("image", change, found).run(files, FRAMES[:3], found)
    as_frames = make_graph("cpu", change, found).run(decoded, FRAMES[:3], found)
    assert (as_jpegs - as_frames).abs().mean() < 1.5


@pytest.mark.gpu
def test_gpu_agrees_with_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    _, found = drawn(4)
    clips = [clip(seed) for seed in range(4)]
    cpu = all_operators(found).run(clips, FRAMES, found)  # type: ignore[attr-defined]
    on_gpu = all_operators(found, device=torch.device("cuda", 0))
    assert (cpu - on_gpu.run(clips, FRAMES, found).cpu()).abs().mean() < 2.0  # type: ignore[attr-defined]


# --- what is planned --------------------------------------------------------------------------------------------------


def test_only_live_clips_are_chosen_as_often_as_asked_and_by_all_operators_alike() -> None:
    n = 6000
    live = np.arange(n) % 3 == 0
    config = AugmentConfig(recapture=0.4, recapture_operators=["moire", "inks", "edge"], recapture_edge=0.25)
    chosen, found = recapture.planned(config, 0, np.zeros(n, np.int64), np.arange(n), live, SIZE)
    assert not chosen[~live].any() and abs((chosen[live] > 0).mean() - 0.4) < 0.04
    shares = np.bincount(chosen[chosen > 0], minlength=4)[1:] / (chosen > 0).sum()
    assert np.abs(shares - 1 / 3).max() < 0.05
    assert (found["moire_on"] == (chosen == 1)).all() and (found["inks_on"] == (chosen == 2)).all()
    others = (chosen == 1) | (chosen == 2)
    assert found["edge_on"][chosen == 3].all() and abs(found["edge_on"][others].mean() - 0.25) < 0.06
    assert not found["edge_on"][chosen == 0].any() and not found["rephotograph_on"][chosen == 0].any()
    assert "screen_on" not in found, "the graph holds what is wanted alone"


def test_training_clips_are_counted_as_the_first_pass_sees_them(demo_shards: Path) -> None:
    config, dataset = make_config(demo_shards), Dataset.open(str(demo_shards))
    plain = targets.count_by_type(dataset, config)
    rows = dataset.rows("train")
    live = int((dataset.column("label")[rows] >= 0.5).sum())
    assert plain == {"live": live, "print": plain["print"], "replay": len(rows) - live - plain["print"]}
    config.augment.recapture = 0.5
    found = targets.count_by_type(dataset, config)
    chosen, _ = recapture.planned(
        config.augment, config.seed, np.zeros(len(rows), np.int64), rows.astype(np.int64),
        dataset.column("label")[rows] >= 0.5, SIZE,
    )  # fmt: skip
    made = [recapture.attack_type(config.augment, place) for place in chosen[chosen > 0].tolist()]
    assert made and {name: count for name, count in found.items() if name.startswith("synthetic:")} == Counter(made)
    assert found["live"] + len(made) == live and found["print"] == plain["print"]


def test_a_clip_s_plan_depends_on_seed_epoch_and_row_alone() -> None:
    config, rows, live = AugmentConfig(recapture=0.5), np.arange(40), np.ones(40, np.bool_)
    whole = recapture.planned(config, 3, np.full(40, 2), rows, live, SIZE)
    part = recapture.planned(config, 3, np.full(5, 2), rows[[7, 3, 30, 31, 9]], live[:5], SIZE)
    assert (part[0] == whole[0][[7, 3, 30, 31, 9]]).all()
    assert all((part[1][key] == value[[7, 3, 30, 31, 9]]).all() for key, value in whole[1].items())
    for other in (recapture.planned(config, 4, np.full(40, 2), rows, live, SIZE),
                  recapture.planned(config, 3, np.full(40, 3), rows, live, SIZE)):  # fmt: skip
        assert (other[0] != whole[0]).any()


def test_without_a_probability_nothing_is_drawn_and_other_draws_stay(demo_shards: Path) -> None:
    config = make_config(demo_shards)
    samples = plan.Samples.of_training(Dataset.open(str(demo_shards), config.data), config)
    before = plan.plan_train(samples, config, 1, 0, 0, 1)
    assert not before.recaptured.any() and not any("moire" in name for name in before.params)
    config.augment.recapture = 1.0
    after = plan.plan_train(samples, config, 1, 0, 0, 1)
    assert after.recaptured.any()
    assert all((after.params[name] == value).all() for name, value in before.params.items())
    evaluated = plan.plan_evaluation(samples, config, 0, 0, 1)
    assert not evaluated.recaptured.any() and not any(name.endswith("_on") for name in evaluated.params)


@pytest.mark.slow
def test_labels_and_types_follow_the_plan_on_any_number_of_processes(demo_shards: Path) -> None:
    config = make_config(demo_shards)
    config.augment.recapture, config.loss.attack_types = 0.6, ["print", "synthetic:moire", "synthetic:edge"]
    dataset = Dataset.open(str(demo_shards), config.data)
    targets.check(dataset, config)
    batches = read(make_loader(config, steps=4))
    samples = plan.Samples.of_training(dataset, config)
    seen = set()
    for step, batch in enumerate(batches):
        planned = plan.plan_train(samples, config, step, 0, 0, 1)
        for index, row in enumerate(batch.rows.tolist()):
            kind, chosen = dataset.text("attack_type", row), int(planned.recaptured[index])
            assert kind == "live" or not chosen
            name = recapture.attack_type(config.augment, chosen) if chosen else kind
            seen.add(name)
            assert float(batch.labels[index]) == (name == "live")
            expected = ["live", *config.loss.attack_types]
            assert batch.kinds[index].tolist() == [float(name == column) for column in expected]
    assert {"live", "print"} < seen and any(name.startswith(recapture.SYNTHETIC) for name in seen)
    halves = [read(make_loader(config, steps=4, rank=rank, world=2)) for rank in (0, 1)]
    for batch, first, second in zip(batches, *halves, strict=True):
        assert torch.equal(batch.labels, torch.cat([first.labels, second.labels]))
        assert torch.equal(batch.clips, torch.cat([first.clips, second.clips]))
    again = read(make_loader(config, start=2, steps=4))
    assert torch.equal(again[0].clips, batches[2].clips) and torch.equal(again[1].labels, batches[3].labels)


def test_an_operator_that_is_not_there_is_named() -> None:
    for value in ("[moire,mask]", "[]", "[moire,moire]"):
        with pytest.raises(UserError, match=r"recapture_operators.* each once"):
            load_config([], ["data.shards=x", "augment.recapture=0.5", f"augment.recapture_operators={value}"])


# --- what each does ---------------------------------------------------------------------------------------------------


def test_moire_is_a_pattern_about_the_picture_with_the_depth_that_was_drawn() -> None:
    before, after = only("moire", plain(120), moire_depth=0.2)
    change = after[0] / before[0] - 1
    assert abs(change.mean()) < 0.05 and 0.05 < change.std() < 0.2 and np.abs(change).max() <= 0.2 + 0.01


@pytest.mark.parametrize("decoder", ["cpu", "image"])
def test_bands_wander_by_the_same_share_of_a_wave_from_frame_to_frame(decoder: str) -> None:
    waves, share = 2, 0.125
    _, found = drawn(1)
    for other in NAMES:
        found[f"{other}_on"] = np.array([other == "screen"])
    found["screen_bands"] = np.array([[0, waves / SIZE]], np.float32)
    found["screen_depth"] = np.array([[0, 0, 0.2]], np.float32)
    angle = (2 * np.pi * share * np.arange(PATH)).reshape(1, PATH, 1, 1, 1)
    found["screen_cos"], found["screen_sin"] = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    frames = plain(120)
    graph = make_graph(decoder, [recapture.Recapture(OPERATORS)], found)
    media = [jpegs(frames)] if decoder == "image" else [frames]
    profile = graph.run(media, FRAMES[:1], found)[0].numpy().mean(axis=(1, 3))  # [F, rows]
    place = np.angle(np.fft.rfft(profile, axis=1)[:, waves]) / (2 * np.pi)
    steps = np.diff(place)
    assert np.ptp(profile, axis=1).min() > 40
    assert np.allclose(steps - np.round(steps), share, atol=0.01)


def test_some_screens_keep_step_with_the_camera() -> None:
    _, found = drawn(400, config=AugmentConfig(recapture=1.0, recapture_operators=["screen"]))
    still = (found["screen_cos"] == 1).all(axis=(1, 2, 3, 4))
    assert 0.2 < still.mean() < 0.4
    assert np.allclose(found["screen_cos"] ** 2 + found["screen_sin"] ** 2, 1, atol=1e-5)


def test_a_screen_has_stripes_of_red_green_and_blue() -> None:
    _, after = only(
        "screen", plain(120), screen_columns=[1 / 6, 0], screen_phase=[0, 1 / 3, 2 / 3], screen_depth=[0.3, 0, 0]
    )
    column = after[0][SIZE // 2]
    assert np.abs(column[6:] - column[:-6]).max() <= 1, "a period of six pixels"
    assert np.abs(column[2:, 0] - column[:-2, 2]).max() <= 1 or np.abs(column[2:, 0] - column[:-2, 1]).max() <= 1
    assert after[0].std(axis=0).max() <= 1, "columns alone"
    _, bands = only("screen", plain(120), screen_bands=[0, 2 / SIZE], screen_depth=[0, 0, 0.2])
    rows = bands[0].mean(axis=(1, 2))
    assert rows.max() - rows.min() == pytest.approx(2 * 0.2 * 120, abs=4)


def test_halftone_keeps_the_mean_level_and_puts_dots_of_ink() -> None:
    for is_grain in (0.0, 1.0):
        _, after = only("halftone", plain(128), halftone_share=1.0, halftone_grain=is_grain)
        assert 90 < after.mean() < 165 and after.std() > 60
        dark, light = (only("halftone", plain(level), halftone_grain=is_grain)[1].mean() for level in (60, 200))
        assert dark < light - 60


def test_inks_map_colours_as_their_matrix_says() -> None:
    matrix, offset = np.array([[0.5, 0.2, 0.1], [0.1, 0.6, 0.1], [0.0, 0.2, 0.5]]), np.array([20.0, 10.0, 30.0])
    before, after = only("inks", clip(4), inks_matrix=matrix, inks_offset=offset)
    assert np.abs(after - (before @ matrix.T + offset)).max() < 0.51


def test_a_warp_is_a_fifth_of_the_picture_turned() -> None:
    same = np.array([[1.0, 0, 0], [0, 1, 0]])
    before, after = only("warp", clip(4), warp_matrix=same)
    assert np.abs(after - before).max() <= 1
    moved = np.array([[1.0, 0, 5], [0, 1, 0]])
    before, after = only("warp", clip(4), warp_matrix=moved)
    want = 0.8 * before[:, :, :-5] + 0.2 * before[:, :, 5:]
    assert np.abs(after[:, :, :-5] - want).max() <= 1


def test_an_edge_shows_the_picture_in_a_border_before_the_live_scene() -> None:
    """The picture over the middle half, a border of 4 pixels; beyond it the scene, mirrored."""
    half = np.array([[2.0, 0, -SIZE / 2], [0, 2, -SIZE / 2], [0, 0, 1]])
    colour = [250.0, 10.0, 20.0]
    before, after = only(
        "edge", clip(4), edge_matrix=half, edge_margin=[8.0, 8.0], edge_colour=colour, edge_scene=[1.0, 0.0]
    )
    quarter = SIZE // 4
    corner = after[:, : quarter - 5, : quarter - 5]
    assert np.abs(corner - before[:, :, ::-1][:, : quarter - 5, : quarter - 5]).max() <= 1
    assert np.abs(after[:, SIZE // 2, quarter - 2] - colour).max() <= 1
    inner = after[:, quarter + 1 : -quarter - 1, quarter + 1 : -quarter - 1]
    half_size = (SIZE // 2, SIZE // 2)
    picture = np.stack([np.asarray(Image.fromarray(frame.astype(np.uint8)).resize(half_size)) for frame in before])
    assert np.abs(inner - picture[:, 1:-1, 1:-1]).mean() < 25, "the picture, made small"


def test_the_corners_of_a_sheet_are_where_they_were_drawn() -> None:
    random = np.random.default_rng(0)
    seen = random.normal(size=(5, 4, 2)) * 0.1 + np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    images = np.array([[0.0, 0], [9, 0], [9, 9], [0, 9]])
    matrix = operators.homographies(seen, images)
    mapped = np.concatenate([seen, np.ones((5, 4, 1))], axis=2) @ matrix.transpose(0, 2, 1)
    assert np.abs(mapped[..., :2] / mapped[..., 2:] - images).max() < 1e-9


def test_a_reflection_has_its_lamp_where_it_was_drawn() -> None:
    _, after = only("reflection", plain(60), reflection_lamp=[10.5, 20.5, 6.0, 100.0])
    row, column = np.unravel_index(after[0][..., 0].argmax(), (SIZE, SIZE))
    assert (row, column) == (20, 10) and after[0].max() == pytest.approx(160, abs=2)
    assert after[0][-1, -1, 0] == pytest.approx(60, abs=2)


def test_a_second_camera_has_a_curve_of_its_own() -> None:
    _, after = only("rephotograph", plain(128), rephotograph_curve=[1.5, 0.8, 0.1])
    assert np.abs(after - 255 * ((128 / 255) ** 1.5 * 0.8 + 0.1)).max() <= 1
    before, soft = only("rephotograph", clip(4), rephotograph_curve=[1.0, 1.0, 0.0], rephotograph_size=[SIZE / 2] * 2)
    assert np.abs(np.diff(soft, axis=2)).mean() < 0.9 * np.abs(np.diff(before, axis=2)).mean()


def test_strength_is_of_the_picture_and_not_of_its_size() -> None:
    """Lengths are in pixels of a picture 224 pixels wide: twice the size, half the waves a pixel."""
    u = np.random.default_rng(1).random((3, operators.NUM_UNIFORMS))
    one, other = (operators.draw_halftone(u, size)["halftone_vectors"] for size in (112, 224))
    assert np.allclose(one, 2 * other)
