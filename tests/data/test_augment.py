"""Each augmentation, alone: off it changes nothing, on it does what its name says, and its parameters keep their
range."""

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
}


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_off_changes_nothing(name: str) -> None:
    before, after = apply(name, **ON[name], **{f"{name}_on": np.bool_(False)})
    assert (before == after).all()


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_probability_of_zero_leaves_the_graph(name: str) -> None:
    config = AugmentConfig()
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


EFFECTS: dict[str, Callable[[np.ndarray, np.ndarray], bool]] = {
    "downscale": lambda before, after: high_frequencies(after) < 0.9 * high_frequencies(before),
    "color": lambda before, after: bool(np.abs(after - before / 2).max() <= 1),
    "grayscale": lambda before, after: bool(np.ptp(after, axis=3).max() <= 1 < np.ptp(before, axis=3).max()),
    "blur": lambda before, after: high_frequencies(after) < 0.8 * high_frequencies(before),
    "jpeg": like_pillow_jpeg,
    "erase": erased,
}


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_on_does_what_the_name_says(name: str) -> None:
    before, after = apply(name, **ON[name], **{f"{name}_on": np.bool_(True)})
    assert before.shape == after.shape and EFFECTS[name](before, after)


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
    assert (drawn["erase_shape"].prod(axis=1) <= config.erase_scale_max * 224**2).all()
