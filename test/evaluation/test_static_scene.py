# SPDX-License-Identifier: Apache-2.0
"""The read ratio of a picture that does not change."""

from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation import static_scene
from forecast_detector_ros.evaluation.static_scene import static_read_ratios
import numpy as np


def test_fixed_rules_read_what_they_say(detector, footage):
    items = footage(one=('dog', 3), two=('dog', 2))
    assert static_read_ratios(detector, items, DetectorSettings(policy=AlwaysReadPolicy()), 6) \
        == {'one': 1.0, 'two': 1.0}
    assert static_read_ratios(detector, items, DetectorSettings(policy=AlternatePolicy(2)), 6) \
        == {'one': 1 / 3, 'two': 1 / 3}


def test_only_the_first_picture_is_shown_with_noise_of_its_own(detector, footage, monkeypatch):
    (item,) = footage(one=('dog', 3))
    opened, shown = [], []
    real = static_scene.picture

    def watch(record):
        opened.append(record)
        return real(record)

    monkeypatch.setattr(static_scene, 'picture', watch)
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
