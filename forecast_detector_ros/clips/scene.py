# SPDX-License-Identifier: Apache-2.0
"""
A scene: the frames and motion of a clip, before a view of it is drawn.

A camera may move over it. Cut-outs may move through it: pictures of single objects with an alpha
channel. Source pixels are those of a file. Canvas pixels have the same size; synthetic camera
motion maps source to canvas. Output pixels are those of the network's input. Each frame is sampled
once, from source to output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import logging
from pathlib import Path

import cv2
import numpy as np

from .affine import (
    clip_targets,
    map_points,
    map_targets,
    merge_targets,
    rotation_about,
    view_to_output,
    warp,
)
from .augment import AugmentConfig, FILL
from ..annotations.findings import DataError, Findings, Kind, Strict
from ..annotations.records import Targets
from ..boxes import box_area, intersection

_log = logging.getLogger(__name__)

# A box becomes an ignore region if a cut-out covers more than this part of it.
_COVERED = 0.6
# Brightness of a cut-out, a factor of 1 +- this.
_GAIN = 0.3
# Pixels at least this opaque, of 255, belong to the object.
_OPAQUE = 128


@dataclass(frozen=True)
class Cutout:
    """The picture of one object."""

    label: int  #: 0-based
    image: np.ndarray  #: uint8 (h, w, 4) RGBA, colours multiplied by alpha
    outline: np.ndarray  #: float64 (P, 2), convex hull of the opaque pixels, in pixels of `image`
    fill: float  #: Opaque part of its box, 0 to 1

    def box(self, matrix: np.ndarray) -> np.ndarray:
        """Return the box, float32 (4,) xyxy, around the object when drawn through a map."""
        points = map_points(self.outline, matrix)
        return np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float32)


def make_cutout(image: np.ndarray, label: int) -> Cutout | None:
    """Make a cut-out of a picture, uint8 (h, w, 4) RGBA; None if nothing in it is opaque."""
    rows, columns = np.nonzero(image[:, :, 3] >= _OPAQUE)
    if not len(rows):
        return None
    corners = np.concatenate([np.stack([columns + dx, rows + dy], axis=1)
                              for dx in (0, 1) for dy in (0, 1)])
    outline = cv2.convexHull(corners.astype(np.int32)).reshape(-1, 2).astype(np.float64)
    area = float(np.prod(outline.max(axis=0) - outline.min(axis=0)))
    multiplied = image.copy()
    alpha = image[:, :, 3:].astype(np.float32) / 255
    multiplied[:, :, :3] = np.round(image[:, :, :3] * alpha)
    return Cutout(label, multiplied, outline, len(rows) / area)


def load_cutouts(root: str | Path, classes: Sequence[str],
                 findings: Findings | None = None) -> list[Cutout]:
    """
    Read `root`/<class>/*.png, in the order of their names.

    Folders that are no class are left out and named in log and findings.

    :raises DataError: there is no such folder. A file that is no picture, has no alpha or is
        empty goes to `findings`, which may raise.
    """
    root, findings = Path(root), findings or Strict()
    if not root.is_dir():
        raise DataError(f'{root}: no such folder of cut-outs')
    index = {name: number for number, name in enumerate(classes)}
    cutouts, others = [], []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name not in index:
            others.append(folder.name)
            continue
        for path in sorted(folder.glob('*.png')):
            try:
                cutouts.append(_load(path, index[folder.name]))
            except DataError as error:
                findings.fault(error)
    if others:
        text = f'{root}: left out, not among the classes: {", ".join(others)}'
        _log.warning(text)
        findings.note(Kind.NOT_TRAINED, text)
    return cutouts


def _load(path: Path, label: int) -> Cutout:
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror}') from None
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error:  # A size that OpenCV refuses.
        image = None
    if image is None:
        raise DataError(f'{path}: not a picture that OpenCV can decode')
    if image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        raise DataError(f'{path}: a cut-out must have 8-bit colour and an alpha channel (RGBA)')
    cutout = make_cutout(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA), label)
    if cutout is None:
        raise DataError(f'{path}: nothing in it is opaque')
    return cutout


def paste(picture: np.ndarray, cutout: Cutout, matrix: np.ndarray, gain: float = 1.0) -> None:
    """
    Draw a cut-out into a picture, in place.

    :param picture: uint8 (H, W, 3) RGB
    :param matrix: from the cut-out's pixels to those of `picture`
    :param gain: factor of the cut-out's brightness
    """
    height, width = cutout.image.shape[:2]
    corners = map_points(np.array([[0, 0], [width, 0], [0, height], [width, height]]), matrix)
    limit = picture.shape[1], picture.shape[0]
    x0, y0 = np.clip(np.floor(corners.min(axis=0)) - 1, 0, limit).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, limit).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    shifted = matrix.copy()
    shifted[:2, 2] -= x0, y0
    layer = warp(cutout.image, shifted, (int(y1 - y0), int(x1 - x0)), (0, 0, 0, 0))
    colour = layer[:, :, :3].astype(np.float32)
    alpha = layer[:, :, 3:].astype(np.float32)
    if gain != 1.0:
        colour = np.minimum(colour * np.float32(gain), alpha)
    region = picture[y0:y1, x0:x1]
    region[:] = np.round(colour + region * (1 - alpha / np.float32(255)))


@dataclass(frozen=True)
class Pasted:
    """A moving cut-out."""

    cutout: Cutout
    maps: np.ndarray  #: float64 (T, 3, 3), from its pixels to canvas pixels
    gain: float  #: Factor of its brightness


@dataclass(frozen=True)
class Scene:
    """T frames."""

    images: tuple[np.ndarray, ...]  #: uint8 (h, w, 3) RGB, the same array for a repeated frame
    maps: np.ndarray  #: float64 (T, 3, 3), source to canvas
    targets: tuple[Targets, ...]  #: In canvas pixels, with pasted objects
    size: tuple[int, int]  #: (height, width) of the canvas
    pasted: tuple[Pasted, ...] = ()


def make_scene(images: Sequence[np.ndarray], targets: Sequence[Targets]) -> Scene:
    """Make a scene without synthetic motion of frames of one size and their boxes."""
    maps = np.tile(np.eye(3), (len(images), 1, 1))
    return Scene(tuple(images), maps, tuple(targets), images[0].shape[:2])


def add_camera(scene: Scene, config: AugmentConfig, rng: np.random.Generator) -> Scene:
    """Return the scene with synthetic camera motion (`draw_camera`)."""
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
    :param min_visible, min_side: limits of `clip_targets`
    :returns: uint8 (T, height, width, 3) RGB, and the targets in its pixels
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


# A motion may begin faster or slower than its mean speed, by up to this part of that speed.
_EASE = 0.7
# Speed of motion is drawn as its maximum times u^2, u uniform: most motion in video is slow.
_SPEED_POWER = 2
# Furthest zoom at the ends of a camera motion.
_ZOOM_MAX = 1.6


def progress(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the progress of a motion of changing speed, float64 (frames,): 0 to frames - 1."""
    time = np.linspace(0.0, 1.0, frames)
    ease = rng.uniform(-_EASE, _EASE)
    return (time + ease * time * (1 - time)) * (frames - 1)


def speed(maximum: float, rng: np.random.Generator) -> float:
    """Draw a speed from -`maximum` to `maximum`, slow ones more often."""
    return float(maximum * rng.choice((-1, 1)) * rng.random() ** _SPEED_POWER)


def draw_camera(size: tuple[int, int], frames: int, config: AugmentConfig,
                rng: np.random.Generator) -> np.ndarray:
    """
    Draw a camera that pans, zooms and turns slightly, with its window in the picture.

    The corners of a turned window may be slightly outside.

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
    # The window's place between the borders: from 0, left or top, to 1, right or bottom.
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
    Draw the path of a cut-out over a canvas: straight, with a sway, growing and turning slightly.

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
