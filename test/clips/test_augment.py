# SPDX-License-Identifier: Apache-2.0
"""Settings of the augmentation, its crops, colours and noise."""

from dataclasses import fields
import math

import cv2
from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.clips.augment import (
    add_noise,
    AugmentConfig,
    draw_tile_view,
    draw_view,
    Photometric,
)
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
    # The object of two frames is in opposite corners, and some crops contain only one corner.
    boxes = np.array([[10, 10, 40, 40], [200, 140, 230, 170]], np.float32)
    drawn = views(boxes=boxes, zoom_out_probability=0, crop_probability=1)
    first = (drawn[:, 0] < 25) & (drawn[:, 1] < 25)
    second = (drawn[:, 2] > 215) & (drawn[:, 3] > 155)
    assert (first | second).all()
    assert (first & ~second).any() and (second & ~first).any()


def test_without_boxes_crops_are_free():
    drawn = views(boxes=np.zeros((0, 4), np.float32), zoom_out_probability=0, crop_probability=1)
    assert len(np.unique(drawn, axis=0)) == 400


def test_tiles_are_stretched_as_the_whole_picture():
    rng = np.random.default_rng(0)
    config = AugmentConfig(mosaic_min_side=0.5)
    for _ in range(100):
        tile = tuple(rng.integers(100, 220, size=2).tolist())
        x0, y0, x1, y1 = draw_tile_view(SIZE, tile, (320, 320), config, rng)
        assert 0 <= x0 < x1 <= 240 and 0 <= y0 < y1 <= 180
        stretch = (tile[1] / (x1 - x0)) / (tile[0] / (y1 - y0))
        assert stretch == pytest.approx((320 / 240) / (320 / 180))
        assert 0.5 - 1e-9 <= max((x1 - x0) / 240, (y1 - y0) / 180) <= 1 + 1e-9


OFF = {'brightness': 0, 'contrast': 0, 'saturation': 0, 'hue': 0}


def colours(count=600):
    """Return pictures uint8 (2, count / 2, 1, 3) of random colours."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, count // 2, 1, 3), dtype=np.uint8)


def draws(count=200, **settings):
    rng = np.random.default_rng(0)
    config = AugmentConfig(photometric_probability=1, **{**OFF, **settings})
    return [Photometric(rng, config).apply(colours()) for _ in range(count)]


def test_equal_pixels_stay_equal_in_every_frame():
    rng = np.random.default_rng(0)
    images = np.tile(colours(), (1, 1, 7, 1))
    images[1] = images[0]
    for _ in range(50):
        changed = Photometric(rng, AugmentConfig()).apply(images)
        assert changed.shape == images.shape and changed.dtype == np.uint8
        np.testing.assert_array_equal(changed[0], changed[1])
        assert (changed == changed[:, :, :1]).all()


@pytest.mark.parametrize('settings', [{'photometric_probability': 0}, OFF])
def test_colours_stay_without_photometric_changes(settings):
    config = AugmentConfig(**settings)
    drawn = Photometric(np.random.default_rng(0), config).apply(colours())
    np.testing.assert_array_equal(drawn, colours())


def test_brightness_adds_at_most_its_setting():
    before = colours().astype(int)
    shifts = []
    for after in draws(brightness=32):
        inside = (after > 0) & (after < 255)
        shift = (after - before)[inside]
        assert np.ptp(shift) == 0
        shifts.append(int(shift[0]))
    assert -32 <= min(shifts) < -28 and 28 < max(shifts) <= 32


def test_contrast_multiplies():
    before = colours().astype(float)
    factors = []
    for after in draws(contrast=0.5):
        inside = (after > 0) & (after < 255) & (before > 60)
        ratio = after[inside] / before[inside]
        factors.append(float(np.median(ratio)))
        np.testing.assert_allclose(ratio, factors[-1], atol=0.01)
    assert 0.49 < min(factors) < 0.55 and 1.45 < max(factors) < 1.51


def test_hue_is_shifted_and_saturation_keeps_grey():
    hue_before = cv2.cvtColor(colours().reshape(-1, 1, 3), cv2.COLOR_RGB2HSV).astype(int)
    clear = (hue_before[:, 0, 1] > 150) & (hue_before[:, 0, 2] > 150)
    turns = []
    for after in draws(hue=18):
        hue = cv2.cvtColor(after.reshape(-1, 1, 3), cv2.COLOR_RGB2HSV).astype(int)
        turn = (hue - hue_before)[clear, 0, 0]
        turns.append(np.median((turn + 90) % 180 - 90) * 2)
    assert -20 <= min(turns) < -14 and 14 < max(turns) <= 20
    grey = np.full((1, 4, 4, 3), 120, np.uint8)
    rng = np.random.default_rng(0)
    config = AugmentConfig(photometric_probability=1, brightness=0, contrast=0)
    for _ in range(20):
        np.testing.assert_array_equal(Photometric(rng, config).apply(grey), grey)


def test_noise_is_new_on_every_frame_and_as_strong_as_drawn():
    grey = np.full((3, 60, 60, 3), 120, np.uint8)
    rng = np.random.default_rng(0)
    config = AugmentConfig(noise_probability=1, noise_max=6)
    deviations = []
    for _ in range(50):
        noisy = add_noise(grey, rng, config).astype(float)
        assert noisy.shape == grey.shape
        assert abs(noisy.mean() - 120) < 0.3
        spread = noisy.std(axis=(1, 2, 3))
        assert spread.max() - spread.min() < 0.5
        if spread.min() > 1:
            assert abs(np.corrcoef(noisy.reshape(3, -1))[0, 1]) < 0.05
        deviations.append(spread.mean())
    assert min(deviations) < 0.7 and 5 < max(deviations) < 6.3


def test_noise_stays_within_eight_bits_and_can_be_off():
    config = AugmentConfig(noise_probability=1, noise_max=200)
    ends = np.concatenate([np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)])
    noisy = add_noise(ends, np.random.default_rng(1), config)
    assert (noisy[0] == 0).any() and (noisy[1] == 255).any()
    rng = np.random.default_rng(2)
    assert add_noise(ends, rng, AugmentConfig()) is ends
    assert rng.random() == np.random.default_rng(2).random()
    half = AugmentConfig(noise_probability=0.5)
    changed = [add_noise(ends, rng, half) is not ends for _ in range(200)]
    assert 70 < sum(changed) < 130
