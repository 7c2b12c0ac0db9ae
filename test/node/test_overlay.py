# SPDX-License-Identifier: Apache-2.0
"""The annotated picture."""
from __future__ import annotations

from forecast_detector_ros.detector.detections import Detections
from forecast_detector_ros.detector.policy import Decision, FORECAST, READ
from forecast_detector_ros.images.frame import Pixels
from forecast_detector_ros.node.overlay import draw_answer
from forecast_detector_ros.recording.annotate import RED
import numpy as np
import pytest

HEIGHT, WIDTH = 120, 160
FORECAST_FRAME = Decision(FORECAST, 'scheduler', 0.9, 0.5, 1)
READ_FRAME = Decision(READ, 'scheduler', 0.1, 0.5, 0)


def one(box: tuple[float, float, float, float]) -> Detections:
    return Detections(np.array([box], np.float32), np.array([0]), np.array([0.5], np.float32))


@pytest.mark.parametrize(('order', 'channels'), [
    ('bgr', 3), ('rgb', 3), ('bgra', 4), ('rgba', 4), ('mono', 1)])
def test_every_channel_order_becomes_bgr_and_the_picture_stays(order: str, channels: int) -> None:
    array = np.full((HEIGHT, WIDTH, channels), 10, np.uint8)
    array[..., 0] = 200
    array = array[..., 0] if order == 'mono' else array
    before = array.copy()
    drawn = draw_answer(Pixels(array, order), one((40, 40, 80, 80)), ('cat',), FORECAST_FRAME)
    np.testing.assert_array_equal(array, before)
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    expected = {'mono': [200, 200, 200], 'rgb': [10, 10, 200], 'rgba': [10, 10, 200]}
    assert drawn[60, 120].tolist() == expected.get(order, [200, 10, 10])


def test_border_is_red_on_forecast_frames_only() -> None:
    pixels = Pixels(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 'bgr')
    for decision, bordered in ((FORECAST_FRAME, True), (READ_FRAME, False)):
        drawn = draw_answer(pixels, one((40, 40, 80, 80)), ('cat',), decision)
        edges = (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1])
        assert [bool((edge == RED).all()) for edge in edges] == [bordered] * 4


def test_box_is_drawn_where_it_is_and_clipped() -> None:
    pixels = Pixels(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 'bgr')
    drawn = draw_answer(pixels, one((40, 50, 90, 95)), ('cat',), READ_FRAME)
    assert drawn[70, 40].any() and drawn[70, 90].any() and drawn[95, 60].any()
    assert not drawn[70, 60].any()
    draw_answer(pixels, one((-500, -500, 5000, 5000)), ('cat',), READ_FRAME)
