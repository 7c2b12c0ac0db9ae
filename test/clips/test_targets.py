# SPDX-License-Identifier: Apache-2.0
"""What becomes of boxes that a picture's border cuts."""

from forecast_detector_ros.clips.targets import clip_targets, merge_targets, shift_targets, Targets
import numpy as np


def targets(boxes, ignore=()):
    return Targets(np.array(boxes, np.float32).reshape(-1, 4), np.arange(len(boxes)),
                   np.linspace(0.5, 1, len(boxes), dtype=np.float32),
                   np.array(ignore, np.float32).reshape(-1, 4))


def test_boxes_are_cut_ignored_or_gone():
    result = clip_targets(targets([
        [-30, 0, 70, 10],     # 70 % left: cut
        [-71, 0, 29, 10],     # 29 % left: ignored
        [-70, 20, 30, 30],    # 30 % left: cut
        [200, 0, 300, 10],    # outside: gone
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
