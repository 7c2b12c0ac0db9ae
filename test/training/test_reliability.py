# SPDX-License-Identifier: Apache-2.0
"""y_t by hand, and the matching against all permutations."""

from itertools import permutations

from forecast_detector_ros.model.ssdlite import Boxes
from forecast_detector_ros.training.reliability import (
    _perfect_matching,
    is_consistent,
    is_reliable,
)
from hypothesis import given, strategies
import torch


def detections(*rows):
    boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return Boxes(boxes, torch.tensor([row[4] for row in rows], dtype=torch.int64),
                 torch.ones(len(rows)))


def truth(*rows):
    found = detections(*rows)
    return found.boxes, found.labels


A, B = (0, 0, 10, 10), (50, 0, 60, 10)


def test_every_box_found():
    assert is_reliable(detections((*A, 1), (*B, 2)), *truth((*B, 2), (*A, 1)))


def test_further_detections_do_no_harm():
    assert is_reliable(detections((*A, 1), (*B, 2)), *truth((*A, 1)))


def test_a_missing_box():
    assert not is_reliable(detections((*A, 1)), *truth((*A, 1), (*B, 1)))


def test_the_wrong_class():
    assert not is_reliable(detections((*A, 1)), *truth((*A, 2)))


def test_one_detection_cannot_serve_two_boxes():
    assert not is_reliable(detections((*A, 1), (*B, 1)), *truth((*A, 1), (*A, 1)))


def test_iou_is_compared_with_the_limit():
    # Intersection 70, union 100.
    found = detections((0, 0, 7, 10, 0))
    assert is_reliable(found, *truth((*A, 0)), iou=0.69)
    assert not is_reliable(found, *truth((*A, 0)), iou=0.71)


def test_a_frame_without_boxes_is_reliable_unless_something_is_seen():
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert is_reliable(detections(), *nothing)
    assert not is_reliable(detections((*A, 0)), *nothing)


def test_in_a_frame_without_boxes_detections_in_ignored_regions_do_no_harm():
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    # Regions that hold 60 and 40 of the 100 pixels of A.
    most, least = torch.tensor([[0., 0., 6., 10.]]), torch.tensor([[0., 0., 4., 10.]])
    assert is_reliable(detections((*A, 0)), *nothing, ignore=most)
    assert not is_reliable(detections((*A, 0)), *nothing, ignore=least)
    assert not is_reliable(detections((*A, 0), (*B, 0)), *nothing, ignore=most)
    assert is_reliable(detections(), *nothing, ignore=most)


def test_a_region_hides_no_box():
    assert not is_reliable(
        detections(), *truth((*A, 0)), ignore=torch.tensor([[0., 0., 20., 20.]]))


def scored(*rows):
    found = detections(*[row[:5] for row in rows])
    return found._replace(scores=torch.tensor([row[5] for row in rows]))


def test_detections_are_consistent_when_what_is_confident_is_found_on_both_sides():
    both = scored((*A, 1, 0.9), (*B, 2, 0.5))
    assert is_consistent(both, both, 0.4)
    # One lost, one made up, one renamed.
    assert not is_consistent(scored((*A, 1, 0.9)), both, 0.4)
    assert not is_consistent(both, scored((*A, 1, 0.9)), 0.4)
    assert not is_consistent(scored((*A, 1, 0.9), (*B, 1, 0.5)), both, 0.4)


def test_scores_just_above_and_just_below_the_limit_are_consistent():
    above, below = scored((*A, 1, 0.41)), scored((*A, 1, 0.39))
    assert is_consistent(above, below, 0.4)
    assert is_consistent(below, above, 0.4)
    # What neither side is confident of does not count at all.
    assert is_consistent(below, scored(), 0.4)
    assert not is_consistent(above, scored(), 0.4)


def test_a_confident_box_that_has_moved_is_not_consistent():
    moved = scored((3, 0, 13, 10, 1, 0.9))
    assert not is_consistent(scored((*A, 1, 0.9)), moved, 0.4, iou=0.7)
    assert is_consistent(scored((*A, 1, 0.9)), moved, 0.4, iou=0.5)


@given(strategies.integers(1, 4).flatmap(lambda rows: strategies.integers(rows, 5).flatmap(
    lambda columns: strategies.lists(
        strategies.lists(strategies.booleans(), min_size=columns, max_size=columns),
        min_size=rows, max_size=rows))))
def test_matching_agrees_with_trying_everything(table):
    allowed = torch.tensor(table)
    rows, columns = allowed.shape
    expected = any(all(table[row][column] for row, column in enumerate(choice))
                   for choice in permutations(range(columns), rows))
    assert _perfect_matching(allowed) == expected
