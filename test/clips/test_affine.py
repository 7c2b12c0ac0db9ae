# SPDX-License-Identifier: Apache-2.0
"""Maps of boxes agree with maps of pictures."""

import cv2
from forecast_detector_ros.annotations.records import Targets
from forecast_detector_ros.clips.affine import (
    clip_targets,
    map_boxes,
    map_points,
    merge_targets,
    rotation_about,
    scale_and_shift,
    shift_targets,
    view_to_output,
    warp,
)
import numpy as np
import pytest


def test_view_to_output_stretches_and_mirrors():
    view = np.array([10.0, 20.0, 30.0, 60.0])
    corners = np.array([[10.0, 20.0], [30.0, 60.0]])
    np.testing.assert_allclose(map_points(corners, view_to_output(view, (80, 100))),
                               [[0, 0], [100, 80]], atol=1e-9)
    np.testing.assert_allclose(map_points(corners, view_to_output(view, (80, 100), flip=True)),
                               [[100, 0], [0, 80]], atol=1e-9)


def test_rotation_keeps_its_centre_and_turns_x_towards_y():
    matrix = rotation_about(3.0, 4.0, 90.0, 2.0)
    np.testing.assert_allclose(map_points(np.array([[3.0, 4.0], [4.0, 4.0]]), matrix),
                               [[3, 4], [3, 6]], atol=1e-9)


def test_boxes_are_exact_without_rotation_and_ordered_when_mirrored():
    boxes = np.array([[1, 2, 5, 10]], np.float32)
    mapped = map_boxes(boxes, scale_and_shift(-2.0, 0.5, 20.0, 1.0))
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped, [[10, 2, 18, 6]])
    assert map_boxes(np.zeros((0, 4), np.float32), np.eye(3)).shape == (0, 4)


def test_turned_boxes_are_those_of_turned_ellipses():
    box = np.array([[20, 40, 80, 60]], np.float32)
    matrix = rotation_about(35.0, 45.0, 25.0)
    angle = np.linspace(0, 2 * np.pi, 3601)
    ellipse = np.stack([50 + 30 * np.cos(angle), 50 + 10 * np.sin(angle)], axis=1)
    turned = map_points(ellipse, matrix)
    np.testing.assert_allclose(map_boxes(box, matrix)[0],
                               [*turned.min(axis=0), *turned.max(axis=0)], atol=1e-3)


def test_the_identity_changes_no_pixel():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(warp(image, np.eye(3), (20, 30), (0, 0, 0)), image)


def test_a_stretch_equals_the_resize_of_inference():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    size = (225, 300)
    ours = warp(image, view_to_output(np.array([0, 0, 120, 90]), size), size, (0, 0, 0))
    theirs = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    # `warp` fills the border and `resize` repeats it; elsewhere only rounding differs.
    difference = np.abs(ours.astype(int) - theirs)[2:-2, 2:-2]
    assert difference.max() <= 1


def test_shrinking_averages_instead_of_skipping():
    # Stripes of one pixel become their mean; bilinear sampling alone would keep some stripes.
    image = np.zeros((128, 128, 3), np.uint8)
    image[:, ::2] = 200
    small = warp(image, scale_and_shift(0.125, 0.125, 0.0, 0.0), (16, 16), (0, 0, 0))
    assert np.abs(small[1:-1, 1:-1].astype(int) - 100).max() <= 3


@pytest.mark.parametrize('scale', [0.21, 0.5, 0.77, 1.6])
def test_shrunk_pictures_keep_their_position(scale):
    image = np.zeros((300, 400, 3), np.uint8)
    image[60:240, 100:300] = 255
    drawn = warp(image, scale_and_shift(scale, scale, 3.0, 5.0), (500, 700), (0, 0, 0))
    rows, columns = np.nonzero(drawn[:, :, 0] > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = np.array([100, 60, 300, 240]) * scale + [3, 5, 3, 5]
    np.testing.assert_allclose(found, expected, atol=0.6)


def test_outside_is_filled():
    image = np.full((10, 10, 3), 50, np.uint8)
    drawn = warp(image, scale_and_shift(1.0, 1.0, 5.0, 0.0), (10, 10), (1, 2, 3))
    assert (drawn[:, :5] == (1, 2, 3)).all() and (drawn[:, 5:] == 50).all()


def targets(boxes, ignore=()):
    return Targets(np.array(boxes, np.float32).reshape(-1, 4), np.arange(len(boxes)),
                   np.linspace(0.5, 1, len(boxes), dtype=np.float32),
                   np.array(ignore, np.float32).reshape(-1, 4))


def test_boxes_are_cut_ignored_or_dropped():
    result = clip_targets(targets([
        [-30, 0, 70, 10],     # 70 % left: cut
        [-71, 0, 29, 10],     # 29 % left: ignored
        [-70, 20, 30, 30],    # 30 % left: cut
        [200, 0, 300, 10],    # outside: dropped
        [10, 10, 13, 40],     # 3 pixels wide: ignored
        [10, 10, 14, 40],     # 4 pixels wide: kept
        [90, 40, 110, 60],    # a corner, 25 %: ignored
    ], ignore=[[50, 40, 150, 60], [300, 0, 310, 10]]), (50, 100), 0.3, 4.0)
    np.testing.assert_array_equal(result.boxes, [
        [0, 0, 70, 10], [0, 20, 30, 30], [10, 10, 14, 40]])
    assert result.labels.tolist() == [0, 2, 5]
    np.testing.assert_allclose(result.scores, [0.5, 0.5 + 2 / 12, 0.5 + 5 / 12], rtol=1e-6)
    np.testing.assert_array_equal(result.ignore, [
        [50, 40, 100, 50], [0, 0, 29, 10], [10, 10, 13, 40], [90, 40, 100, 50]])
    assert result.boxes.dtype == result.ignore.dtype == np.float32


def test_frames_without_boxes_pass():
    result = clip_targets(targets([]), (50, 100), 0.3, 4.0)
    assert result.boxes.shape == (0, 4) and result.ignore.shape == (0, 4)


def test_demoted_boxes_become_ignore_regions():
    result = targets([[0, 0, 5, 5], [5, 5, 9, 9]], [[1, 1, 2, 2]]).demote(np.array([True, False]))
    assert result.labels.tolist() == [1]
    np.testing.assert_array_equal(result.ignore, [[1, 1, 2, 2], [0, 0, 5, 5]])


def test_shift_and_merge():
    one = targets([[0, 0, 5, 5]], [[1, 1, 2, 2]])
    result = merge_targets([one, shift_targets(one, 10, 20)])
    np.testing.assert_array_equal(result.boxes, [[0, 0, 5, 5], [10, 20, 15, 25]])
    np.testing.assert_array_equal(result.ignore, [[1, 1, 2, 2], [11, 21, 12, 22]])
    assert result.boxes.dtype == np.float32
