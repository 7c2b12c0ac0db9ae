# SPDX-License-Identifier: Apache-2.0
"""Compare areas, intersections, IoU and pairs of boxes with values computed by hand."""

from forecast_detector_ros.boxes import (
    best_pairs,
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


def test_pairs_with_larger_overlap_go_first():
    overlap = np.array([[0.9, 0.8, 0.0], [0.95, 0.7, 0.0], [0.2, 0.6, 0.1]])
    rows, columns = best_pairs(overlap, 0.5)
    # Row 0 overlaps column 0 more, and row 2 overlaps column 1, but both columns are taken.
    assert list(zip(rows.tolist(), columns.tolist())) == [(1, 0), (0, 1)]
    rows, columns = best_pairs(overlap, 0.1)
    assert list(zip(rows.tolist(), columns.tolist())) == [(1, 0), (0, 1), (2, 2)]
    assert [len(part) for part in best_pairs(np.zeros((0, 3)), 0.5)] == [0, 0]
