"""The plan: a pure function of (seed, step), the same however many processes ask, each sample once an epoch."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livetrain.config import Config, load_config
from livetrain.core.errors import UserError
from livetrain.data import PADDING, clip_facts, frame_choice, plan, region
from livetrain.data import mixup as blending
from livetrain.data.clip_plan import ClipPlan
from livetrain.data.mixup import Blend
from livetrain.data.plan import Samples


def make_samples(n: int) -> Samples:
    """Samples at every third row of an index."""
    numbers = np.arange(n).repeat(3)
    columns = {
        "num_frames": 10 + numbers % 50,
        "duration_seconds": (10 + numbers % 50) / 25.0,
        "fps": np.full(3 * n, 25.0),
        "height": np.full(3 * n, 240),
        "width": np.full(3 * n, 320),
        "rotation": (numbers % 4) * 90,
        "coded_height": np.full(3 * n, 240),
        "coded_width": np.full(3 * n, 320),
        "sample_aspect_ratio": np.ones(3 * n),
    }
    return Samples(np.arange(n) * 3 + 1, columns)


def make_config(global_batch: int = 12, accumulation: int = 1, seed: int = 5) -> Config:
    config = Config()
    config.seed, config.train.global_batch, config.train.accumulation = seed, global_batch, accumulation
    return config


def step_plan(samples: Samples, config: Config, step: int, world: int) -> ClipPlan:
    """The whole update: the parts of all processes, joined in the order of the stream."""
    parts = [
        plan.plan_train(samples, config, step, micro, rank, world)
        for micro in range(config.train.accumulation)
        for rank in range(world)
    ]
    params = {name: np.concatenate([part.params[name] for part in parts]) for name in parts[0].params}
    frames = np.concatenate([part.frames for part in parts])
    shares, cuts = (np.concatenate([getattr(part.blend, name) for part in parts]) for name in ("shares", "cuts"))
    rows, recaptured = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "recaptured"))
    return ClipPlan(step, rows, frames, params, recaptured, Blend(shares, cuts))


def assert_same(a: ClipPlan, b: ClipPlan) -> None:
    assert (a.rows == b.rows).all() and (a.frames == b.frames).all() and a.params.keys() == b.params.keys()
    assert (
        all((a.params[name] == b.params[name]).all() for name in a.params) and (a.blend.shares == b.blend.shares).all()
    )
    assert (a.blend.cuts == b.blend.cuts).all()


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 90),
    step=st.integers(0, 10**6),
    world=st.sampled_from([1, 2, 3, 4, 6]),
    accumulation=st.sampled_from([1, 2]),
)
def test_processes_and_accumulation_change_nothing(n: int, step: int, world: int, accumulation: int) -> None:
    samples = make_samples(n)
    one = step_plan(samples, make_config(24), step, 1)
    assert_same(one, step_plan(samples, make_config(24, accumulation), step, world))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 200), batch=st.integers(1, 17), seed=st.integers(0, 2**40))
def test_an_epoch_covers_each_sample_exactly_once(n: int, batch: int, seed: int) -> None:
    """Over any number of epochs: the stream cut every n samples gives each of them once, across batch borders."""
    samples, config = make_samples(n), make_config(batch, seed=seed)
    epochs = 3
    steps = -(-epochs * n // batch)
    stream = np.concatenate([plan.plan_train(samples, config, step, 0, 0, 1).rows for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n].tolist()) == samples.rows.tolist()


def test_the_plan_is_the_same_in_another_process() -> None:
    """No hidden state: a fresh interpreter plans the same step to the same numbers."""
    code = (
        "from tests.data.test_plan import *; import hashlib\n"
        "p = step_plan(make_samples(40), make_config(), 77, 2)\n"
        "print(hashlib.sha256(b''.join(np.ascontiguousarray(p.params[k]).tobytes() for k in sorted(p.params))"
        " + p.rows.tobytes() + p.frames.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = io.StringIO()
    with contextlib.redirect_stdout(here):
        exec(code, {})
    assert other == here.getvalue() and len(other) == 65


def test_a_sample_is_seen_differently_each_epoch() -> None:
    samples, config = make_samples(1), make_config(1)
    first, second = (plan.plan_train(samples, config, step, 0, 0, 1) for step in (0, 1))
    assert first.rows == second.rows
    assert (first.params["box"] != second.params["box"]).any() and (first.frames != second.frames).any()


def test_adding_an_augmentation_leaves_the_others_alone() -> None:
    samples, config = make_samples(30), make_config(30)
    fewer = copy.deepcopy(config)
    fewer.augment.downscale = 0.0
    a, b = (plan.plan_train(samples, c, 0, 0, 0, 1).params for c in (config, fewer))
    assert a.keys() - b.keys() == {"downscale_on", "downscale_size"}
    assert all((a[name] == b[name]).all() for name in b)


def test_a_batch_that_does_not_divide_says_what_does() -> None:
    with pytest.raises(UserError, match="global_batch=12 does not divide over 5 processes.*1, 2, 3, 4, 6, 12"):
        plan.micro_batch_size(make_config(), 5)


def test_mixup_pairs_are_the_same_for_any_number_of_processes() -> None:
    samples, config = make_samples(50), make_config(24)
    config.augment.mixup, config.augment.mixup_alpha = 0.6, 1.0
    whole = step_plan(samples, config, 7, 1)
    for world in (2, 3, 4, 6):
        assert_same(step_plan(samples, config, 7, world), whole)
    assert (whole.blend.shares[0::2] == whole.blend.shares[1::2]).all()
    assert ((whole.blend.shares > 0) & (whole.blend.shares <= 1)).all()
    assert not (step_plan(samples, config, 8, 1).blend.shares == whole.blend.shares).all()
    with pytest.raises(UserError, match="augment.mixup and augment.cutmix blend pairs"):
        step_plan(samples, config, 7, 8)


def test_cutmix_cuts_what_its_share_leaves() -> None:
    config = make_config()
    config.augment.mixup, config.augment.cutmix = 0.3, 0.5
    drawn = blending.planned(config, np.arange(0, 8000, 2))
    cut = drawn.cuts.any(axis=1)
    assert cut.mean() == pytest.approx(0.5, abs=0.03) and ((drawn.shares < 1) & ~cut).mean() > 0.2
    top, left, bottom, right = drawn.cuts[cut].T
    size = config.data.image_size
    assert ((top >= 0) & (left >= 0) & (bottom <= size) & (right <= size)).all()
    assert drawn.shares[cut] == pytest.approx(1 - (bottom - top) * (right - left) / size**2)
    samples, config = make_samples(50), make_config(24)
    config.augment.cutmix = 1.0
    assert_same(step_plan(samples, config, 7, 3), step_plan(samples, config, 7, 1))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.5, 0.5), (0.0, 0.3), (0.6, 0.2)])
def test_each_way_to_blend_happens_as_often_as_its_key_says(mixup: float, cutmix: float) -> None:
    """2,000 pairs: three standard errors are 3.4 points. (0.5 and 0.5 used to give 25 % of cutmix.)"""
    config = make_config()
    config.augment.mixup, config.augment.cutmix = mixup, cutmix
    found = blending.planned(config, np.arange(4000))
    cut = found.cuts.any(axis=1)[::2].mean()
    mixed = ((found.shares < 1) & ~found.cuts.any(axis=1))[::2].mean()
    assert cut == pytest.approx(cutmix, abs=0.034) and mixed == pytest.approx(mixup, abs=0.034)
    with pytest.raises(UserError, match="add up to more than 1"):
        load_config([], ["data.shards=x", "augment.mixup=0.6", "augment.cutmix=0.5"], warn=lambda line: None)


def test_mixup_shares_are_beta_distributed() -> None:
    config = make_config()
    assert (blending.planned(config, np.arange(10)).shares == 1).all(), "off by default"
    config.augment.mixup, config.augment.mixup_alpha = 0.25, 2.0
    shares = blending.planned(config, np.arange(0, 8000, 2)).shares
    mixed = shares[shares < 1]
    assert len(mixed) / len(shares) == pytest.approx(0.25, abs=0.03)
    assert mixed.mean() == pytest.approx(0.5, abs=0.02) and mixed.var() == pytest.approx(1 / 20, rel=0.1)  # Beta(2, 2)
    config.augment.enabled = False
    assert (blending.planned(config, np.arange(10)).shares == 1).all()


def test_odd_parts_are_fine_where_nothing_is_blended() -> None:
    config = make_config(24)
    config.augment.mixup, config.augment.enabled = 0.6, False
    assert plan.micro_batch_size(config, 8) == 3
    config.augment.mixup, config.augment.enabled = 0.0, True
    assert plan.micro_batch_size(config, 8) == 3


def test_clips_are_mirrored_as_often_as_the_key_says() -> None:
    samples, config = make_samples(4000), make_config(4000)
    for flip, enabled, share in ((0.25, True, 0.25), (1.0, True, 1.0), (0.0, True, 0.0), (1.0, False, 0.0)):
        config.augment.flip, config.augment.enabled = flip, enabled
        found = plan.plan_train(samples, config, 3, 0, 0, 1)
        assert found.params["flip"].mean() == pytest.approx(share, abs=0.02), "three standard errors"
        assert (found.params["angle"] == -samples.columns["rotation"][found.rows]).all() and not found.recaptured.any()
    assert not plan.plan_evaluation(samples, config, 0, 0, 1).params["flip"].any()


def test_a_label_of_a_half_is_live_and_becomes_an_attack_too() -> None:
    samples, config = make_samples(40), make_config(40)
    samples.columns["label"] = np.where(np.arange(120) % 2, 0.5, np.float32(0.49))  # type: ignore[index]
    config.augment.recapture = 1.0
    found = plan.plan_train(samples, config, 0, 0, 0, 1)
    assert ((found.recaptured > 0) == (samples.columns["label"][found.rows] >= 0.5)).all()
    assert 0 < (found.recaptured > 0).sum() < 40


def test_steps_and_epochs() -> None:
    config = make_config(10)
    config.train.epochs = 2
    assert plan.num_train_steps(95, config) == 19
    assert plan.epoch_of_step(19, 95, config) == 2.0
    config.train.max_steps = 1
    assert plan.num_train_steps(95, config) == 1
    config.train.max_steps, config.train.epochs = 0, 0
    assert plan.num_train_steps(95, config) == 1, "one at least"


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 100), batch=st.integers(1, 9), world=st.integers(1, 4))
def test_evaluation_covers_each_sample_once_with_equal_batches(n: int, batch: int, world: int) -> None:
    samples, config = make_samples(n), make_config()
    config.eval.batch_size = batch
    num = plan.num_evaluation_batches(n, config, world)
    rows = [plan.plan_evaluation(samples, config, b, r, world).rows for b in range(num) for r in range(world)]
    assert all(len(part) == batch for part in rows)
    seen = np.concatenate(rows)
    assert seen[seen != PADDING].tolist() == samples.rows.tolist()
    assert num * world * batch - n < world * batch


def test_all_frames_of_a_clip_are_seen_alone() -> None:
    samples, config = make_samples(7), make_config()
    config.eval.num_frames, config.eval.batch_size = 0, 4
    assert plan.num_evaluation_batches(7, config, 1) == 7
    for number in range(7):
        found = plan.plan_evaluation(samples, config, number, 0, 1)
        assert found.rows.tolist() == [samples.rows[number]]
        assert found.frames.tolist() == [list(range(samples.columns["num_frames"][samples.rows[number]]))]


def test_segments_are_one_frame_each() -> None:
    lengths = np.array([8, 80, 81, 3])
    u = np.random.default_rng(0).random((4, 8))
    frames = frame_choice.segment_frames(lengths, 8, u)
    for length, row in zip(lengths, frames, strict=True):
        assert (row >= np.floor(np.arange(8) * length / 8)).all()
        assert (row <= np.ceil(np.arange(1, 9) * length / 8)).all() and row.max() < length
    assert frames[0].tolist() == list(range(8))
    assert frame_choice.segment_frames(np.array([80]), 8, None)[0].tolist() == list(range(5, 80, 10))
    assert frame_choice.segment_frames(np.array([3]), 4, np.full((1, 4), 0.999))[0].max() == 2


def test_strides_are_every_nth_frame() -> None:
    samples, config = make_samples(40), make_config(40)
    config.data.sampling, config.data.frame_stride, config.data.num_frames = "stride", 3, 4
    drawn = plan.plan_train(samples, config, 0, 0, 0, 1)
    lengths = samples.columns["num_frames"][drawn.rows]
    assert (np.diff(drawn.frames) == 3).all() and (drawn.frames[:, -1] < lengths).all()
    assert len(set(drawn.frames[lengths > 30, 0].tolist())) > 3, "they begin anywhere"
    config.data.frame_stride = 20
    assert (plan.plan_train(samples, config, 0, 0, 0, 1).frames <= lengths[:, None] - 1).all(), "the last is repeated"
    config.eval.num_frames, config.eval.batch_size, config.data.frame_stride = 3, 1, 1
    middle = plan.plan_evaluation(samples, config, 0, 0, 1).frames[0]
    length = samples.columns["num_frames"][samples.rows[0]]
    assert np.diff(middle).tolist() == [1, 1] and abs(middle.mean() - (length - 1) / 2) <= 0.5


def test_intervals_follow_the_frames_own_times() -> None:
    """A camera that slowed down: 20 frames in the first second, 5 in each of the next two."""
    times = np.concatenate([np.arange(20) / 20, 1 + np.arange(11) / 5]).astype(np.float32)
    assert frame_choice.timed_frames(times, 0.6, 5, 0.0).tolist() == [0, 12, 21, 24, 27]
    assert frame_choice.timed_frames(times, 0.6, 5, 0.2).tolist() == [2, 14, 22, 25, 28]  # from 0.12 s of 3.0
    assert frame_choice.timed_frames(times, 0.82, 3, None).tolist() == [14, 23, 27]  # from 0.68 s; 1.5 s is between two
    assert frame_choice.timed_frames(times, 5.0, 3, 0.7).tolist() == [0, 30, 30]
    even = np.arange(31, dtype=np.float32) / 25
    for u in (0.0, 0.33, 0.99):
        planned = frame_choice.interval_frames(np.array([31]), np.array([25.0]), 0.2, 4, np.array([u]))
        assert np.abs(frame_choice.timed_frames(even, 0.2, 4, u) - planned[0]).max() <= 1

    samples = make_samples(6)
    slowed = dataclasses.replace(
        samples, frame_seconds=lambda row: times[:10] ** 2 if row == 4 else clip_facts.evenly_spaced(row)
    )
    config = make_config()
    config.data.sampling, config.data.frame_interval_seconds = "interval", 0.1
    one, other = (plan.plan_evaluation(item, config, 0, 0, 1).frames for item in (samples, slowed))
    assert [(a != b).any() for a, b in zip(one[:6], other[:6], strict=True)] == [False, True] + [False] * 4


def test_intervals_are_seconds_apart() -> None:
    rate = np.array([30.0, 29.97, 15.0, 30.0])
    lengths = np.array([100, 100, 100, 5])
    for u in (None, np.array([0.0, 0.5, 0.999, 0.3])):
        frames = frame_choice.interval_frames(lengths, rate, 0.2, 4, u)
        assert np.diff(frames[0]).tolist() == [6, 6, 6] and np.diff(frames[2]).tolist() == [3, 3, 3]
        assert (np.abs(np.diff(frames[1]) - 6) <= 1).all()
        assert frames[3].tolist() == [0, 4, 4, 4]  # too short: the last frame repeats
        assert frames.max() < 100
    assert frame_choice.interval_frames(lengths, rate, 0.2, 4, None)[0].tolist() == [41, 47, 53, 59]  # 40.5, rounded


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_coded_box_is_the_upright_box_turned_back(rotation: int) -> None:
    """Cut the box from the turned picture, or cut the coded box and turn: the same pixels."""
    coded = np.arange(40 * 60).reshape(40, 60)
    upright = np.rot90(coded, -rotation // 90)
    height, width = upright.shape
    box = np.array([[0.1, 0.25, 0.6, 0.75]])  # of the upright picture
    top, bottom = (int(round(v * height)) for v in (0.1, 0.6))
    left, right = (int(round(v * width)) for v in (0.25, 0.75))
    t, l, b, r = region.coded_box(box, np.array([rotation]))[0]  # noqa: E741
    cut = coded[round(t * 40) : round(b * 40), round(l * 60) : round(r * 60)]
    assert (np.rot90(cut, -rotation // 90) == upright[top:bottom, left:right]).all()


@pytest.mark.parametrize("fit", ["stretch", "center", "pad"])
def test_random_boxes_keep_area_and_ratio(fit: str) -> None:
    samples, config = make_samples(4000), make_config(4000)
    config.data.fit = fit
    upright_lying = samples.facts(np.arange(4000)).rotation % 180 == 90
    p = plan.plan_train(samples, config, 0, 0, 0, 1)
    order = (p.rows - 1) // 3
    box = p.params["box"].astype(np.float64)
    assert box.min() >= 0 and box.max() <= 1 + 1e-6
    if fit == "pad":  # the window, of a picture of 320x240 as it is stored
        sides = p.params["window"][:, 0].astype(np.float64) / [240, 320, 240, 320]
        box[:, :2] += sides[:, :2]
        box[:, 2:] = box[:, :2] + sides[:, 2:]
        assert box.min() > -1 / 6 - 0.01 and box.max() < 7 / 6 + 0.01 and box.min() < -0.1
    height, width = (box[:, 2] - box[:, 0]), (box[:, 3] - box[:, 1])
    height, width = np.where(upright_lying[order], width, height), np.where(upright_lying[order], height, width)
    if fit == "center":
        tall = np.where(upright_lying[order], 320, 240)
        wide = np.where(upright_lying[order], 240, 320)
        height, width = height * tall / 240, width * wide / 240
    if fit == "pad":
        lying = upright_lying[order]
        height, width = height * np.where(lying, 1, 0.75), width * np.where(lying, 0.75, 1)
    area, ratio = height * width, width / height
    aug = config.augment
    assert area.min() > 0.9 * aug.crop_scale_min and area.max() <= aug.crop_scale_max + 0.02  # even pixels
    assert area.std() > 0.05 and ratio.std() > 0.03
    inside = (height < 0.999) & (width < 0.999)
    assert ratio[inside].min() > aug.crop_ratio_min - 0.02 and ratio[inside].max() < aug.crop_ratio_max + 0.02


def test_center_fit_is_the_central_square() -> None:
    samples, config = make_samples(4), make_config()
    config.data.fit, config.eval.batch_size = "center", 4
    boxes = plan.plan_evaluation(samples, config, 0, 0, 1).params["box"]
    assert np.allclose(boxes, np.tile([0, 0.125, 1, 0.875], (4, 1)))  # 320x240 coded, however it is turned


def test_pad_is_the_square_around_the_picture() -> None:
    samples, config = make_samples(4), make_config()
    config.data.fit, config.eval.batch_size = "pad", 4
    params = plan.plan_evaluation(samples, config, 0, 0, 1).params
    assert np.allclose(params["box"], np.tile([0, 0, 1, 1], (4, 1)))
    assert (params["window"] == [-40, 0, 320, 320]).all()  # 320x240 coded, however it is turned


def test_a_box_is_of_the_coded_frame_whose_upper_left_is_the_picture() -> None:
    samples, config = make_samples(4), make_config()
    plain = plan.plan_train(samples, config, 0, 0, 0, 1).params["box"]
    samples.columns["coded_height"][:] = 256
    samples.columns["coded_width"][:] = 336
    coded = plan.plan_train(samples, config, 0, 0, 0, 1).params["box"]
    assert np.allclose(coded * [256, 336, 256, 336], plain * [240, 320, 240, 320], atol=1e-3)
    assert coded.max() < 1
    config.eval.batch_size = 4
    whole = plan.plan_evaluation(samples, config, 0, 0, 1).params["box"]
    assert np.allclose(whole, np.tile([0, 0, 240 / 256, 320 / 336], (4, 1)))


def test_the_central_square_is_one_of_what_a_player_shows() -> None:
    """Pixels of 4:3 make 320x240 a picture of 427x240; turned by a quarter, of 240x427."""
    samples, config = make_samples(4), make_config()
    samples.columns["sample_aspect_ratio"][:] = 4 / 3
    config.data.fit, config.eval.batch_size = "center", 4
    margin = 70 / 320  # 240 of 427 shown are 180 of 320 stored
    boxes = plan.plan_evaluation(samples, config, 0, 0, 1).params["box"]
    assert np.allclose(boxes, np.tile([0, margin, 1, 1 - margin], (4, 1)))
    config.data.apply_sar = False
    boxes = plan.plan_evaluation(samples, config, 0, 0, 1).params["box"]
    assert np.allclose(boxes, np.tile([0, 0.125, 1, 0.875], (4, 1)))


def test_each_epoch_has_all_samples_in_an_order_of_its_own() -> None:
    samples = make_samples(50)
    epochs, order = samples.at(np.arange(150), seed=0)
    assert (epochs == np.arange(150) // 50).all()
    first, second, third = order.reshape(3, 50).tolist()
    assert sorted(first) == sorted(second) == sorted(third) == list(range(50))
    assert len({tuple(first), tuple(second), tuple(third)}) == 3
    assert samples.at(np.arange(50), seed=1)[1].tolist() != first
