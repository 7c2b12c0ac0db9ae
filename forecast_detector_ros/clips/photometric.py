# SPDX-License-Identifier: Apache-2.0
"""
SSD's photometric distortion, the same on every frame of a clip, and noise, which is not.

torchvision's `v2.RandomPhotometricDistort` is not used: it needs a round trip through float HSV
and, in its contrast step, the mean of each frame, which would make a clip flicker. Here, as in
SSD's own code, every step is a function of one pixel.
"""
from __future__ import annotations

import cv2
import numpy as np

from .augment import AugmentConfig

_LEVELS = np.arange(256, dtype=np.float32)


class Photometric:
    """One drawn distortion: a table over RGB, one over HSV, and another over RGB."""

    def __init__(self, rng: np.random.Generator, config: AugmentConfig) -> None:
        """Draw each of brightness, contrast, saturation and hue with its probability."""
        chance = config.photometric_probability
        brightness = rng.uniform(-1, 1) * config.brightness if rng.random() < chance else 0.0
        contrast = 1 + rng.uniform(-1, 1) * config.contrast if rng.random() < chance else 1.0
        saturation = 1 + rng.uniform(-1, 1) * config.saturation if rng.random() < chance else 1.0
        hue = rng.uniform(-1, 1) * config.hue if rng.random() < chance else 0.0
        early = rng.random() < 0.5
        first, last = _LEVELS + brightness, _LEVELS
        if early:
            first = first * contrast
        else:
            last = last * contrast
        self._first = _table(first) if brightness or (early and contrast != 1) else None
        self._last = _table(last) if not early and contrast != 1 else None
        self._hsv = None
        if saturation != 1 or hue:
            # OpenCV's 8-bit hue counts steps of two degrees, 0 to 179.
            turned = (np.round(_LEVELS + hue / 2) % 180).astype(np.uint8)
            tables = [turned, _table(_LEVELS * saturation), _LEVELS.astype(np.uint8)]
            self._hsv = np.stack(tables, axis=1).reshape(1, 256, 3)

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Distort pictures, uint8 (T, H, W, 3) RGB; the result may share memory with them."""
        tall = images.reshape(-1, images.shape[2], 3)
        if self._first is not None:
            tall = cv2.LUT(tall, self._first)
        if self._hsv is not None:
            hsv = cv2.LUT(cv2.cvtColor(tall, cv2.COLOR_RGB2HSV), self._hsv)
            tall = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if self._last is not None:
            tall = cv2.LUT(tall, self._last)
        return tall.reshape(images.shape)


def add_noise(images: np.ndarray, rng: np.random.Generator, config: AugmentConfig) -> np.ndarray:
    """
    Add what a sensor adds: Gaussian noise that is new on every frame.

    A clip that stands still otherwise repeats one picture bit by bit, which no camera does.

    :param images: uint8 (T, H, W, 3); returned unchanged if the draw is against noise
    :param rng: source of the draws; untouched where `noise_probability` is 0
    """
    if not config.noise_probability or rng.random() >= config.noise_probability:
        return images
    deviation = rng.uniform(0.0, config.noise_max)
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return np.clip(np.round(images + deviation * noise), 0, 255).astype(np.uint8)


def _table(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)
