# SPDX-License-Identifier: Apache-2.0
"""Average precision: cases done by hand, and properties that must always hold."""

from forecast_detector_ros.evaluation.average_precision import average_precision, curve_area
from forecast_detector_ros.evaluation.tables import DetectionTable, one_hot, TruthTable
from hypothesis import given, strategies as st
import numpy as np
import pytest

CLASSES = 3
A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
NOWHERE = (80, 80, 90, 90)


def detections(*rows: tuple) -> DetectionTable:
    """Make a table of (frame, label, score, box)."""
    return DetectionTable(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32))


def truth(*rows: tuple, ignore: tuple = ()) -> TruthTable:
    """Make a table of (frame, label, box), with ignore regions (frame, box)."""
    return TruthTable(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        one_hot(np.array([row[1] for row in rows], np.int64), CLASSES),
        np.array([row[0] for row in ignore], np.int64),
        np.array([row[1] for row in ignore], np.float32).reshape(-1, 4))


@pytest.mark.parametrize('right, positives, wanted', [
    ([1], 1, 1.0),
    ([1], 2, 0.5),
    ([0, 1], 1, 0.5),
    # Recall 1/2 at precision 1, then 1 at precision 2/3.
    ([1, 0, 1], 2, 0.5 * 1 + 0.5 * 2 / 3),
    # Interpolated: the dip to 1/2 is lifted to the 2/3 that follows.
    ([0, 1, 1], 2, 2 / 3),
    # 1/4 each at 1, then 3/4 (lifted from 2/3), 3/4; the fourth box is never found.
    ([1, 0, 1, 1, 0], 4, 0.25 * 1 + 0.25 * 0.75 + 0.25 * 0.75),
    ([0, 0], 3, 0.0),
    ([], 3, 0.0),
])
def test_curve_area_by_hand(right, positives, wanted):
    scores = np.linspace(0.9, 0.1, len(right))
    assert curve_area(scores, np.array(right, bool), positives) == pytest.approx(wanted)


def test_curve_area_is_nan_without_boxes():
    assert np.isnan(curve_area(np.array([0.5]), np.array([False]), 0))


@pytest.mark.parametrize('right', [[True, False], [False, True]])
def test_equal_scores_enter_the_curve_together(right):
    assert curve_area(np.array([0.5, 0.5]), np.array(right), 1) == pytest.approx(0.5)


def test_two_frames_and_two_classes_by_hand():
    there = truth((0, 0, A), (0, 0, B), (1, 0, A), (1, 1, B))
    found = detections(
        (0, 0, 0.9, A),         # right: 1/1
        (0, 0, 0.8, A),         # second detection of the same box: wrong
        (1, 0, 0.7, A),         # right: 2/3
        (1, 0, 0.6, B),         # a box of the other class: wrong
        (0, 0, 0.5, B),         # right: 3/5
        (1, 1, 0.4, NOWHERE),   # wrong
        (1, 1, 0.3, B))         # right: 1/2
    result = average_precision(found, there)
    assert result.per_class[0] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert result.per_class[1] == pytest.approx(0.5)
    assert np.isnan(result.per_class[2])
    assert result.boxes.tolist() == [3, 1, 0]
    assert result.detections.tolist() == [5, 2, 0]
    # The class without boxes does not enter the mean.
    assert result.mean == pytest.approx((result.per_class[0] + 0.5) / 2)


def test_detection_of_a_class_without_boxes_changes_no_other_class():
    there = truth((0, 0, A))
    result = average_precision(detections((0, 0, 0.5, A), (0, 2, 0.9, A)), there)
    assert result.per_class[0] == 1.0 and np.isnan(result.per_class[2])
    assert result.mean == 1.0


def test_missing_class_counts_as_zero():
    result = average_precision(detections((0, 0, 0.5, A)), truth((0, 0, A), (0, 1, B)))
    assert result.mean == pytest.approx(0.5)


def test_detection_inside_an_ignore_region_does_not_count():
    wrong_first = (0, 0, 0.9, (42, 2, 48, 8))
    found = detections(wrong_first, (0, 0, 0.5, A))
    assert average_precision(found, truth((0, 0, A))).per_class[0] == pytest.approx(0.5)
    result = average_precision(found, truth((0, 0, A), ignore=((0, C),)))
    assert result.per_class[0] == 1.0 and result.ignored == 1
    # A region of another frame excuses nothing.
    result = average_precision(found, truth((0, 0, A), ignore=((1, C),)))
    assert result.per_class[0] == pytest.approx(0.5) and result.ignored == 0


def test_hit_inside_an_ignore_region_still_counts():
    result = average_precision(detections((0, 0, 0.5, A)), truth((0, 0, A), ignore=((0, A),)))
    assert result.per_class[0] == 1.0 and result.ignored == 0


def test_nothing_at_all_has_no_mean():
    assert np.isnan(average_precision(detections(), truth()).mean)


def test_box_of_two_classes_is_refused():
    there = truth((0, 0, A))
    there.accepted[:] = True
    with pytest.raises(ValueError, match='exactly one class'):
        average_precision(detections(), there)


boxes = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(4, 20),
                  st.integers(4, 20)).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
labels = st.integers(0, CLASSES - 1)
frames = st.integers(0, 3)
truth_rows = st.lists(st.tuples(frames, labels, boxes), min_size=1, max_size=10)
found_rows = st.lists(st.tuples(frames, labels, st.integers(1, 20).map(lambda n: n / 20), boxes),
                      max_size=15)


@given(found_rows, truth_rows, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(found_list, truth_list, random):
    before = average_precision(detections(*found_list), truth(*truth_list))
    random.shuffle(found_list)
    random.shuffle(truth_list)
    after = average_precision(detections(*found_list), truth(*truth_list))
    np.testing.assert_allclose(after.per_class, before.per_class)


@given(truth_rows, st.lists(st.floats(0.05, 1.0), min_size=10, max_size=10))
def test_perfect_detections_score_one(truth_list, scores):
    found = detections(*((frame, label, score, box)
                         for (frame, label, box), score in zip(truth_list, scores)))
    result = average_precision(found, truth(*truth_list))
    assert result.mean == pytest.approx(1.0)


@given(truth_rows)
def test_duplicates_are_wrong(truth_list):
    there = truth(*truth_list)
    # Every box is found twice with full confidence: half of the detections are wrong.
    once = [(frame, label, 1.0, box) for frame, label, box in truth_list]
    result = average_precision(detections(*once, *once), there)
    assert result.per_class[there.labels] == pytest.approx(np.full(len(there), 0.5))


@given(found_rows, truth_rows)
def test_only_the_order_of_scores_matters(found_list, truth_list):
    squared = [(frame, label, score ** 2, box) for frame, label, score, box in found_list]
    there = truth(*truth_list)
    np.testing.assert_allclose(average_precision(detections(*squared), there).per_class,
                               average_precision(detections(*found_list), there).per_class)


@given(found_rows, truth_rows)
def test_values_lie_between_zero_and_recall(found_list, truth_list):
    result = average_precision(detections(*found_list), truth(*truth_list))
    for value, boxes_there, count in zip(result.per_class, result.boxes, result.detections):
        assert np.isnan(value) if not boxes_there else (
            0 <= value <= min(1.0, count / boxes_there) + 1e-9)
