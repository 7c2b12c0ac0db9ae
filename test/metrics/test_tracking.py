# SPDX-License-Identifier: Apache-2.0
"""Measures of identity, computed by hand."""

from forecast_detector_ros.metrics.libraries import tracking_figures
from forecast_detector_ros.metrics.tables import DetectionTable, one_hot, TruthTable
import numpy as np
import pytest

pytest.importorskip('trackeval')

FRAMES = 6
NO_REGIONS = np.zeros(0, np.int64), np.zeros((0, 4), np.float32)


def boxes_of(frame):
    """Return the boxes of two objects that do not overlap."""
    return [(10 + frame, 0, 20 + frame, 10), (60 + frame, 0, 70 + frame, 10)]


def truth(regions=NO_REGIONS, tracks=(4, 9)):
    frames = np.repeat(np.arange(FRAMES), 2)
    boxes = np.array([box for frame in range(FRAMES) for box in boxes_of(frame)], np.float32)
    return TruthTable(frames, boxes, one_hot(np.tile([0, 1], FRAMES), 2), *regions,
                      np.tile(tracks, FRAMES))


def detected(there, labels=None):
    """Return detections of the true boxes for which `there` is true."""
    whole = truth()
    rows = np.flatnonzero(there)
    label = whole.labels if labels is None else labels
    return DetectionTable(whole.frames[rows], whole.boxes[rows], label[rows],
                          np.full(len(rows), 0.9, np.float32))


ALL = np.ones(2 * FRAMES, bool)
RIGHT = np.tile([31, 7], FRAMES)


def test_right_numbers_give_the_best_figures():
    (one, whole) = tracking_figures([(detected(ALL), RIGHT, truth())])
    assert one == whole
    assert one == {'hota': pytest.approx(1), 'det_a': pytest.approx(1), 'ass_a': pytest.approx(1),
                   'mota': 1.0, 'idf1': 1.0, 'switches': 0, 'objects': 2, 'boxes': 12}


def test_one_switch_half_way():
    numbers = RIGHT.copy()
    numbers[FRAMES::2] = 50
    figures, _ = tracking_figures([(detected(ALL), numbers, truth())])
    assert figures['switches'] == 1 and figures['mota'] == pytest.approx(1 - 1 / 12)
    # Each of the two numbers has three of the object's six frames, so its boxes count 3 / 6.
    assert figures['ass_a'] == pytest.approx((6 * 0.5 + 6 * 1.0) / 12)
    assert figures['hota'] == pytest.approx(np.sqrt(0.75))
    # Only three of the object's six boxes have the number that fits best.
    assert figures['idf1'] == pytest.approx(2 * 9 / (12 + 12))


def test_missed_and_false_boxes_cost_detection():
    there = ALL.copy()
    there[[0, 3]] = False
    found = detected(there)
    stray = DetectionTable(np.array([2]), np.array([(200, 0, 210, 10)], np.float32),
                           np.array([0]), np.array([0.9], np.float32))
    figures, _ = tracking_figures([
        (DetectionTable.join([found, stray]), np.append(RIGHT[there], 99), truth())])
    assert figures['mota'] == pytest.approx(1 - 3 / 12) and figures['switches'] == 0
    # The stray box is in an ignore region, so it does not count.
    regions = np.array([2]), np.array([(190, 0, 220, 20)], np.float32)
    figures, _ = tracking_figures([
        (DetectionTable.join([found, stray]), np.append(RIGHT[there], 99), truth(regions))])
    assert figures['mota'] == pytest.approx(1 - 2 / 12)


def test_wrong_class_is_no_match():
    figures, _ = tracking_figures([
        (detected(ALL, np.zeros(2 * FRAMES, np.int64)), RIGHT, truth())])
    # Half of the boxes are missed, and as many detections are false.
    assert figures['mota'] == pytest.approx(0.0) and figures['idf1'] == pytest.approx(0.5)


def test_boxes_without_a_track_do_not_count():
    figures, _ = tracking_figures([(detected(ALL), RIGHT, truth(tracks=(4, -1)))])
    assert (figures['objects'], figures['boxes']) == (1, 6)
    # Detections of boxes without a track are no mistakes.
    assert (figures['mota'], figures['idf1'], figures['hota']) == (1.0, 1.0, 1.0)


def test_sequences_are_weighted_by_their_boxes():
    numbers = RIGHT.copy()
    numbers[FRAMES::2] = 50
    nothing = DetectionTable.join([])
    first, second, whole = tracking_figures([
        (detected(ALL), numbers, truth()), (nothing, np.zeros(0, np.int64), truth())])
    assert second['mota'] == 0.0 and (second['hota'], second['switches']) == (0.0, 0)
    assert whole['mota'] == pytest.approx(1 - (1 + 12) / 24)
    assert (whole['objects'], whole['boxes'], whole['switches']) == (4, 24, 1)
    assert first['switches'] == 1
