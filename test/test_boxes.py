# SPDX-License-Identifier: Apache-2.0
"""Areas, intersections and IoU of boxes by hand."""

from forecast_detector_ros.boxes import (
    box_area,
    box_iou,
    clip_boxes,
    intersection,
    pair_inside,
    pair_iou,
)
import numpy as np
import pytest

SQUARE = (0, 0, 10, 10)
FIRST = np.array([SQUARE, SQUARE, SQUARE, (5, 5, 5, 5)], np.float32)
SECOND = np.array([SQUARE, (5, 0, 15, 10), (20, 20, 30, 30), (5, 5, 5, 5)], np.float32)


def test_iou_of_known_pairs():
    assert pair_iou(FIRST, SECOND) == pytest.approx([1, 1 / 3, 0, 0])
    assert pair_inside(FIRST, SECOND) == pytest.approx([1, 0.5, 0, 0])


def test_every_box_with_every_other():
    assert intersection(FIRST[:1], SECOND).tolist() == [[100, 50, 0, 0]]
    table = box_iou(FIRST, SECOND)
    assert table.shape == (4, 4)
    assert np.diag(table) == pytest.approx(pair_iou(FIRST, SECOND))


def test_boxes_are_cut_to_the_picture():
    cut = clip_boxes(np.array([[-5, 2, 30, 40]], np.float32), (20, 25))
    assert cut.tolist() == [[0, 2, 25, 20]]
    assert box_area(cut).tolist() == [25 * 18]
