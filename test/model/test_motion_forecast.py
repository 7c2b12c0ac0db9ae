# SPDX-License-Identifier: Apache-2.0
"""Check the forecast of motion: comparison of frames, moved boxes, state and scheduler."""
from dataclasses import replace
import math

from forecast_detector_ros.model.config import ConfigError, NetworkConfig
from forecast_detector_ros.model.motion_forecast import (
    ahead,
    changes,
    Comparison,
    displacement,
    Keys,
    LEVELS,
    LONGEST,
    MotionScheduler,
    TERMS,
)
from forecast_detector_ros.model.network import ForecastDetector
from forecast_detector_ros.model.scheduler import unit_vectors
from forecast_detector_ros.model.ssdlite import box_coder
import pytest
import torch

SHAPE = NetworkConfig(
    classes=3, input_size=(64, 96), width=0.35, tail=False, levels=(8, 16, 32),
    feature_channels=(8, 12, 16), lstm_channels=(4, 4, 4), neck_channels=8,
    extra_channels=(8,), aspect_ratios=(2,), anchor_scales=(0.1, 0.9),
    anchor_spacing='geometric', forecast_mode='motion', motion_channels=8, scheduler_channels=8)


@pytest.fixture(params=[False, True], ids=['features', 'boxes'])
def shape(request):
    """Return a configuration that compares only features, or also boxes."""
    return replace(SHAPE, motion_from_boxes=request.param)


@pytest.fixture
def network(shape):
    """Return a small network whose motion is not zero."""
    torch.manual_seed(3)
    result = ForecastDetector(shape).eval()
    for predictor in result.motion.encoder.predictors:
        torch.nn.init.normal_(predictor[2].weight, std=0.5)
        torch.nn.init.normal_(predictor[2].bias, std=0.5)
    return result


@pytest.fixture
def pictures():
    """Return a function that makes pictures of noise."""
    generator = torch.Generator().manual_seed(5)

    def make(count=1):
        return torch.randint(0, 256, (count, 64, 96, 3), dtype=torch.uint8, generator=generator)

    return make


def test_displacement_has_a_lasting_and_a_passing_part():
    """The lasting motion continues at constant speed; the passing motion comes to rest."""
    motion = torch.cat((torch.ones(1, 2, 4), torch.full((1, 2, 4), 10.0)), 2)
    assert motion.shape[2] == 4 * TERMS
    for time in (0.0, 0.5, 3.0):
        expected = time + 10.0 * time / (1.0 + time)
        moved = displacement(motion, torch.tensor([[time]]))
        assert moved == pytest.approx(torch.full_like(moved, expected))


def test_time_ahead_is_a_ratio_and_zero_before_the_second_read():
    """The motion is unknown before the second read."""
    times = torch.tensor([[0.0, 0.0, 3.0], [1.0, 0.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1e9]])
    assert ahead(times)[:, 0].tolist() == [0.0, 0.0, 1.5, LONGEST]


def test_first_read_holds_boxes(network, pictures):
    """A forecast after only one read repeats the read."""
    read = network.read_step(pictures(), network.initial_state())
    forecast = network.forecast_step(read.state)
    assert torch.equal(forecast.head.logits, read.head.logits)
    assert torch.equal(forecast.head.offsets, read.head.offsets)


