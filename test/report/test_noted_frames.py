# SPDX-License-Identifier: Apache-2.0
"""Frames worth looking at: the worst, far enough apart, and said why."""

from forecast_detector_ros.detector.policy import READ
from forecast_detector_ros.recording.frame_record import DROPPED, RecordedFrame
from forecast_detector_ros.report.noted_frames import (
    CHANGE_RULE,
    changed_frames,
    choose,
    MISSED_RULE,
    Watched,
    worst_frames,
    WORST_RULE,
)
from forecast_detector_ros.report.run_record import MarkedBox
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np

from ..helpers.boxes import A, B, C, detections, NOWHERE, truth

LABELS = ('cat', 'dog', 'train')


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 5), max_size=12).map(np.array), max_size=3),
       st.integers(1, 4), st.integers(1, 5))
def test_chosen_frames_are_heavy_and_apart(weights, most, apart):
    chosen = choose(weights, most, apart)
    values = [weights[sequence][frame] for sequence, frame in chosen]
    assert values == sorted(values, reverse=True) and all(value > 0 for value in values)
    assert len(chosen) <= most
    for number, (sequence, frame) in enumerate(chosen):
        assert all(sequence != other or abs(frame - place) >= apart
                   for other, place in chosen[:number])
    if len(chosen) < most:
        # Whatever is left out lies beside something that was taken.
        assert all(value == 0 or any(sequence == other and abs(frame - place) < apart
                                     for other, place in chosen)
                   for sequence, row in enumerate(weights) for frame, value in enumerate(row))


def watched(**changes):
    boxes = truth((0, 0, A), (20, 0, A), (20, 1, B))
    found = detections((0, 0, .9, A), (20, 0, .8, A), (20, 2, .7, NOWHERE), (40, 1, .6, C))
    return Watched(**{'name': 'walk', 'frames': 50, 'truth': boxes, 'shown': found,
                      'locate': lambda number: {'file': f'{number}.jpg'}, **changes})


def test_the_worst_frame_comes_first_with_its_boxes():
    noted, rule = worst_frames([watched()], LABELS, complete=True)
    assert [item.number for item in noted] == [20, 40] and rule == WORST_RULE
    worst = noted[0]
    assert worst.note == '1 missed, 1 right, 1 wrong' and worst.file == '20.jpg'
    assert worst.right == (MarkedBox('cat', A, 0.8),)
    assert worst.missed == (MarkedBox('dog', B),)
    assert worst.wrong == (MarkedBox('train', NOWHERE, 0.7),)


def test_what_hits_nothing_is_no_mistake_where_not_all_is_annotated():
    noted, rule = worst_frames([watched()], LABELS, complete=False)
    assert [item.number for item in noted] == [20] and rule == MISSED_RULE
    assert noted[0].note == '1 missed, 1 right, 1 that hit nothing annotated'


def test_a_box_that_accepts_several_classes_names_them():
    boxes = truth((3, 0, A))
    boxes.accepted[0] = (True, True, False)
    noted, _ = worst_frames([watched(truth=boxes, shown=detections())], LABELS, False)
    assert noted[0].missed[0].label == 'cat or dog'


def frame(number, *labels):
    return RecordedFrame(number, READ, labels=labels, scores=(0.5,) * len(labels))


def test_frames_at_which_boxes_come_and_go():
    frames = [frame(0, 'dog'), RecordedFrame(1, DROPPED), frame(2, 'dog'),
              *(frame(n, 'dog') for n in range(3, 20)), frame(20, 'cat', 'cat'), frame(21, 'cat')]
    noted, rule = changed_frames('walk', frames, 'walk.mp4')
    assert [(item.number, item.note) for item in noted] == [(20, '+2 cat, -1 dog')]
    assert noted[0].position == 20 and rule == CHANGE_RULE
    assert changed_frames('walk', frames[:5], 'walk.mp4')[0] == ()
