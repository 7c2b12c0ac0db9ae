# SPDX-License-Identifier: Apache-2.0
"""
A scene: what happens in a clip, before it is decided which part of it is looked at.

Three coordinate systems: source pixels (a file's), canvas pixels (of the same size as the source;
synthetic camera motion lies between the two), and output pixels (the network's input). Each
frame is sampled once, from source to output.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .affine import warp
from .augment import AugmentConfig
from .cutouts import Cutout, paste
from .motion import draw_camera, draw_track
from .targets import clip_targets, map_targets, merge_targets, Targets
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

    images: uint8 (h, w, 3) RGB, the same array where a frame is repeated; maps: float64
    (T, 3, 3), source to canvas; targets: in canvas pixels, pasted objects included; size:
    (height, width) of the canvas.
    """

    images: tuple[np.ndarray, ...]
    maps: np.ndarray
    targets: tuple[Targets, ...]
    size: tuple[int, int]
    pasted: tuple[Pasted, ...] = ()


def make_scene(images: list[np.ndarray], targets: list[Targets]) -> Scene:
    """Make a scene without synthetic motion of frames of one size and their boxes."""
    maps = np.tile(np.eye(3), (len(images), 1, 1))
    return Scene(tuple(images), maps, tuple(targets), images[0].shape[:2])


def add_camera(scene: Scene, config: AugmentConfig, rng: np.random.Generator) -> Scene:
    """Return the scene as a moving camera sees it (`motion.draw_camera`)."""
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
