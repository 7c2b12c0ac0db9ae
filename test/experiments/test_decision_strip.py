# SPDX-License-Identifier: Apache-2.0
"""Fig. 4: which frames are shown, and how."""

from dataclasses import replace

from forecast_detector_ros.detector.detections import Detections
from forecast_detector_ros.detector.policy import AlternatePolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation.sequences import EvaluationError
from forecast_detector_ros.experiments.decision_strip import (
    chosen_frames,
    draw_strips,
    shown_frames,
    strip_rows,
    strip_values,
)
import numpy as np
import pytest

LABELS = ('cat', 'dog', 'train')


def test_frames_are_chosen(footage):
    item = footage(a=('cat', 6))[0]
    assert chosen_frames(item, 1, 2, 9) == [1, 3, 5]
    assert chosen_frames(item, 0, 1, 2) == [0, 1]
    with pytest.raises(EvaluationError, match='a: has 6 frames, so none from 6 on'):
        chosen_frames(item, 6, 1, 1)


def test_strip_shows_decisions_and_boxes(detector, footage):
    item = footage(a=('cat', 5))[0]
    settings = DetectorSettings(policy=AlternatePolicy(1))
    frames = shown_frames(detector, item, settings, [0, 1, 4])
    assert [(frame.number, frame.decision.kind) for frame in frames] == [
        (0, 'read'), (1, 'forecast'), (4, 'read')]
    box = Detections(np.array([[8.0, 9.0, 40.0, 30.0]], np.float32), np.array([1]),
                     np.array([0.75], np.float32))
    frames = [replace(frame, detections=box) for frame in frames]
    assert strip_rows('a', frames, LABELS)[1] == {
        'sequence': 'a', 'frame': 1, 'decision': 'forecast', 'label': 'dog', 'score': 0.75,
        'x0': 8.0, 'y0': 9.0, 'x1': 40.0, 'y1': 30.0}
    values = strip_values('a', frames)
    assert values[0]['confidence'] is None and values[0]['reason'] == 'first_frame'
    assert 0 <= values[1]['confidence'] <= 1 and values[1]['boxes'] == 1

    figure = draw_strips([('a', frames), ('b', frames[:1])], LABELS, 'title')
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(pictures) == 4
    corners = [tuple(map(int, picture[1, 1, :3])) for picture in pictures]
    # The border of the forecast frame, and of no other one.
    assert corners[1] == (220, 38, 38)
    assert (220, 38, 38) not in (corners[0], *corners[2:])
