# SPDX-License-Identifier: Apache-2.0
"""Settings of the augmentation, and the rectangles that it draws."""

from dataclasses import fields
import math

from forecast_detector_ros.annotations.errors import DataError
from forecast_detector_ros.clips.augment import AugmentConfig, draw_tile_view, draw_view
import numpy as np
import pytest

SIZE = (180, 240)
ONE_BOX = np.array([[60, 50, 100, 90]], np.float32)


@pytest.mark.parametrize('name', [field.name for field in fields(AugmentConfig)])
@pytest.mark.parametrize('value', [-0.01, 1e6, math.nan, 'much', None, True])
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(DataError, match=f'^augmentation: {name} ') as caught:
        AugmentConfig(**{name: value})
    assert '\n' not in str(caught.value)


def test_combinations_that_make_no_sense_are_named():
    with pytest.raises(DataError, match='paste_min_size must not exceed paste_max_size'):
        AugmentConfig(paste_min_size=0.5, paste_max_size=0.4)
    with pytest.raises(DataError, match='paste_max_objects'):
        AugmentConfig(paste_max_objects=1.5)


def views(count=400, boxes=ONE_BOX, **settings):
    rng = np.random.default_rng(0)
    config = AugmentConfig(**settings)
    return np.array([draw_view(boxes, SIZE, config, rng) for _ in range(count)])


def test_the_whole_canvas_without_zoom_out_and_crop():
    drawn = views(10, zoom_out_probability=0, crop_probability=0)
    np.testing.assert_array_equal(drawn, np.tile([0, 0, 240, 180], (10, 1)))


def test_zoom_out_contains_the_canvas_and_keeps_its_aspect():
    drawn = views(zoom_out_probability=1, crop_probability=0, zoom_out_max=3.0)
    assert (drawn[:, :2] <= 0).all() and (drawn[:, 2:] >= (240, 180)).all()
    width, height = (drawn[:, 2:] - drawn[:, :2]).T
    np.testing.assert_allclose(width / height, 240 / 180)
    assert width.min() < 1.1 * 240 and 2.9 * 240 < width.max() <= 3 * 240


def test_crops_contain_a_centre_and_keep_to_their_bounds():
    drawn = views(zoom_out_probability=0, crop_probability=1)
    assert (drawn[:, :2] >= 0).all() and (drawn[:, 2:] <= (240, 180)).all()
    sides = (drawn[:, 2:] - drawn[:, :2]) / (240, 180)
    assert sides.min() >= 0.3
    ratio = sides[:, 0] / sides[:, 1]
    assert ratio.max() <= 2.0 + 1e-9 and ratio.min() >= 0.5 - 1e-9
    assert (drawn[:, 0] < 80).all() and (drawn[:, 2] > 80).all()
    assert (drawn[:, 1] < 70).all() and (drawn[:, 3] > 70).all()
    assert len(np.unique(drawn, axis=0)) > 350


def test_any_frame_of_the_clip_can_choose_the_crop():
    # Two frames, the object in opposite corners: crops that hold only one place occur for both.
    boxes = np.array([[10, 10, 40, 40], [200, 140, 230, 170]], np.float32)
    drawn = views(boxes=boxes, zoom_out_probability=0, crop_probability=1)
    first = (drawn[:, 0] < 25) & (drawn[:, 1] < 25)
    second = (drawn[:, 2] > 215) & (drawn[:, 3] > 155)
    assert (first | second).all()
    assert (first & ~second).any() and (second & ~first).any()


def test_without_boxes_any_crop_will_do():
    drawn = views(boxes=np.zeros((0, 4), np.float32), zoom_out_probability=0, crop_probability=1)
    assert len(np.unique(drawn, axis=0)) == 400


def test_tiles_stretch_things_as_the_whole_picture_does():
    rng = np.random.default_rng(0)
    config = AugmentConfig(mosaic_min_side=0.5)
    for _ in range(100):
        tile = tuple(rng.integers(100, 220, size=2).tolist())
        x0, y0, x1, y1 = draw_tile_view(SIZE, tile, (320, 320), config, rng)
        assert 0 <= x0 < x1 <= 240 and 0 <= y0 < y1 <= 180
        stretch = (tile[1] / (x1 - x0)) / (tile[0] / (y1 - y0))
        assert stretch == pytest.approx((320 / 240) / (320 / 180))
        assert 0.5 - 1e-9 <= max((x1 - x0) / 240, (y1 - y0) / 180) <= 1 + 1e-9
