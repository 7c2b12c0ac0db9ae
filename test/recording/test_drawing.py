# SPDX-License-Identifier: Apache-2.0
"""Drawn boxes and decisions: in the images of a camera, and in pictures for people."""
import cv2
from forecast_detector_ros.recording.drawing import (
    annotate,
    class_colour,
    draw,
    DrawnBox,
    FORECAST_BORDER,
    jpeg,
    MISSED,
    RIGHT,
    status_text,
)
from forecast_detector_ros.recording.recorded_frame import RecordedFrame
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from PIL import ImageColor
import pytest

BOXES = np.array([[60.0, 80.0, 120.0, 150.0]], np.float32)
NOTHING = np.empty((0, 4), np.float32)


def record(kind: str, labels: tuple[str, ...] = ()) -> RecordedFrame:
    """Return a frame of this kind on which `labels` were found."""
    return RecordedFrame(stamp_ns=0, kind=kind, reason='scheduler', confidence=0.75, threshold=0.5,
                         latency_ms=12.34, labels=labels, scores=(0.9,) * len(labels))


def grey() -> np.ndarray:
    """Return a picture without red, green or blue."""
    return np.full((180, 320, 3), 100, np.uint8)


@pytest.mark.parametrize(('kind', 'colour'), [
    ('forecast', (0, 0, 255)), ('dropped', (150, 150, 150)), ('read', (100, 100, 100))])
def test_border_tells_the_decision(kind: str, colour: tuple[int, int, int]) -> None:
    picture = annotate(grey(), NOTHING, record(kind), '')
    for row, column in ((0, 0), (0, 319), (179, 0), (179, 319), (90, 0), (90, 319)):
        assert tuple(picture[row, column]) == colour


def test_box_is_drawn_where_it_lies_in_the_colour_of_its_class() -> None:
    picture = annotate(grey(), BOXES, record('read', ('bicycle',)), '')
    for row, column in ((150, 90), (120, 60), (120, 120)):
        assert tuple(picture[row, column]) == class_colour('bicycle')
    assert tuple(picture[115, 90]) == (100, 100, 100)


def test_box_that_leaves_the_picture_can_be_drawn() -> None:
    boxes = np.array([[-50.0, -20.0, 900.0, 700.0]], np.float32)
    picture = annotate(grey(), boxes, record('read', ('train',)), '')
    assert (picture != 100).any()


def test_picture_with_padded_rows_is_drawn_into_in_place() -> None:
    padded = np.full((180, 340, 3), 100, np.uint8)
    annotate(padded[:, :320], BOXES, record('forecast', ('bicycle',)), 'status')
    assert tuple(padded[0, 0]) == (0, 0, 255)
    assert (padded[:, 320:] == 100).all()


def test_long_status_stays_inside_the_picture() -> None:
    picture = annotate(grey(), NOTHING, record('read'), 'a status that is far too long ' * 5)
    assert (picture[:, 318:] == 100).all()
    assert (picture[:20, 300:318] != 100).any()


def test_status_text_tells_what_matters() -> None:
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


GREY = np.full((60, 100, 3), 120, np.uint8)


def pixels(*boxes, **options):
    return np.asarray(draw(GREY, boxes, 200, **options))


def test_a_box_is_scaled_with_the_picture():
    drawn = pixels(DrawnBox((10, 20, 50, 40), '', RIGHT))
    assert drawn.shape == (120, 200, 3) and np.all(GREY == 120)
    colour = ImageColor.getrgb(RIGHT)
    for x, y in ((20, 60), (100, 60), (20, 80), (60, 40), (100, 80)):
        assert tuple(drawn[y, x]) == colour
    assert tuple(drawn[60, 60]) == (120, 120, 120)


def test_a_dashed_line_has_gaps():
    row = pixels(DrawnBox((10, 20, 90, 50), '', MISSED, dashed=True))[40, 20:180]
    hits = np.all(row == ImageColor.getrgb(MISSED), axis=1)
    assert 0.3 < hits.mean() < 0.7


def test_the_border_lies_on_top():
    drawn = pixels(DrawnBox((0, 0, 99, 59), 'dog', RIGHT), border=FORECAST_BORDER)
    for y, x in ((0, 0), (119, 199), (0, 100), (60, 0)):
        assert tuple(drawn[y, x]) == ImageColor.getrgb(FORECAST_BORDER)


@settings(max_examples=30)
@given(st.tuples(*[st.floats(-50, 250) for _ in range(4)]), st.text(max_size=40), st.booleans())
def test_nothing_that_is_drawn_fails(corners, text, dashed):
    x0, y0, x1, y1 = corners
    box = DrawnBox((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), text, RIGHT, dashed)
    assert pixels(box).shape == (120, 200, 3)


def test_jpeg_is_the_picture():
    decoded = cv2.imdecode(np.frombuffer(jpeg(draw(GREY, [], 100)), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decoded.astype(int) - GREY).max() <= 3
