# SPDX-License-Identifier: Apache-2.0
"""
A scene: what happens in a clip, before it is decided which part of it is looked at.

A camera may move over it, and cut-outs may move through it. Source pixels are those of a file.
Canvas pixels have the same size; synthetic camera motion lies between the two. Output pixels are
those of the network's input. Each frame is sampled once, from source to output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .affine import (
    clip_targets,
    map_targets,
    merge_targets,
    rotation_about,
    view_to_output,
    warp,
)
from .augment import AugmentConfig
from .cutouts import Cutout, paste
from ..annotations.records import Targets
from ..boxes import box_area, intersection

# ImageNet's mean colour, RGB: nothing, after the network's normalisation. (SSD's filler too.)
FILL = (124, 116, 104)
# A box that a cut-out covers by more than this becomes an ignore region.
_COVERED = 0.6
# Brightness of a cut-out, a factor of 1 +- this.
_GAIN = 0.3


@dataclass(frozen=True)
class Pasted:
    """A cut-out in motion; maps: float64 (T, 3, 3), its pixels to canvas pixels."""

    cutout: Cutout
    maps: np.ndarray
    gain: float


@dataclass(frozen=True)
class Scene:
    """
    T frames.

    images: uint8 (h, w, 3) RGB, the same array for a repeated frame. maps: float64 (T, 3, 3),
    source to canvas. targets: in canvas pixels, with pasted objects. size: (height, width) of the
    canvas.
    """

    images: tuple[np.ndarray, ...]
    maps: np.ndarray
    targets: tuple[Targets, ...]
    size: tuple[int, int]
    pasted: tuple[Pasted, ...] = ()


def make_scene(images: Sequence[np.ndarray], targets: Sequence[Targets]) -> Scene:
    """Make a scene without synthetic motion of frames of one size and their boxes."""
    maps = np.tile(np.eye(3), (len(images), 1, 1))
    return Scene(tuple(images), maps, tuple(targets), images[0].shape[:2])


def add_camera(scene: Scene, config: AugmentConfig, rng: np.random.Generator) -> Scene:
    """Return the scene as a moving camera sees it (`draw_camera`)."""
    maps = draw_camera(scene.size, len(scene.images), config, rng)
    targets = tuple(map_targets(target, matrix) for target, matrix in zip(scene.targets, maps))
    return replace(scene, maps=maps @ scene.maps, targets=targets)


def add_cutout(scene: Scene, cutout: Cutout, config: AugmentConfig,
               rng: np.random.Generator) -> Scene:
    """Return the scene with a moving cut-out in front of everything."""
    maps = draw_track(cutout.image.shape[:2], scene.size, len(scene.images), config, rng)
    gain = rng.uniform(1 - _GAIN, 1 + _GAIN)
    targets = tuple(_put_in_front(target, cutout, matrix)
                    for target, matrix in zip(scene.targets, maps))
    return replace(scene, targets=targets, pasted=(*scene.pasted, Pasted(cutout, maps, gain)))


def _put_in_front(targets: Targets, cutout: Cutout, matrix: np.ndarray) -> Targets:
    box = cutout.box(matrix)[None]
    covered = intersection(targets.boxes, box)[:, 0] * cutout.fill / box_area(targets.boxes)
    new = Targets(box, np.array([cutout.label]), np.ones(1, np.float32),
                  np.zeros((0, 4), np.float32))
    return merge_targets([targets.demote(covered > _COVERED), new])


def render(scene: Scene, matrix: np.ndarray, size: tuple[int, int],
           min_visible: float, min_side: float) -> tuple[np.ndarray, list[Targets]]:
    """
    Draw every frame.

    :param matrix: (3, 3), canvas to output, without rotation
    :param size: (height, width) of the output
    :param min_visible, min_side: which boxes stay targets, see `clip_targets`
    :returns: uint8 (T, height, width, 3) RGB and the targets in its pixels (`clip_targets`)
    """
    images = np.empty((len(scene.images), *size, 3), dtype=np.uint8)
    plain: np.ndarray | None = None
    for index, (image, motion) in enumerate(zip(scene.images, scene.maps)):
        # A repeated frame is copied, not drawn again.
        if (plain is None or image is not scene.images[index - 1]
                or not np.array_equal(motion, scene.maps[index - 1])):
            plain = warp(image, matrix @ motion, size, FILL)
        images[index] = plain
        for pasted in scene.pasted:
            paste(images[index], pasted.cutout, matrix @ pasted.maps[index], pasted.gain)
    targets = [clip_targets(map_targets(target, matrix), size, min_visible, min_side)
               for target in scene.targets]
    return images, targets


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
