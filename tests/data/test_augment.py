"""Each augmentation, alone: off it changes nothing, on it does what its name says, within its range."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from livetrain.config import AugmentConfig
from livetrain.data import augment
from tests.data.test_graph import FRAMES, SIZE, clip, make_graph, params

BY_NAME = {item.name: item for item in augment.AUGMENTATIONS}


def apply(name: str, **parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(before, after) of one clip, float32 [F, S, S, 3]."""
    frames = clip(7)
    inputs = params(1) | {key: value[None] for key, value in parameters.items()}
    out = make_graph(augmentations=[BY_NAME[name]], example=inputs).run([frames], FRAMES[:1], inputs)
    return frames.astype(np.float32), out[0].numpy().transpose(0, 2, 3, 1)


ON: dict[str, dict[str, np.ndarray]] = {
    "downscale": {"downscale_size": np.float32([8, 8])},
    "color": {
        "brightness": np.float32(0.5),
        "contrast": np.float32(1),
        "saturation": np.float32(1),
        "hue": np.float32(0),
    },
    "grayscale": {},
    "blur": {"blur_sigma": np.float32(2)},
    "jpeg": {"jpeg_quality": np.int32(10)},
    "erase": {"erase_anchor": np.float32([4, 6]), "erase_shape": np.float32([10, 5])},
    "flip_vertical": {},
    "affine": {"affine_matrix": np.float32([[1, 0, 3], [0, 1, -2]])},
    "tremble": {"tremble_matrix": np.float32([[[1, 0, 3 + t % 2], [0, 1, -2]] for t in range(augment.PATH)])},
    "gamma": {"gamma_power": np.float32(2)},
    "temperature": {"temperature_gains": np.float32([1.2, 1, 0.8])},
    "motion_blur": {"motion_blur_kernel": np.full((1, 5), 0.2, np.float32)},
    "noise": {"noise_sigma": np.float32(10), "noise_anchor": np.int32([5, 60])},
}


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_off_changes_nothing(name: str) -> None:
    before, after = apply(name, **ON[name], **{f"{name}_on": np.bool_(False)})
    assert (before == after).all()


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_probability_of_zero_leaves_the_graph(name: str) -> None:
    config = AugmentConfig()
    setattr(config, name, 0.5)
    assert BY_NAME[name] in augment.active_augmentations(config)
    setattr(config, name, 0.0)
    assert BY_NAME[name] not in augment.active_augmentations(config)
    assert augment.active_augmentations(AugmentConfig(enabled=False)) == []


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_probability_is_obeyed(name: str) -> None:
    config = AugmentConfig()
    setattr(config, name, 0.3)
    u = np.random.default_rng(0).random((4000, augment.NUM_UNIFORMS))
    assert abs(BY_NAME[name].draw(u, config, SIZE)[f"{name}_on"].mean() - 0.3) < 0.03


def high_frequencies(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames, 2, axis=1)).mean())


def like_pillow_jpeg(before: np.ndarray, after: np.ndarray) -> bool:
    """Nearer to Pillow's JPEG of the same quality than to the original."""
    buffer = io.BytesIO()
    Image.fromarray(before[0].astype(np.uint8)).save(buffer, format="JPEG", quality=10)
    theirs = np.asarray(Image.open(io.BytesIO(buffer.getvalue()))).astype(np.float32)
    return np.abs(after[0] - theirs).mean() < 0.5 * np.abs(before[0] - theirs).mean()


def erased(before: np.ndarray, after: np.ndarray) -> bool:
    changed = np.zeros(before.shape[1:3], bool)
    changed[4:14, 6:11] = True
    return bool((after[:, changed] == 128).all() and (after[:, ~changed] == before[:, ~changed]).all())


def grainy(before: np.ndarray, after: np.ndarray) -> bool:
    """The sheet's grain at its place, the same in every frame, where no value is at an end of its range."""
    expected = np.clip(before + 10 * augment.grain(SIZE)[5 : 5 + SIZE, 60 : 60 + SIZE], 0, 255)
    return bool(np.abs(after - expected).max() <= 0.51)


