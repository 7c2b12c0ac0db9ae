# SPDX-License-Identifier: Apache-2.0
"""
Random choices, once per clip: its view of the canvas, and its colours; also noise per frame.

Colours are distorted as in SSD, equally in all frames of a clip; noise is new in every frame.
torchvision's `v2.RandomPhotometricDistort` is not used. Its contrast step uses the mean of each
frame, which makes a clip flicker, and it converts through float HSV. Here, as in SSD's own code,
every step is a function of one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torch import Tensor

from ..annotations.findings import DataError
from ..boxes import box_iou

#: ImageNet's mean colour, RGB, which the network's normalisation turns into zero; as in SSD.
FILL = (124, 116, 104)
MOSAIC_CENTRE = (0.35, 0.65)  #: Where the four tiles of a mosaic meet, of the picture's sides
FRAMES = 32  #: Frames drawn together; a whole long video in floats would fill the memory
# SSD (Liu et al. 2016, section 2.2): the least overlap that a crop must have with an object.
CROP_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
# As in SSD's code: crops that are tried for each drawn overlap, and overlaps that are drawn.
_CROP_TRIALS = 40
_CROP_ROUNDS = 6


@dataclass(frozen=True)
class AugmentConfig:
    """
    Settings of the augmentation; the defaults are SSD's, and mosaic is off.

    Lengths are fractions of the canvas (the still or video frame) unless stated otherwise.
    """

    flip_probability: float = 0.5
    #: show the canvas smaller, by up to `zoom_out_max`, with mean grey around it
    zoom_out_probability: float = 0.5
    zoom_out_max: float = 4.0
    #: IoU crop: sides from `crop_min_side` to 1, their ratio at most `crop_max_aspect`
    crop_probability: float = 6 / 7
    crop_min_side: float = 0.3
    crop_max_aspect: float = 2.0
    #: each of brightness (+- levels of 255), contrast and saturation (factor 1 +- x), hue (+- deg)
    photometric_probability: float = 0.5
    brightness: float = 32.0
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 18.0
    #: Gaussian sensor noise, fresh on every frame; its standard deviation is drawn per clip, in
    #: levels of 255
    noise_probability: float = 0.0
    noise_max: float = 6.0
    #: four clips in one picture; each shows `mosaic_min_side` to 1 of its canvas
    mosaic_probability: float = 0.0
    mosaic_min_side: float = 0.5
    #: synthetic camera motion, per frame: pan, zoom (factor e^+-x), rotation (degrees)
    still_motion_probability: float = 0.85
    video_motion_probability: float = 0.0
    motion_pan: float = 0.03
    motion_zoom: float = 0.02
    motion_rotation: float = 0.6
    #: pasted cut-outs: on stills, on videos, and on clips without boxes
    paste_still_probability: float = 0.3
    paste_video_probability: float = 0.15
    paste_empty_probability: float = 0.9
    paste_max_objects: int = 2
    #: long side of a cut-out over the canvas's short side, drawn uniformly on a log scale
    paste_min_size: float = 0.12
    paste_max_size: float = 0.8
    #: greatest speed of a cut-out, per frame
    paste_speed: float = 0.03
    #: boxes with less of their area in the picture, or narrower in network pixels, are ignored
    min_visible: float = 0.3
    min_side: float = 4.0

    def __post_init__(self) -> None:
        """Check every value; raise DataError with the name of the first that is out of range."""
        limits = {'zoom_out_max': (1.0, 16.0), 'crop_min_side': (0.05, 1.0),
                  'crop_max_aspect': (1.0, 10.0), 'brightness': (0.0, 255.0), 'hue': (0.0, 180.0),
                  'noise_max': (0.0, 255.0), 'mosaic_min_side': (0.05, 1.0),
                  'motion_rotation': (0.0, 10.0),
                  'paste_max_objects': (1, 100), 'paste_min_size': (0.01, 2.0),
                  'paste_max_size': (0.01, 2.0), 'min_side': (0.0, 1000.0)}
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = limits.get(field.name, (0.0, 1.0))
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not (
                    low <= value <= high):
                raise DataError(f'augmentation: {field.name} is {value!r}; '
                                f'it must be a number from {low:g} to {high:g}')
        if not isinstance(self.paste_max_objects, int):
            raise DataError('augmentation: paste_max_objects must be a whole number')
        if self.paste_min_size > self.paste_max_size:
            raise DataError('augmentation: paste_min_size must not exceed paste_max_size')


def draw_view(boxes: np.ndarray, size: tuple[int, int], config: AugmentConfig,
              rng: np.random.Generator) -> np.ndarray:
    """
    Draw SSD's zoom-out and then its IoU crop, as one rectangle over the canvas.

    :param boxes: float32 (N, 4) xyxy, of all frames of the clip, so that one crop serves them all
    :param size: (height, width) of the canvas
    :returns: float64 (4,) xyxy in canvas pixels; it may reach beyond the canvas
    """
    height, width = size
    view = np.array([0.0, 0.0, width, height])
    if rng.random() < config.zoom_out_probability:
        factor = rng.uniform(1.0, config.zoom_out_max)
        left, top = -rng.uniform(0, factor - 1, size=2) * (width, height)
        view = np.array([left, top, left + factor * width, top + factor * height])
    if rng.random() >= config.crop_probability:
        return view
    for _ in range(_CROP_ROUNDS):
        overlap = CROP_OVERLAPS[rng.integers(len(CROP_OVERLAPS))]
        crop = _draw_crop(boxes, view, overlap, config, rng)
        if crop is not None:
            return crop
    return view


def _draw_crop(boxes: np.ndarray, view: np.ndarray, overlap: float, config: AugmentConfig,
               rng: np.random.Generator) -> np.ndarray | None:
    """Try crops of `view` until a box with its centre inside has IoU >= `overlap`, else None."""
    sides = rng.uniform(config.crop_min_side, 1.0, size=(_CROP_TRIALS, 2))
    corners = rng.random((_CROP_TRIALS, 2)) * (1 - sides)
    extent = view[2:] - view[:2]
    crops = np.concatenate([corners, corners + sides], axis=1) * np.tile(extent, 2)
    crops += np.tile(view[:2], 2)
    ratio = sides[:, 0] / sides[:, 1]
    good = np.maximum(ratio, 1 / ratio) <= config.crop_max_aspect
    if len(boxes):
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centre > crops[:, None, :2]) & (centre < crops[:, None, 2:])).all(axis=2)
        good &= (inside & (box_iou(crops, boxes) >= overlap)).any(axis=1)
    chosen = np.flatnonzero(good)
    return crops[chosen[0]] if len(chosen) else None


def draw_tile_view(size: tuple[int, int], tile: tuple[int, int], output: tuple[int, int],
                   config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """
    Draw the rectangle of a canvas that is shown in one tile of a mosaic.

    Its aspect is chosen so that the tile stretches objects as much as the whole input would
    stretch them.

    :param size: (height, width) of the canvas
    :param tile: (height, width) of the tile
    :param output: (height, width) of the network's input
    :returns: float64 (4,) xyxy within the canvas
    """
    share = np.array([tile[1] / output[1], tile[0] / output[0]])
    sides = share / share.max() * rng.uniform(config.mosaic_min_side, 1.0)
    corner = rng.random(2) * (1 - sides)
    return np.concatenate([corner, corner + sides]) * (size[1], size[0], size[1], size[0])


_LEVELS = np.arange(256, dtype=np.float32)


class Photometric:
    """One drawn distortion: a table for RGB, one for HSV, and another for RGB."""

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


def add_noise_to(images: Tensor, rng: np.random.Generator, config: AugmentConfig) -> None:
    """
    Add the noise of `add_noise` to clips, in place, on their device.

    :param images: ``(B, T, 3, H, W)`` uint8; each clip has its own deviation
    :param rng: source of the draws; not used if `noise_probability` is 0
    """
    if not config.noise_probability:
        return
    amount = rng.uniform(0.0, config.noise_max, len(images)) * (
        rng.random(len(images)) < config.noise_probability)
    generator = torch.Generator(images.device).manual_seed(int(rng.integers(2 ** 62)))
    # One clip at a time: a whole batch's noise in floats would take four times the batch's memory.
    for clip in np.flatnonzero(amount):
        for some in images[clip].split(FRAMES):
            noise = torch.randn(some.shape, generator=generator, device=images.device)
            some.copy_((some + float(amount[clip]) * noise).round_().clamp_(0, 255))


def add_noise(images: np.ndarray, rng: np.random.Generator, config: AugmentConfig) -> np.ndarray:
    """
    Add Gaussian sensor noise that is new in every frame.

    Without noise, a clip of a still scene repeats one picture exactly, which no camera does.

    :param images: uint8 (T, H, W, 3); returned unchanged if no noise is drawn
    :param rng: source of the draws; not used if `noise_probability` is 0
    """
    if not config.noise_probability or rng.random() >= config.noise_probability:
        return images
    deviation = rng.uniform(0.0, config.noise_max)
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return np.clip(np.round(images + deviation * noise), 0, 255).astype(np.uint8)


def _table(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)
