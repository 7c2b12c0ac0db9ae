# SPDX-License-Identifier: Apache-2.0
"""Recall, computed by hand."""

import math

from forecast_detector_ros.metrics.tables import DetectionTable, found_boxes, recall, TruthTable
import numpy as np
import pytest

A, B = (0, 0, 10, 10), (20, 0, 30, 10)


def detections(*rows: tuple) -> DetectionTable:
    """Make a table of (frame, label, box), all of the same score."""
    return DetectionTable(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int64), np.full(len(rows), 0.5, np.float32))


def truth(*rows: tuple) -> TruthTable:
    """Make a table of (frame, accepted classes, box)."""
    return TruthTable(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        np.array([[c in row[1] for c in range(3)] for row in rows], bool).reshape(-1, 3),
        np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


def test_half_of_the_boxes():
    there = truth((0, {0}, A), (0, {0}, B), (1, {1}, A), (1, {1}, B))
    found = detections((0, 0, A), (1, 1, B), (1, 1, B))
    assert found_boxes(found, there).tolist() == [True, False, False, True]
    assert recall(found, there) == 0.5


def test_right_place_of_the_wrong_class_is_not_found():
    assert recall(detections((0, 1, A)), truth((0, {0}, A))) == 0.0


@pytest.mark.parametrize('label, wanted', [(0, 1.0), (1, 1.0), (2, 0.0)])
def test_any_accepted_class_counts(label, wanted):
    assert recall(detections((0, label, A)), truth((0, {0, 1}, A))) == wanted


def test_one_detection_finds_one_box():
    assert recall(detections((0, 0, A)), truth((0, {0}, A), (0, {0}, A))) == 0.5


def test_wrong_detections_cost_nothing():
    found = detections((0, 0, A), (0, 2, A), (0, 0, B), (5, 0, A))
    assert recall(found, truth((0, {0}, A))) == 1.0


def test_nothing_to_find_has_no_recall():
    assert math.isnan(recall(detections((0, 0, A)), truth()))


def test_nothing_found():
    assert recall(detections(), truth((0, {0}, A))) == 0.0


def test_box_that_accepts_no_class_cannot_be_found():
    assert recall(detections((0, 0, A)), truth((0, set(), A))) == 0.0
