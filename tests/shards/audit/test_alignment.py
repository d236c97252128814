"""Whether two clips are one recording: by what changes in them, not by what they show."""

from __future__ import annotations

import numpy as np
import pytest

from shards.audit import alignment
from shards.audit.alignment import SIDE, Thumbnails, Window, align, is_copy, warp


def take(seed: int, num_frames: int = 24, scene: int = 0, step: float = 0.125) -> Thumbnails:
    """A blob that wanders over a fixed scene: takes of one scene differ in its way alone."""
    background = np.random.default_rng(scene).normal(120, 30, (SIDE, SIDE))
    way = np.random.default_rng(seed).normal(0, 1.2, (num_frames, 2)).cumsum(0) + SIDE / 2
    y, x = np.mgrid[:SIDE, :SIDE]
    blobs = [90 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 18) for a, b in way]
    pixels = alignment.normalised(background[None].astype(np.float32)).reshape(SIDE, SIDE) * 30 + 120
    return Thumbnails((pixels + np.array(blobs)).astype(np.float32), np.arange(num_frames) * step)


def noisy(clip: Thumbnails, frames: slice = slice(None)) -> Thumbnails:
    noise = np.random.default_rng(9).normal(0, 2, clip.pixels.shape)
    seconds = clip.seconds[frames]
    return Thumbnails((clip.pixels + noise).astype(np.float32)[frames], seconds - seconds[0])


def test_another_take_of_the_same_scene_is_no_copy_however_alike_the_pictures_are() -> None:
    first, second = take(1), take(2)
    alike = np.corrcoef(first.pixels.mean(0).ravel(), second.pixels.mean(0).ravel())[0, 1]
    assert alike > 0.7, "the scene is the same"
    assert not is_copy(align(first, second))
    assert is_copy(align(first, noisy(first)))


def test_a_mirrored_copy_is_found_and_said_to_be_mirrored() -> None:
    first = take(1)
    found = align(first, noisy(Thumbnails(first.pixels[:, :, ::-1].copy(), first.seconds)))
    assert found is not None and found.mirrored and is_copy(found)


@pytest.mark.parametrize("other_way", [False, True])
def test_a_trimmed_copy_is_found_with_the_time_that_was_cut(other_way: bool) -> None:
    first = take(1)
    second = noisy(first, slice(6, 22))
    found = align(second, first) if other_way else align(first, second)
    assert found is not None and is_copy(found)
    assert found.offset == pytest.approx(0.75 if other_way else -0.75, abs=0.07)


@pytest.mark.parametrize("window", [Window(0.9, 0.9, 0.1, 0.02), Window(0.88, 0.93, 0.06, 0.0)])
@pytest.mark.parametrize("other_way", [False, True])
def test_a_cropped_copy_is_found_and_its_window_to_a_half_pixel(window: Window, other_way: bool) -> None:
    first = take(1)
    second = noisy(Thumbnails(warp(first.pixels, window)[0], first.seconds))
    found = align(second, first) if other_way else align(first, second)
    assert found is not None and is_copy(found)
    y, x = window.scale_y, window.scale_x
    expected = Window(1 / y, 1 / x, -window.shift_y / y, -window.shift_x / x) if other_way else window
    for name in ("scale_y", "scale_x", "shift_y", "shift_x"):
        assert getattr(found.window, name) == pytest.approx(getattr(expected, name), abs=0.5 / SIDE), name


def test_frames_between_those_of_the_other_clip_are_compared_with_what_lies_between() -> None:
    fine = take(1, num_frames=49, step=0.0625)
    even = Thumbnails(fine.pixels[::2], fine.seconds[::2])
    odd = noisy(Thumbnails(fine.pixels[1::2], fine.seconds[1::2] - fine.seconds[1]))
    assert is_copy(align(even, odd))


def test_two_halves_of_a_clip_share_nothing_and_are_no_copies() -> None:
    whole = take(1, num_frames=32)
    first, second = (noisy(whole, part) for part in (slice(0, 16), slice(16, 32)))
    assert not is_copy(align(first, second))


def test_single_frames_and_blank_clips_end_in_an_answer() -> None:
    one = Thumbnails(take(1).pixels[:1], np.zeros(1))
    blank = Thumbnails(np.full((5, SIDE, SIDE), 7, np.float32), np.arange(5) / 8)
    assert not is_copy(align(one, take(2)))
    assert not is_copy(align(blank, take(1)))
    assert align(blank, blank) is None, "nothing to lay over each other"
