# SPDX-License-Identifier: Apache-2.0
"""Check the choice of noted frames: the worst, far enough apart, with a reason."""

import cv2
from forecast_detector_ros.detector.policy import READ
from forecast_detector_ros.recording.output_files import VideoWriter
from forecast_detector_ros.recording.recorded_frame import DROPPED, RecordedFrame
from forecast_detector_ros.report.noted_frames import (
    CHANGE_RULE,
    changed_frames,
    choose,
    MISSED_RULE,
    noted_pictures,
    Watched,
    worst_frames,
    WORST_RULE,
)
from forecast_detector_ros.report.run_record import MarkedBox
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np

from ..helpers.bags import jpeg_message, raw_message, write_bag
from ..helpers.boxes import A, B, C, detections, NOWHERE, truth
from ..helpers.runs import noted

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
        # Every frame that is left out is near a chosen one.
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


def test_unmatched_box_is_not_wrong_if_annotations_are_incomplete():
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


def test_frames_at_which_boxes_appear_and_disappear():
    frames = [frame(0, 'dog'), RecordedFrame(1, DROPPED), frame(2, 'dog'),
              *(frame(n, 'dog') for n in range(3, 20)), frame(20, 'cat', 'cat'), frame(21, 'cat')]
    noted, rule = changed_frames('walk', frames, 'walk.mp4')
    assert [(item.number, item.note) for item in noted] == [(20, '+2 cat, -1 dog')]
    assert noted[0].position == 20 and rule == CHANGE_RULE
    assert changed_frames('walk', frames[:5], 'walk.mp4')[0] == ()


BARE = {'right': (), 'missed': (), 'wrong': (), 'kind': None}


def grey(picture):
    """Return the mean of a JPEG on which nothing is drawn."""
    return cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR).mean()


def test_picture_video_and_bag(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((40, 60, 3), 200, np.uint8))
    writer = VideoWriter(tmp_path / 'b.mp4', 10.0)
    for number in range(6):
        writer.write(np.full((48, 64, 3), 30 * number, np.uint8))
    writer.close()
    write_bag(tmp_path / 'c', {'/left': [raw_message(n, grey=20 * n) for n in range(4)],
                               '/right/compressed': [jpeg_message(n, grey=50 * n)
                                                     for n in range(4)]})
    found = noted_pictures([
        noted('c', position=3, topic='/left', **BARE), noted('a.png', **BARE),
        noted('b.mp4', position=4, **BARE), noted('b.mp4', position=2, **BARE),
        noted('c', position=2, topic='/right/compressed', **BARE)], tmp_path)
    assert [item.missing for item in found] == [None] * 5
    np.testing.assert_allclose([grey(item) for item in found], [60, 200, 120, 60, 100], atol=4)


def test_boxes_and_border_are_drawn(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((60, 80, 3), 128, np.uint8))
    (drawn,) = noted_pictures([noted('a.png')], tmp_path)
    picture = cv2.imdecode(np.frombuffer(drawn.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (120, 160, 3)
    assert picture[0, 80, 2] > 150 > picture[0, 80, 1]  # The red border
    assert picture[46, 8, 1] > picture[46, 8, 2]  # The green box


def test_missing_source_affects_only_its_own_pictures(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((40, 60, 3), 200, np.uint8))
    (tmp_path / 'broken.mp4').write_bytes(b'nothing')
    writer = VideoWriter(tmp_path / 'short.mp4', 10.0)
    writer.write(np.full((48, 64, 3), 30, np.uint8))
    writer.close()
    found = noted_pictures([
        noted('none.png'), noted('none.mp4', position=1), noted('broken.mp4', position=1),
        noted('short.mp4', position=1), noted('none', position=0, topic='/camera'),
        noted('a.png')], tmp_path)
    assert [item.jpeg is None for item in found] == [True] * 5 + [False]
    assert 'none.png: is missing' in found[0].missing
    assert 'none.mp4: is missing' in found[1].missing
    assert 'no picture can be decoded' in found[2].missing or 'opened' in found[2].missing
    assert found[3].missing == 'the video ends before it'
    assert 'no such bag' in found[4].missing


def test_refused_image_affects_only_its_own_picture(tmp_path):
    messages = [raw_message(number, grey=20 * number) for number in range(4)]
    messages[1].encoding = 'nonsense'
    write_bag(tmp_path / 'c', {'/left': messages})
    found = noted_pictures([noted('c', position=number, topic='/left', **BARE)
                            for number in range(3)], tmp_path)
    assert [item.jpeg is None for item in found] == [False, True, False]
    assert 'nonsense' in found[1].missing