def test_forecast_moves_boxes_and_keeps_scores(network, pictures):
    """Scores are those of the last read; boxes move by the motion of their cells."""
    state = network.initial_state(2)
    state = network.read_step(pictures(2), state).state
    read = network.read_step(pictures(2), state, torch.tensor([[2.0], [1.0]]))
    forecast = network.forecast_step(read.state, torch.tensor([[1.0], [3.0]]))
    assert torch.equal(forecast.head.logits, read.head.logits)
    motion = read.state.motion.motion
    coder = box_coder()
    for stream, time in ((0, 0.5), (1, 3.0)):
        for anchor in (0, 7, len(network.anchors) - 1):
            x0, y0, x1, y1 = network.anchors[anchor].tolist()
            was, now = (coder.decode_single(output.head.offsets[stream, anchor:anchor + 1],
                                            network.anchors[anchor:anchor + 1])[0]
                        for output in (read, forecast))
            lasting, passing = motion[stream, anchor // 4].split(4)
            shift = lasting * time + passing * time / (1 + time)
            stride = network.anchor_strides[anchor]
            centre = ((now[:2] + now[2:]) - (was[:2] + was[2:])) / 2
            torch.testing.assert_close(centre, shift[:2] * stride, rtol=1e-3, atol=1e-2)
            growth = ((now[2:] - now[:2]) / (was[2:] - was[:2])).log()
            torch.testing.assert_close(growth, shift[2:], rtol=1e-3, atol=1e-3)


def test_only_ratios_of_times_count(network, pictures):
    """Times in seconds or in frames give the same forecast."""
    first, second = pictures(), pictures()
    offsets = []
    for unit in (1.0, 0.04):
        time = torch.tensor([[unit]])
        state = network.read_step(first, network.initial_state(), time).state
        state = network.forecast_step(state, time).state
        state = network.read_step(second, state, time).state
        offsets.append(network.forecast_step(state, time).head.offsets)
    torch.testing.assert_close(*offsets)


def test_state_is_a_value(network, pictures):
    """No step changes the state that it is given."""
    state = network.read_step(pictures(), network.initial_state()).state
    before = [part.clone() for part in (state.motion.offsets, state.motion.times,
                                        *state.motion.keys.maps)]
    network.forecast_step(state)
    network.read_step(pictures(), state)
    after = (state.motion.offsets, state.motion.times, *state.motion.keys.maps)
    assert all(torch.equal(a, b) for a, b in zip(before, after))


def test_persistence_holds_boxes(pictures, shape):
    """The forecast of `persistence` does not move boxes."""
    network = ForecastDetector(replace(shape, variant='persistence')).eval()
    for predictor in network.motion.encoder.predictors:
        torch.nn.init.ones_(predictor[2].bias)
    state = network.read_step(pictures(), network.initial_state()).state
    read = network.read_step(pictures(), state)
    assert torch.equal(network.forecast_step(read.state).head.offsets, read.head.offsets)


def test_untrained_forecast_holds_boxes(pictures, shape):
    """Training starts with a forecast equal to the last read."""
    network = ForecastDetector(shape).eval()
    state = network.read_step(pictures(), network.initial_state()).state
    read = network.read_step(pictures(), state)
    assert torch.equal(network.forecast_step(read.state).head.offsets, read.head.offsets)


def test_motion_needs_three_levels():
    """The message names the key."""
    with pytest.raises(ConfigError, match='levels'):
        replace(SHAPE, levels=(16, 32), feature_channels=(12, 16), lstm_channels=(4, 4))


def test_view_of_a_cell_is_the_box_of_its_best_anchor():
    """The view is the box decoded for that anchor, in cells, relative to the cell's centre."""
    network = ForecastDetector(replace(SHAPE, motion_from_boxes=True))
    motion = network.motion
    generator = torch.Generator().manual_seed(4)
    offsets = torch.randn(1, len(network.anchors), 4, generator=generator)
    logits = torch.zeros(1, len(network.anchors), 4)
    logits[..., 0] = 20.0
    chosen = [5, 42, len(network.anchors) - 2]
    logits[0, chosen, 2] = 40.0
    views = motion.cell_views(logits, offsets)
    for anchor in chosen:
        x0, y0, x1, y1 = box_coder().decode_single(
            offsets[0, anchor:anchor + 1], network.anchors[anchor:anchor + 1])[0]
        a0, b0, a1, b1 = network.anchors[anchor]
        stride = network.anchor_strides[anchor]
        expected = torch.stack((torch.tensor(1.0), (x0 + x1 - a0 - a1) / 2 / stride,
                                (y0 + y1 - b0 - b1) / 2 / stride, ((x1 - x0) / stride).log(),
                                ((y1 - y0) / stride).log()))
        torch.testing.assert_close(views[0, anchor // motion.per_cell], expected, rtol=1e-3,
                                   atol=1e-3)
    torch.testing.assert_close(views[..., 0].sum(), torch.tensor(3.0))


def test_boxes_of_the_earlier_read_change_the_motion(pictures):
    """The comparison of boxes affects the motion."""
    torch.manual_seed(6)
    network = ForecastDetector(replace(SHAPE, motion_from_boxes=True)).eval()
    for predictor in network.motion.encoder.predictors:
        torch.nn.init.normal_(predictor[2].weight, std=0.5)
        torch.nn.init.normal_(predictor[2].bias, std=0.5)
    state = network.read_step(pictures(), network.initial_state()).state
    views = state.motion.keys.views
    moved = views + torch.tensor((0.0, 0.5, 0.0, 0.0, 0.0))
    other = state._replace(motion=state.motion._replace(
        keys=state.motion.keys._replace(views=moved)))
    picture = pictures()
    motions = [network.read_step(picture, before).state.motion.motion
               for before in (state, other)]
    assert not torch.allclose(*motions)


def test_changes_are_zero_for_the_same_frame_and_one_without_any():
    """A frame's change is 0 from itself, 2 from its negative, and 1 without an earlier frame."""
    generator = torch.Generator().manual_seed(7)
    maps = tuple(unit_vectors(torch.randn(2, 5, side, side + 1, generator=generator))
                 for side in (4, 3, 2))
    for factor, expected in ((1.0, 0.0), (-1.0, 2.0), (0.0, 1.0)):
        before = Keys(tuple(factor * one for one in maps))
        found = changes(Keys(maps), before)
        torch.testing.assert_close(found, torch.full((2, LEVELS), expected), atol=1e-5, rtol=0)


def test_scheduler_keeps_speeds_changes_and_scores_of_a_read(network, pictures):
    """The summary equals a computation cell by cell."""
    state = network.read_step(pictures(), network.initial_state()).state.motion
    generator = torch.Generator().manual_seed(8)
    motion = torch.randn(state.motion.shape, generator=generator)
    scores = torch.rand(motion.shape[:2], generator=generator)
    differ = torch.tensor([[0.1, 0.2, 0.3]])
    summary = MotionScheduler(8).summarise(
        Comparison(state._replace(motion=motion), scores, differ))[0].tolist()
    speeds = [[score * max(map(abs, cell[4 * term:4 * term + 4]))
               for cell, score in zip(motion[0].tolist(), scores[0].tolist())]
              for term in range(TERMS)]
    everything = sum(scores[0].tolist())
    assert summary == pytest.approx([
        *map(max, speeds), *(sum(speed) / (everything + 1.0) for speed in speeds), 0.1, 0.2, 0.3,
        float(scores.max()), math.log1p(everything)], rel=1e-4)


def test_scheduler_judges_each_time_ahead_by_itself():
    """A later frame gets another score from the same summary."""
    torch.manual_seed(9)
    scheduler = MotionScheduler(8).eval()
    summary = torch.rand(1, scheduler.size).expand(2, -1)
    near, far = scheduler(summary, torch.tensor([[1.0], [4.0]]))
    assert not torch.allclose(near, far)
    torch.testing.assert_close(near, scheduler(summary[:1], torch.tensor([[1.0]]))[0])
