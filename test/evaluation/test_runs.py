# SPDX-License-Identifier: Apache-2.0
"""Runs of a detector over sequences, moving and static."""

from dataclasses import replace

from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.evaluation import runs
from forecast_detector_ros.evaluation.runs import run_video, static_read_ratios
from forecast_detector_ros.evaluation.sequences import as_frame, picture
import numpy as np

SETTINGS = DetectorSettings(policy=AlternatePolicy(2), score_threshold=0.4)


def test_every_frame_is_decided_and_timed(detector, videos):
    (item,) = videos(walk=('dog', 7))
    run = run_video(detector, item, SETTINGS, False)
    assert run.read.tolist() == [True, False, False, True, False, False, True]
    assert np.isnan(run.confidence[0]) and np.all((run.confidence[1:] > 0)
                                                  & (run.confidence[1:] < 1))
    assert np.all(run.inference_ms > 0)
    assert np.all((run.preprocess_ms > 0) == run.read)
    assert run.collected is None


def test_detections_are_those_of_the_detector(detector, videos):
    (item,) = videos(walk=('dog', 4))
    run = run_video(detector, item, SETTINGS, True)
    state = StreamState.initial()
    for number, record in enumerate(item.frames):
        result, state = detector.step(as_frame(picture(record)), state, SETTINGS)
        assert len(result.detections)
        rows = run.shown.select(run.shown.frames == number)
        np.testing.assert_array_equal(rows.boxes, result.detections.boxes)
        np.testing.assert_array_equal(rows.scores, result.detections.scores)


def test_collecting_changes_nothing_but_adds_weak_detections(detector, videos):
    (item,) = videos(walk=('dog', 4))
    alone = run_video(detector, item, SETTINGS, False)
    run = run_video(detector, item, SETTINGS, True)
    np.testing.assert_array_equal(run.shown.boxes, alone.shown.boxes)
    assert run.collected.scores.min() < 0.4
    strong = run.collected.select(run.collected.scores > 0.4)
    np.testing.assert_array_equal(strong.boxes, run.shown.boxes)
    np.testing.assert_array_equal(strong.frames, run.shown.frames)


def test_each_sequence_starts_anew(detector, videos):
    one, two = videos(one=('dog', 2), two=('dog', 2))
    run_video(detector, one, SETTINGS, False)
    after = run_video(detector, two, SETTINGS, False)
    fresh = run_video(detector, two, SETTINGS, False)
    np.testing.assert_array_equal(after.shown.scores, fresh.shown.scores)
    assert after.read[0]


def test_policy_is_that_of_the_settings(detector, videos):
    (item,) = videos(walk=('dog', 3))
    run = run_video(detector, item, replace(SETTINGS, policy=AlwaysReadPolicy()), False)
    assert run.read.all()


def test_fixed_rules_read_what_they_say(detector, videos):
    items = videos(one=('dog', 3), two=('dog', 2))
    assert static_read_ratios(detector, items, DetectorSettings(policy=AlwaysReadPolicy()), 6) \
        == {'one': 1.0, 'two': 1.0}
    assert static_read_ratios(detector, items, DetectorSettings(policy=AlternatePolicy(2)), 6) \
        == {'one': 1 / 3, 'two': 1 / 3}


def test_only_the_first_picture_is_shown_with_noise_of_its_own(detector, videos, monkeypatch):
    (item,) = videos(one=('dog', 3))
    opened, shown = [], []
    real = runs.picture

    def watch(record):
        opened.append(record)
        return real(record)

    monkeypatch.setattr(runs, 'picture', watch)
    step = detector.step

    def note(frame, state, settings):
        shown.append(frame.load().array.astype(np.int16))
        return step(frame, state, settings)

    monkeypatch.setattr(detector, 'step', note)
    static_read_ratios(detector, [item], DetectorSettings(policy=AlwaysReadPolicy()), 4, 2.0)
    assert opened == [item.frames[0]]
    assert len(shown) == 4
    difference = shown[1] - shown[0]
    # Two draws of standard deviation 2, less what rounding and the range cut off.
    assert 1.0 < difference.std() < 4.0
    assert abs(difference.mean()) < 0.5