def moved(before: np.ndarray, after: np.ndarray, right: int = 3) -> bool:
    """What was `right` to the right and 2 above."""
    return bool((after[:, 2:, :-right] == before[:, :-2, right:]).all())


EFFECTS: dict[str, Callable[[np.ndarray, np.ndarray], bool]] = {
    "downscale": lambda before, after: high_frequencies(after) < 0.9 * high_frequencies(before),
    "color": lambda before, after: bool(np.abs(after - before / 2).max() <= 1),
    "grayscale": lambda before, after: bool(np.ptp(after, axis=3).max() <= 1 < np.ptp(before, axis=3).max()),
    "blur": lambda before, after: high_frequencies(after) < 0.8 * high_frequencies(before),
    "jpeg": like_pillow_jpeg,
    "erase": erased,
    "flip_vertical": lambda before, after: bool((after == before[:, ::-1]).all()),
    "affine": moved,
    "tremble": lambda before, after: all(
        moved(before[t : t + 1], after[t : t + 1], 3 + t % 2) for t in range(len(before))
    ),
    "gamma": lambda before, after: bool(np.abs(after - 255 * (before / 255) ** 2).max() <= 0.51),
    "temperature": lambda before, after: bool(
        np.abs(after - np.clip(before * np.float32([1.2, 1, 0.8]), 0, 255)).max() <= 0.51
    ),
    "motion_blur": lambda before, after: bool(
        np.abs(after[:, :, 2:-2] - sum(before[:, :, i : i + SIZE - 4] for i in range(5)) / 5).max() <= 0.6
    ),
    "noise": grainy,
}


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_on_does_what_the_name_says(name: str) -> None:
    before, after = apply(name, **ON[name], **{f"{name}_on": np.bool_(True)})
    assert before.shape == after.shape and EFFECTS[name](before, after)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_clips_of_a_batch_are_treated_each_by_its_own_parameters(name: str) -> None:
    frames = [clip(7), clip(8), clip(7)]
    on = np.array([True, False, True])
    inputs = params(3) | {key: np.stack([value] * 3) for key, value in ON[name].items()} | {f"{name}_on": on}
    out = make_graph(augmentations=[BY_NAME[name]], example=inputs).run(frames, np.repeat(FRAMES[:1], 3, 0), inputs)
    clips = out.numpy().transpose(0, 1, 3, 4, 2)
    assert (clips[0] == apply(name, **ON[name], **{f"{name}_on": np.bool_(True)})[1]).all()
    assert (clips[1] == frames[1]).all() and (clips[2] == clips[0]).all()


def test_slots_are_nobody_elses() -> None:
    """The first six are those of runs that were begun before there were others."""
    slots = {item.name: item.slot for item in augment.AUGMENTATIONS}
    assert sorted(slots.values()) == list(range(len(slots)))
    assert [slots[name] for name in ("downscale", "color", "grayscale", "blur", "jpeg", "erase")] == list(range(6))


