# SPDX-License-Identifier: Apache-2.0
"""Photometric distortion: a function of the pixel alone, within its settings."""

import cv2
from forecast_detector_ros.clips.augment import AugmentConfig
from forecast_detector_ros.clips.photometric import add_noise, Photometric
import numpy as np
import pytest

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
def test_off_is_off(settings):
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


def test_hue_turns_and_saturation_leaves_grey_alone():
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


def test_noise_stays_within_eight_bits_and_draws_nothing_where_it_is_off():
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
