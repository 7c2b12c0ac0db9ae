# SPDX-License-Identifier: Apache-2.0
"""Check the boxes and decisions that are drawn in the images of a camera."""
from forecast_detector_ros.recording.drawing import annotate, class_colour, status_text
from forecast_detector_ros.recording.recorded_frame import RecordedFrame
import numpy as np
import pytest

BOXES = np.array([[60.0, 80.0, 120.0, 150.0]], np.float32)
NOTHING = np.empty((0, 4), np.float32)


def record(kind: str, labels: tuple[str, ...] = ()) -> RecordedFrame:
    """Return a frame of this kind with detections of `labels`."""
    return RecordedFrame(stamp_ns=0, kind=kind, reason='scheduler', confidence=0.75, threshold=0.5,
                         latency_ms=12.34, labels=labels, scores=(0.9,) * len(labels))


def grey() -> np.ndarray:
    """Return a picture without red, green or blue."""
    return np.full((180, 320, 3), 100, np.uint8)


@pytest.mark.parametrize(('kind', 'colour'), [
    ('forecast', (0, 0, 255)), ('dropped', (150, 150, 150)), ('read', (100, 100, 100))])
def test_border_shows_the_decision(kind: str, colour: tuple[int, int, int]) -> None:
    picture = annotate(grey(), NOTHING, record(kind), '')
    for row, column in ((0, 0), (0, 319), (179, 0), (179, 319), (90, 0), (90, 319)):
        assert tuple(picture[row, column]) == colour


def test_box_is_drawn_at_its_place_in_the_colour_of_its_class() -> None:
    picture = annotate(grey(), BOXES, record('read', ('bicycle',)), '')
    for row, column in ((150, 90), (120, 60), (120, 120)):
        assert tuple(picture[row, column]) == class_colour('bicycle')
    assert tuple(picture[115, 90]) == (100, 100, 100)


def test_box_that_leaves_the_picture_can_be_drawn() -> None:
    boxes = np.array([[-50.0, -20.0, 900.0, 700.0]], np.float32)
    picture = annotate(grey(), boxes, record('read', ('train',)), '')
    assert (picture != 100).any()


@pytest.mark.parametrize('status', ['', 'status ' * 20])
def test_status_does_not_hide_the_name_of_a_box_at_the_top(status: str) -> None:
    boxes = np.array([[4.0, 0.0, 300.0, 150.0]], np.float32)
    picture = annotate(grey(), boxes, record('read', ('bicycle',)), status)
    # The lines of the box also have this colour; the name's background is inside the box.
    plate = (picture[8:60, 8:296] == class_colour('bicycle')).all(2)
    assert plate.any(1).sum() >= 12


def test_picture_with_padded_rows_is_drawn_into_in_place() -> None:
    padded = np.full((180, 340, 3), 100, np.uint8)
    annotate(padded[:, :320], BOXES, record('forecast', ('bicycle',)), 'status')
    assert tuple(padded[0, 0]) == (0, 0, 255)
    assert (padded[:, 320:] == 100).all()


def test_long_status_stays_inside_the_picture() -> None:
    picture = annotate(grey(), NOTHING, record('read'), 'a status that is far too long ' * 5)
    assert (picture[:, 318:] == 100).all()
    assert (picture[:20, 300:318] != 100).any()


def test_status_text_has_the_main_values() -> None:
    text = status_text(record('forecast', ('a', 'b')), 17)
    for part in ('17', 'forecast', 'scheduler', '0.75 / 0.50', '2 boxes', '12.3 ms'):
        assert part in text
    assert 'boxes' not in status_text(RecordedFrame(stamp_ns=0, kind='dropped'), 1)


def test_class_colours_are_stable_and_not_the_red_of_the_border() -> None:
    assert class_colour('person') == class_colour('person')
    assert class_colour('person') != class_colour('bicycle')
    for label in map(str, range(200)):
        blue, green, _red = class_colour(label)
        assert max(blue, green) > 100