def test_a_motion_blur_is_a_line_of_its_length() -> None:
    config = AugmentConfig(motion_blur=1.0, motion_blur_length_max=9.0)
    u = np.zeros((3, augment.NUM_UNIFORMS))
    u[:, 1], u[:, 2] = 0.999, [0.0, 0.5, 0.25]
    kernels = augment.draw_motion_blur(u, config, 224)["motion_blur_kernel"]
    assert kernels.shape == (3, 11, 11) and np.allclose(kernels.sum(axis=(1, 2)), 1)
    assert np.allclose(kernels[0, [4, 6]], 0, atol=1e-6) and (kernels[0, 5, 1:10] > 0.08).all()
    assert np.allclose(kernels[1], kernels[0].T, atol=1e-6)
    assert (np.diag(kernels[2])[2:9] > 0.05).all()
    off = augment.draw_motion_blur(u, AugmentConfig(motion_blur=0.0), 224)["motion_blur_kernel"]
    assert (off[:, off.shape[1] // 2, off.shape[2] // 2] == 1).all()


def test_contrast_saturation_and_hue_each_act() -> None:
    neutral = ON["color"] | {"brightness": np.float32(1), "color_on": np.bool_(True)}
    before, same = apply("color", **neutral)
    assert np.abs(before - same).max() <= 1
    _, flat = apply("color", **(neutral | {"contrast": np.float32(0.5)}))
    assert np.abs(flat.std() / before.std() - 0.5) < 0.05
    _, pale = apply("color", **(neutral | {"saturation": np.float32(0.5)}))
    assert np.ptp(pale, axis=3).mean() < 0.6 * np.ptp(before, axis=3).mean()
    _, shifted = apply("color", **(neutral | {"hue": np.float32(60)}))
    assert np.abs(shifted - before).mean() > 5 and abs(shifted.mean() - before.mean()) < 8


def test_drawn_parameters_keep_their_ranges() -> None:
    config = AugmentConfig()
    u = np.random.default_rng(1).random((5000, augment.NUM_UNIFORMS))
    drawn = {key: value for item in augment.AUGMENTATIONS for key, value in item.draw(u, config, 224).items()}
    assert all(len(value) == 5000 and np.isfinite(value).all() for value in drawn.values())
    for name in ("brightness", "contrast", "saturation"):
        margin = getattr(config, name)
        assert 1 - margin <= drawn[name].min() < 1 - 0.9 * margin and 1 + 0.9 * margin < drawn[name].max() <= 1 + margin
    assert config.jpeg_quality_min == drawn["jpeg_quality"].min() and drawn["jpeg_quality"].max() == 95
    assert 224 * config.downscale_min - 1 <= drawn["downscale_size"].min() and drawn["downscale_size"].max() <= 224
    assert drawn["blur_sigma"].min() > 0 and drawn["blur_sigma"].max() <= config.blur_sigma_max
    corner = drawn["erase_anchor"] + drawn["erase_shape"]
    assert drawn["erase_anchor"].min() >= 0 and corner.max() <= 224
    assert np.abs(np.log(drawn["gamma_power"])).max() <= np.log(config.gamma_max) + 1e-6
    assert np.abs(drawn["temperature_gains"] - 1).max() <= config.temperature_max + 1e-6
    assert drawn["noise_anchor"].min() >= 0 and drawn["noise_anchor"].max() < augment.GRAIN_ROOM
    assert drawn["noise_sigma"].max() <= config.noise_sigma_max
    linear = drawn["affine_matrix"][:, :, :2].astype(np.float64)
    assert np.abs(np.log(np.linalg.det(linear)) / 2).max() <= np.log1p(config.affine_scale) + 1e-5
    middle = (linear @ np.full(2, 112.0)) + drawn["affine_matrix"][:, :, 2]
    limit = 224 * config.affine_translate * (1 + config.affine_scale) * 1.5
    assert np.abs(middle - 112).max() <= limit
    assert (drawn["erase_shape"].prod(axis=1) <= config.erase_scale_max * 224**2).all()


def test_a_hand_swings_within_its_reach_and_never_jumps() -> None:
    u = np.random.default_rng(0).random((200, augment.NUM_UNIFORMS))
    matrix = augment.draw_tremble(u, AugmentConfig(tremble=1.0, tremble_max=16.0), 112)["tremble_matrix"]
    shift = matrix[..., 2]
    assert (matrix[..., :2] == np.eye(2)).all() and shift.shape == (200, augment.PATH, 2)
    assert 6 < np.abs(shift).max() <= 8 and np.abs(shift).max(axis=(1, 2)).min() > 0.3, (
        "half of 16: the picture is half"
    )
    assert (np.ptp(shift, axis=1) > 0.2).all(), "it moves"
    assert np.abs(np.diff(shift, axis=1)).max() <= 2 * np.pi / 3 * 8
