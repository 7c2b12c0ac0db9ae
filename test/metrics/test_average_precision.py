# SPDX-License-Identifier: Apache-2.0
"""Average precision: cases computed by hand, and properties that always hold."""

from dataclasses import replace

from forecast_detector_ros.metrics.average_precision import (
    ApRules,
    average_precision,
    curve_area,
    DEVKIT,
    operating_points,
    PLAIN,
)
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from ..helpers.boxes import A, B, C, detections, found_rows, NOWHERE, truth, truth_rows


@pytest.mark.parametrize('right, positives, wanted', [
    ([1], 1, 1.0),
    ([1], 2, 0.5),
    ([0, 1], 1, 0.5),
    # Recall 1/2 has precision 1, and recall 1 has precision 2/3.
    ([1, 0, 1], 2, 0.5 * 1 + 0.5 * 2 / 3),
    # The precision of 1/2 is interpolated to 2/3, which follows.
    ([0, 1, 1], 2, 2 / 3),
    # Three of four boxes are found, at precisions 1, 3/4 (interpolated from 2/3) and 3/4.
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


def test_mistakes_can_weigh_less():
    # The precisions are 1 / (1 + 1/4) and 2 / (2 + 3/4).
    area = curve_area(np.array([0.9, 0.8, 0.7, 0.6]), np.array([False, True, False, True]), 2,
                      np.array([0.25, 0, 0.5, 0]))
    assert area == pytest.approx((1 / 1.25 + 2 / 2.75) / 2)


def test_devkit_has_lower_thresholds_for_small_boxes():
    edges = np.array([(0, 0, 10, 10), (0, 0, 100, 100), (3, 3, 4, 4)], np.float32)
    # A box of 10 x 10 pixels needs 100 / (20 * 20), one of a pixel 1 / (11 * 11). The rule gives
    # 0.83 for 100 x 100 pixels, so 0.5 applies.
    assert DEVKIT.thresholds(edges) == pytest.approx([0.25, 0.5, 1 / 121])
    assert PLAIN.thresholds(edges).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize('found, plain, devkit', [
    # 5 of 10 columns overlap, so the IoU is 50 / 150; the devkit needs 0.25 here.
    ((5, 0, 15, 10), 0.0, 1.0),
    # 4 of 10 columns: 40 / 160
    ((6, 0, 16, 10), 0.0, 1.0),
    # 3 of 10 columns: 30 / 170
    ((7, 0, 17, 10), 0.0, 0.0),
    # 7 of 10 columns: 70 / 130
    ((3, 0, 13, 10), 1.0, 1.0)])
def test_plain_and_devkit_by_hand(found, plain, devkit):
    there, seen = truth((0, 0, A)), detections((0, 0, 0.9, found))
    assert average_precision(seen, there, PLAIN).mean == plain
    assert average_precision(seen, there, DEVKIT).mean == devkit


def test_other_thresholds_can_be_set():
    there, seen = truth((0, 0, A)), detections((0, 0, 0.9, (2, 0, 12, 10)))
    assert average_precision(seen, there, ApRules(2 / 3)).mean == 1.0
    assert average_precision(seen, there, ApRules(0.7)).mean == 0.0


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
    # The class without boxes is not in the mean.
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
    # An ignore region of another frame has no effect.
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
    # Every box is found twice with a score of 1, so half of the detections are wrong.
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
def test_values_are_between_zero_and_the_largest_recall(found_list, truth_list):
    result = average_precision(detections(*found_list), truth(*truth_list))
    for value, boxes_there, count in zip(result.per_class, result.boxes, result.detections):
        assert np.isnan(value) if not boxes_there else (
            0 <= value <= min(1.0, count / boxes_there) + 1e-9)


def test_operating_points_count_detections_above_a_score():
    regions = np.array([0]), np.array([C], np.float32)
    there = replace(truth((0, 0, A), (0, 0, B)), ignore_frames=regions[0],
                    ignore_boxes=regions[1])
    found = detections((0, 0, 0.9, A), (0, 0, 0.8, NOWHERE), (0, 0, 0.7, C), (0, 0, 0.5, B))
    low, high, nothing = operating_points(found, there, (0.4, 0.5, 0.95))
    # The detection in the ignore region counts at no threshold.
    assert (low.recall, low.precision, low.detections) == (1.0, pytest.approx(2 / 3), 3)
    assert (high.recall, high.precision, high.f1) == (0.5, 0.5, 0.5)
    assert nothing.recall == 0 and np.isnan(nothing.precision)
