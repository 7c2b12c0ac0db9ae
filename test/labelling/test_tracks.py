# SPDX-License-Identifier: Apache-2.0
"""Tracks of small scenes by hand, and what holds for any boxes."""

from forecast_detector_ros.labelling.tracks import track_boxes
from hypothesis import given, settings, strategies
import numpy as np

DOG, CAT = 1, 2


def frame(*objects):
    """Make boxes 10 pixels wide and high from (x, y, label)."""
    boxes = np.array([[x, y, x + 10, y + 10] for x, y, _ in objects], float).reshape(-1, 4)
    return boxes, np.array([label for *_, label in objects], np.int64)


def numbers(frames, **options):
    return [ids.tolist() for ids in track_boxes(frames, **options)]


def test_objects_keep_their_numbers_whatever_their_order():
    assert numbers([frame((0, 0, DOG), (50, 0, DOG)), frame((52, 0, DOG), (2, 0, DOG)),
                    frame((4, 0, DOG), (54, 0, DOG))]) == [[1, 2], [2, 1], [1, 2]]


def test_classes_are_not_mixed():
    assert numbers([frame((0, 0, DOG)), frame((0, 0, CAT)), frame((0, 0, DOG))]) == [
        [1], [2], [1]]


def test_best_overlap_is_served_first():
    # The first box overlaps with the track as well, but the second one more.
    assert numbers([frame((0, 0, DOG)), frame((4, 0, DOG), (1, 0, DOG))]) == [[1], [2, 1]]


def test_too_little_overlap_begins_a_new_track():
    # IoU 3/17 and, with the lower limit, enough.
    scene = [frame((0, 0, DOG)), frame((7, 0, DOG))]
    assert numbers(scene) == [[1], [2]]
    assert numbers(scene, min_iou=0.17) == [[1], [1]]


def test_an_object_may_be_missed_for_some_frames():
    def gap(missed):
        return [frame((0, 0, DOG)), *[frame()] * missed, frame((0, 0, DOG))]

    assert numbers(gap(2), patience=2) == [[1], [], [], [1]]
    assert numbers(gap(3), patience=2) == [[1], [], [], [], [2]]


def test_numbers_begin_where_they_are_told():
    assert numbers([frame(), frame((0, 0, DOG))], first=7) == [[], [7]]
    assert numbers([]) == []


@settings(max_examples=50)
@given(strategies.lists(strategies.lists(
    strategies.tuples(strategies.integers(0, 30), strategies.integers(0, 30),
                      strategies.sampled_from([DOG, CAT])), max_size=5), max_size=8))
def test_no_number_twice_in_a_frame_and_none_for_two_classes(objects):
    frames = [frame(*items) for items in objects]
    result = track_boxes(frames)
    classes = {}
    for (_, labels), ids in zip(frames, result):
        assert len(ids) == len(labels) == len(set(ids.tolist()))
        for label, number in zip(labels, ids):
            assert classes.setdefault(int(number), int(label)) == label
    assert sorted(classes) == list(range(1, len(classes) + 1))
