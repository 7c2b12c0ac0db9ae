# SPDX-License-Identifier: Apache-2.0
"""Synthetic motion is smooth, within its limits, and stays inside the picture."""

from forecast_detector_ros.clips.affine import map_points
from forecast_detector_ros.clips.augment import AugmentConfig
from forecast_detector_ros.clips.scene import draw_camera, draw_track
import numpy as np
import pytest

SIZE = (180, 240)
CORNERS = np.array([[0, 0], [240, 0], [0, 180], [240, 180]], float)


@pytest.mark.parametrize('frames', [1, 2, 11])
def test_the_window_of_the_camera_stays_within_the_picture(frames):
    rng = np.random.default_rng(0)
    config = AugmentConfig(motion_rotation=0)
    for _ in range(200):
        maps = draw_camera(SIZE, frames, config, rng)
        assert maps.shape == (frames, 3, 3)
        for matrix in maps:
            window = map_points(CORNERS, np.linalg.inv(matrix))
            assert window.min() > -1e-6
            assert (window.max(axis=0) < np.array([240, 180]) + 1e-6).all()


def test_camera_motion_is_slow_and_smooth():
    rng = np.random.default_rng(1)
    config = AugmentConfig(motion_rotation=0.5)
    largest = 0.0
    for _ in range(200):
        maps = draw_camera(SIZE, 11, config, rng)
        centre = np.stack([map_points(np.array([[120.0, 90.0]]), matrix)[0] for matrix in maps])
        velocity = np.diff(centre, axis=0) / (240, 180)
        largest = max(largest, float(np.abs(velocity).max()))
        # The motion has no jerks, so the velocity changes by a fraction of the largest motion.
        assert np.abs(np.diff(velocity, axis=0)).max() < 0.025
    assert 0.02 < largest < 0.12


def test_rotation_is_bounded():
    rng = np.random.default_rng(1)
    angles = []
    for _ in range(200):
        maps = draw_camera(SIZE, 11, AugmentConfig(motion_rotation=0.5), rng)
        angles.append(np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0])))
    assert 1.0 < np.abs(angles).max() < 5.0


def test_without_speed_the_camera_does_not_move():
    config = AugmentConfig(motion_pan=0, motion_zoom=0, motion_rotation=0)
    maps = draw_camera(SIZE, 5, config, np.random.default_rng(0))
    np.testing.assert_allclose(maps, np.tile(maps[0], (5, 1, 1)), atol=1e-9)


def test_tracks_keep_their_size_and_some_are_mirrored():
    rng = np.random.default_rng(0)
    config = AugmentConfig(paste_min_size=0.2, paste_max_size=0.4)
    mirrored, scales, moved = [], [], []
    for _ in range(300):
        maps = draw_track((50, 100), SIZE, 6, config, rng)
        assert maps.shape == (6, 3, 3)
        determinant = np.linalg.det(maps[:, :2, :2])
        assert len(set(np.sign(determinant))) == 1
        mirrored.append(determinant[0] < 0)
        scales.append(np.sqrt(np.abs(determinant)).mean() * 100 / 180)
        centre = np.stack([map_points(np.array([[50.0, 25.0]]), matrix)[0] for matrix in maps])
        middle = centre.mean(axis=0) / (240, 180)
        assert (middle > 0.05).all() and (middle < 0.95).all()
        moved.append(np.abs(np.diff(centre, axis=0) / (240, 180)).max())
    assert 100 < sum(mirrored) < 200
    assert 0.18 < min(scales) < 0.22 and 0.36 < max(scales) < 0.42
    assert 0.02 < max(moved) < 0.1
