# SPDX-License-Identifier: Apache-2.0
"""Check the ranges of settings that may change while a detector runs."""

from math import inf, nan

from forecast_detector_ros.detector.policy import AlternatePolicy, ThresholdPolicy
from forecast_detector_ros.detector.settings import DetectorSettings, SettingsError
import pytest


def test_defaults_are_the_documented_ones():
    settings = DetectorSettings()
    assert settings.policy == ThresholdPolicy(0.5)
    assert (settings.score_threshold, settings.nms_threshold, settings.vote_threshold,
            settings.score_memory, settings.max_detections, settings.classes,
            settings.max_consecutive_forecasts) == (0.3, 0.45, 1.0, 0.0, 100, (), 3)


@pytest.mark.parametrize('values', [
    {'score_threshold': 0.0}, {'score_threshold': 1.0}, {'nms_threshold': 1.0},
    {'nms_threshold': 1e-6}, {'vote_threshold': 1.0}, {'vote_threshold': 1e-6},
    {'score_memory': 0.0}, {'score_memory': 0.999}, {'max_detections': 1},
    {'max_detections': 1000}, {'max_consecutive_forecasts': 1},
    {'max_consecutive_forecasts': 1000}])
def test_ends_of_the_ranges(values):
    (key, value), = values.items()
    assert getattr(DetectorSettings(**values), key) == value


@pytest.mark.parametrize('key, value', [
    ('score_threshold', -0.01), ('score_threshold', 1.01), ('score_threshold', nan),
    ('score_threshold', inf), ('nms_threshold', 0.0), ('nms_threshold', 1.01),
    ('nms_threshold', nan), ('vote_threshold', 0.0), ('vote_threshold', 1.01),
    ('vote_threshold', nan), ('score_memory', -0.01), ('score_memory', 1.0),
    ('score_memory', nan), ('max_detections', 0), ('max_detections', 1001),
    ('max_consecutive_forecasts', 0), ('max_consecutive_forecasts', -1),
    ('max_consecutive_forecasts', 1001)])
def test_out_of_range_names_the_key(key, value):
    with pytest.raises(SettingsError) as error:
        DetectorSettings(**{key: value})
    message = str(error.value)
    assert message.startswith(f'{key} is {value}, must be') and '\n' not in message


def test_unknown_class(detector):
    detector.check_settings(DetectorSettings(classes=('dog', 'cat')))
    with pytest.raises(SettingsError, match="classes names 'wolf'.*'cat', 'dog', 'train'"):
        detector.check_settings(DetectorSettings(classes=('dog', 'wolf')))


@pytest.mark.parametrize('k, limit', [(1, 1), (3, 3), (2, 1000)])
def test_a_fixed_rule_within_the_limit(k, limit):
    settings = DetectorSettings(AlternatePolicy(k), max_consecutive_forecasts=limit)
    assert settings.policy.k == k


def test_a_fixed_rule_beyond_the_limit_is_refused():
    with pytest.raises(SettingsError, match=r'policy is alternate\(6\), but '
                                            'max_consecutive_forecasts is 3, must be at least 6'):
        DetectorSettings(AlternatePolicy(6))
