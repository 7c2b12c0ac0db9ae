# SPDX-License-Identifier: Apache-2.0
"""Check boxes and their texts in the pictures of the report."""
import cv2
from forecast_detector_ros.report.drawn_boxes import (
    draw,
    DrawnBox,
    FORECAST_BORDER,
    jpeg,
    MISSED,
    RIGHT,
)
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from PIL import ImageColor

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


def test_the_border_is_drawn_over_boxes():
    drawn = pixels(DrawnBox((0, 0, 99, 59), 'dog', RIGHT), border=FORECAST_BORDER)
    for y, x in ((0, 0), (119, 199), (0, 100), (60, 0)):
        assert tuple(drawn[y, x]) == ImageColor.getrgb(FORECAST_BORDER)


@settings(max_examples=30)
@given(st.tuples(*[st.floats(-50, 250) for _ in range(4)]), st.text(max_size=40), st.booleans())
def test_every_box_can_be_drawn(corners, text, dashed):
    x0, y0, x1, y1 = corners
    box = DrawnBox((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), text, RIGHT, dashed)
    assert pixels(box).shape == (120, 200, 3)


def test_jpeg_is_the_picture():
    decoded = cv2.imdecode(np.frombuffer(jpeg(draw(GREY, [], 100)), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decoded.astype(int) - GREY).max() <= 3
