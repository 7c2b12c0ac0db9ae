# SPDX-License-Identifier: Apache-2.0
"""Smooth synthetic motion: of a camera over a still, and of a cut-out over a canvas."""
from __future__ import annotations

import numpy as np

from .affine import rotation_about, view_to_output
from .augment import AugmentConfig

# How much faster or slower than its mean speed a motion may begin.
_EASE = 0.7
# Speed of motion is drawn as its maximum times u^2, u uniform: most motion in video is slow.
_SPEED_POWER = 2
# Furthest zoom at the ends of a camera motion.
_ZOOM_MAX = 1.6


def progress(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draw how far a motion has come, float64 (frames,): from 0 to frames - 1, speed changing."""
    time = np.linspace(0.0, 1.0, frames)
    ease = rng.uniform(-_EASE, _EASE)
    return (time + ease * time * (1 - time)) * (frames - 1)


def speed(maximum: float, rng: np.random.Generator) -> float:
    """Draw a signed speed, at most `maximum`, slow ones more often."""
    return float(maximum * rng.choice((-1, 1)) * rng.random() ** _SPEED_POWER)


def draw_camera(size: tuple[int, int], frames: int, config: AugmentConfig,
                rng: np.random.Generator) -> np.ndarray:
    """
    Draw a camera that pans, zooms and turns slightly, its window always within the picture.

    (A turned window's corners may stick out a little.)

    :param size: (height, width) of the picture, and of the canvas that the camera fills
    :param frames: T, at least 1
    :returns: float64 (frames, 3, 3), maps from the picture to the canvas
    """
    height, width = size
    travelled = progress(frames, rng)
    zoom = np.exp(rng.uniform(0.0, np.log(_ZOOM_MAX))
                  + speed(config.motion_zoom, rng) * travelled)
    side = 1 / np.clip(zoom, 1.0, None)
    room = (1 - side)[:, None]
    # Where in the room that it has the window stands: from 0, left or top, to 1, right or bottom.
    begin = rng.random(2)
    angle = np.pi * rng.uniform(-1, 1)
    way = speed(config.motion_pan, rng) * travelled[-1] * np.array([np.cos(angle), np.sin(angle)])
    end = np.clip(begin + way / max(room.mean(), 1e-6), 0.0, 1.0)
    corner = room * (begin + np.outer(travelled / max(travelled[-1], 1), end - begin))
    degrees = speed(config.motion_rotation, rng) * (travelled - travelled.mean())
    turn = [rotation_about(width / 2, height / 2, value) for value in degrees]
    views = np.concatenate([corner, corner + side[:, None]], axis=1)
    views *= (width, height, width, height)
    return np.stack([turned @ view_to_output(view, size) for turned, view in zip(turn, views)])


def draw_track(extent: tuple[int, int], size: tuple[int, int], frames: int,
               config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """
    Draw the way of a cut-out over a canvas: straight, with a sway, growing and turning slightly.

    :param extent: (height, width) of the cut-out's picture
    :param size: (height, width) of the canvas
    :param frames: T, at least 1
    :returns: float64 (frames, 3, 3), maps from the cut-out's picture to the canvas
    """
    height, width = size
    long_side = np.exp(rng.uniform(np.log(config.paste_min_size), np.log(config.paste_max_size)))
    travelled = progress(frames, rng)
    scale = long_side * min(size) / max(extent) * np.exp(
        speed(config.motion_zoom, rng) * (travelled - travelled.mean()))
    angle = np.pi * rng.uniform(-1, 1)
    distance = abs(speed(config.paste_speed, rng)) * (travelled - travelled.mean())
    sway = speed(config.paste_speed, rng) * np.sin(
        2 * np.pi * (travelled / rng.uniform(8, 24) + rng.random()))
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    centre = rng.uniform(0.1, 0.9, size=2) + np.outer(distance, along) + np.outer(sway, across)
    centre *= (width, height)
    degrees = rng.normal(0.0, 4.0) + speed(config.motion_rotation, rng) * travelled
    mirror = np.diag([-1.0 if rng.random() < 0.5 else 1.0, 1.0, 1.0])
    middle = np.eye(3)
    middle[:2, 2] = -extent[1] / 2, -extent[0] / 2
    maps = np.stack([rotation_about(0.0, 0.0, turn, factor)
                     for turn, factor in zip(degrees, scale)])
    maps[:, :2, 2] += centre
    return maps @ mirror @ middle
