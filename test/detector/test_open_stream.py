# SPDX-License-Identifier: Apache-2.0
"""Compare a stream with explicit steps."""

from math import inf, nan

from forecast_detector_ros.detector.open_stream import step_together
from forecast_detector_ros.detector.policy import FORECAST, PolicyError, READ, ThresholdPolicy
from forecast_detector_ros.detector.settings import DetectorSettings, SettingsError
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.images.frame import Frame, FrameError
import numpy as np
import pytest


def images(count, seed=0, size=(48, 80)):
    return list(np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8))


def same(found, expected):
    np.testing.assert_array_equal(found.detections.boxes, expected.detections.boxes)
    np.testing.assert_array_equal(found.detections.scores, expected.detections.scores)
    assert str(found.decision) == str(expected.decision)


def test_a_stream_gives_the_results_of_explicit_steps(detector, picture):
    camera = detector.stream(threshold=0.0)
    settings, state = DetectorSettings(ThresholdPolicy(0.0)), StreamState.initial()
    assert camera.settings == settings
    for seed in range(5):
        image = np.random.default_rng(seed).integers(0, 256, (48, 80, 3), np.uint8)
        expected, state = detector.step(picture(seed), state, settings)
        same(camera(image), expected)


def test_names_are_those_of_the_labels(detector):
    result = detector.stream(score_threshold=0.25)(images(1)[0])
    assert len(result.detections)
    assert result.detections.names == tuple(
        detector.labels[label] for label in result.detections.labels)


def test_settings_of_the_card_hold_unless_overridden(detector):
    card = detector.card
    assert detector.stream().settings == DetectorSettings(
        ThresholdPolicy(card.threshold), card.score_threshold, card.nms_threshold,
        card.vote_threshold, card.score_memory)
    settings = detector.stream(policy='alternate(2)', classes=['dog'], nms_threshold=0.6).settings
    assert (str(settings.policy), settings.classes, settings.nms_threshold) == (
        'alternate(2)', ('dog',), 0.6)


@pytest.mark.parametrize(('changes', 'error', 'message'), [
    ({'threshold': 2.0}, PolicyError, 'threshold is 2.0, must be in'),
    ({'policy': 'sometimes'}, PolicyError, "policy is 'sometimes'"),
    ({'policy': 'always_read', 'threshold': 0.5}, SettingsError, 'exclude each other'),
    ({'classes': ['cow']}, SettingsError, "classes names 'cow', must be of"),
    ({'classes': 'dog'}, SettingsError, "classes is 'dog', must be a list"),
    ({'score_threshold': -1.0}, SettingsError, 'score_threshold is -1.0'),
    ({'max_gap_s': inf}, SettingsError, 'max_gap_s is inf, must be a number of seconds'),
    ({'max_gap_s': nan}, SettingsError, 'max_gap_s is nan'),
    ({'max_gap_s': -1.0}, SettingsError, 'max_gap_s is -1.0'),
])
def test_invalid_options_of_a_stream_are_refused(changes, error, message, detector):
    with pytest.raises(error, match=message):
        detector.stream(**changes)


def test_stamps_tell_the_time_and_the_gaps(detector, picture, monkeypatch):
    camera = detector.stream(threshold=0.0, max_gap_s=0.5)
    told, step_many = [], detector.step_many

    def listen(frames, states, settings, elapsed):
        told.extend(elapsed)
        return step_many(frames, states, settings, elapsed)

    monkeypatch.setattr(detector, 'step_many', listen)
    for seed, stamp in enumerate([7.0, 7.25, 7.25]):
        assert camera(picture(seed), stamp).decision.kind == (FORECAST if seed else READ)
    assert told == [1.0, 0.25, 0.001]
    for stamp in (7.76, 7.0):
        result = camera(images(1)[0], stamp)
        assert (result.decision.kind, result.decision.reason) == (READ, 'gap')
    camera.reset()
    assert camera(images(1)[0], 100.0).decision.reason == 'first_frame'


@pytest.mark.parametrize(('image', 'stamp', 'message'), [
    (np.zeros((48, 80, 3), np.float32), 1.1, 'float32, must be uint8'),
    (np.zeros((48, 80), np.uint8), 1.1, 'bgr needs'),
    ([[0, 0, 0]], 1.1, 'of type list, must be an array'),
    (np.zeros((48, 80, 3), np.uint8), nan, 'stamp is nan'),
    (np.zeros((48, 80, 3), np.uint8), None, 'stamp is missing'),
])
def test_a_picture_that_cannot_be_used_changes_nothing(image, stamp, message, detector, picture):
    camera, other = (detector.stream(policy='always_read') for _ in range(2))
    for stream in (camera, other):
        stream(picture(0), 1.0)
    with pytest.raises(FrameError, match=message):
        camera(image, stamp)
    same(camera(picture(1), 1.2), other(picture(1), 1.2))


def test_a_late_stamp_is_refused(detector):
    camera = detector.stream()
    camera(images(1)[0])
    with pytest.raises(FrameError, match='stamp is 3.0, but the frames before had none'):
        camera(images(1)[0], 3.0)


def test_a_forecast_frame_is_never_loaded(detector, picture, poison):
    camera = detector.stream(threshold=0.0)
    camera(picture(0))
    assert camera(poison()).decision.kind == FORECAST


def test_streams_together_give_the_results_of_single_streams(detector, picture):
    streams, alone = ([detector.stream(threshold=0.0) for _ in range(2)] for _ in range(2))
    for number in range(3):
        found = step_together(streams, [picture(seed) for seed in (number, 9 + number)],
                              [float(number), 2.0 * number / 3])
        for place, stream in enumerate(alone):
            expected = stream(picture((number, 9 + number)[place]),
                              (float(number), 2.0 * number / 3)[place])
            assert found[place].batch == 2 and expected.batch == 1
            np.testing.assert_allclose(found[place].detections.boxes, expected.detections.boxes,
                                       atol=1e-3)
            assert found[place].decision.kind == expected.decision.kind


def test_one_bad_picture_does_not_affect_the_others(detector, picture):
    def broken():
        raise FrameError('is damaged')

    streams = [detector.stream(policy='always_read') for _ in range(3)]
    found = step_together(streams, [picture(0), np.zeros(3, np.uint8), Frame(None, broken)])
    assert [isinstance(item, FrameError) for item in found] == [False, True, True]
    assert [stream(picture(1)).decision.reason for stream in streams] == [
        'policy', 'first_frame', 'first_frame']


def test_only_equal_streams_go_together(detector, picture):
    first = detector.stream()
    with pytest.raises(SettingsError, match='equal settings'):
        step_together([first, detector.stream(classes=['dog'])], [picture(0), picture(1)])
    with pytest.raises(SettingsError, match='a stream is given twice'):
        step_together([first, first], [picture(0), picture(1)])
    assert step_together([], []) == []
