# SPDX-License-Identifier: Apache-2.0
"""Forecasts from every frame on, against streams that are stepped one by one."""

from dataclasses import replace

from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.evaluation.horizon_runs import reads_before, Rollouts, run_horizons
from forecast_detector_ros.evaluation.sequences import as_frame, picture
import numpy as np
import pytest

SETTINGS = DetectorSettings(score_threshold=0.3, max_detections=10)
READ = replace(SETTINGS, policy=AlwaysReadPolicy())
FORECAST = replace(SETTINGS, policy=AlternatePolicy(9), max_consecutive_forecasts=9)


def one_by_one(detector, item, horizons, every):
    """Step every stream and every forecast on its own."""
    frames = [as_frame(picture(record)) for record in item.frames]
    found = {}
    for phase in range(every):
        state = StreamState.initial()
        for number, frame in enumerate(frames):
            due = number <= phase or (number - phase) % every == 0
            result, state = detector.step(frame, state, READ if due else FORECAST)
            if number < phase or not due:
                continue
            found[number, 0] = result.detections
            ahead = state
            for horizon in range(1, horizons + 1):
                if number + horizon < len(frames):
                    result, ahead = detector.step(frames[number + horizon], ahead, FORECAST)
                    found[number + horizon, horizon] = result.detections
    return found


@pytest.mark.parametrize('every', [1, 3, 5])
def test_every_forecast_is_that_of_its_own_stream(detector, footage, every):
    (item,) = footage(walk=('dog', 9))
    run = run_horizons({'forecast': detector}, item, SETTINGS, 4, every)
    expected = one_by_one(detector, item, 4, every)
    assert len(expected) == 9 + 8 + 7 + 6 + 5
    for (number, horizon), detections in expected.items():
        table = run.tables['forecast', horizon]
        boxes = table.boxes[table.frames == number]
        # Sums of a batch are rounded otherwise.
        np.testing.assert_allclose(boxes, detections.boxes, atol=1e-2)
    assert run.squares.size == 0
    near, far = expected[8, 1].boxes, expected[8, 4].boxes
    assert near.shape != far.shape or np.abs(near - far).max() > 0.1, 'horizons that differ'


def test_frames_of_the_read_row_are_all_read(detector, footage):
    (item,) = footage(walk=('dog', 4))
    run = run_horizons({'forecast': detector}, item, SETTINGS, 1, 2)
    state = StreamState.initial()
    for number, record in enumerate(item.frames):
        result, state = detector.step(as_frame(picture(record)), state, READ)
        np.testing.assert_array_equal(run.read.boxes[run.read.frames == number],
                                      result.detections.boxes)


def test_reads_before_are_those_of_the_streams():
    assert reads_before(7, 3) == [-1, 0, 1, 0, 1, 2, 3]
    assert reads_before(3, 1) == [-1, 0, 1]


def test_starts_are_those_that_reach_the_frame(detector, footage):
    (item,) = footage(walk=('dog', 5))
    rollouts = Rollouts(detector, SETTINGS, 2, 3)
    for number, record in enumerate(item.frames):
        found = rollouts.step(number, as_frame(picture(record)))
        assert sorted(found) == list(range(min(number, 2) + 1))
    assert rollouts.starts(5) == [3, 4]
