# SPDX-License-Identifier: Apache-2.0
"""
Affine maps of pictures, boxes and targets.

A map is a float64 (3, 3) matrix on column vectors (x, y, 1). Coordinates are continuous: pixel
`i` covers [i, i + 1), so a box that covers a whole picture is (0, 0, width, height). OpenCV counts
from pixel centres instead; only `warp` has to convert.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from ..annotations.records import Targets
from ..boxes import box_area, clip_boxes

# Below this scale bilinear sampling would skip source pixels, so the picture is shrunk first.
_ALIASING_SCALE = 0.6


def scale_and_shift(scale_x: float, scale_y: float, shift_x: float, shift_y: float) -> np.ndarray:
    """Return the map x' = scale_x * x + shift_x, y' = scale_y * y + shift_y, shape (3, 3)."""
    return np.array([[scale_x, 0.0, shift_x], [0.0, scale_y, shift_y], [0.0, 0.0, 1.0]])


def rotation_about(x: float, y: float, degrees: float, scale: float = 1.0) -> np.ndarray:
    """Return the map that turns by `degrees` and scales about the point (x, y), shape (3, 3)."""
    cosine = scale * np.cos(np.deg2rad(degrees))
    sine = scale * np.sin(np.deg2rad(degrees))
    return np.array([
        [cosine, -sine, x - cosine * x + sine * y],
        [sine, cosine, y - sine * x - cosine * y],
        [0.0, 0.0, 1.0]])


def view_to_output(view: np.ndarray, size: tuple[int, int], flip: bool = False) -> np.ndarray:
    """
    Return the map from a rectangle to a whole picture, shape (3, 3).

    :param view: the rectangle, xyxy (4,), in source coordinates
    :param size: (height, width) of the picture
    :param flip: mirror left and right
    """
    x0, y0, x1, y1 = (float(value) for value in view)
    height, width = size
    scale_x, scale_y = width / (x1 - x0), height / (y1 - y0)
    if flip:
        return scale_and_shift(-scale_x, scale_y, scale_x * x1, -scale_y * y0)
    return scale_and_shift(scale_x, scale_y, -scale_x * x0, -scale_y * y0)


def map_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """
    Map boxes, xyxy (N, 4); return float32 (N, 4).

    A map without rotation is exact. Under rotation the result is the box of the ellipse inscribed
    in the old box, because objects rarely fill the corners. The box of the four turned corners
    would grow by 7 % at 4 degrees.
    """
    boxes = boxes.astype(np.float64)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    linear = matrix[:2, :2]
    centre = centre @ linear.T + matrix[:2, 2]
    half = np.sqrt((half ** 2) @ (linear ** 2).T)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def map_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map points, (N, 2); return float64 (N, 2)."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int],
         fill: tuple[int, ...]) -> np.ndarray:
    """
    Draw a picture through a map, bilinearly, shrinking by area first where needed.

    :param image: uint8 (h, w, C)
    :param matrix: from coordinates of `image` to coordinates of the result
    :param size: (height, width) of the result
    :param fill: value of each channel where the result lies outside of `image`
    :returns: uint8 (height, width, C), newly made
    """
    image, matrix = _shrunk(image, matrix)
    centred = matrix[:2].copy()
    centred[:, 2] += matrix[:2, :2].sum(axis=1) / 2 - 0.5
    return cv2.warpAffine(image, centred, (size[1], size[0]), flags=cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_CONSTANT, borderValue=fill)


def _shrunk(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale_x, scale_y = np.hypot(matrix[0, :2], matrix[1, :2])
    if scale_x >= _ALIASING_SCALE and scale_y >= _ALIASING_SCALE:
        return image, matrix
    height, width = image.shape[:2]
    small_width = max(1, round(width * min(1.0, scale_x)))
    small_height = max(1, round(height * min(1.0, scale_y)))
    small = cv2.resize(image, (small_width, small_height), interpolation=cv2.INTER_AREA)
    return small, matrix @ scale_and_shift(width / small_width, height / small_height, 0.0, 0.0)


def map_targets(targets: Targets, matrix: np.ndarray) -> Targets:
    """Map every box and region (see `map_boxes`)."""
    return Targets(map_boxes(targets.boxes, matrix), targets.labels, targets.scores,
                   map_boxes(targets.ignore, matrix), targets.tracks)


def clip_targets(targets: Targets, size: tuple[int, int], min_visible: float,
                 min_side: float) -> Targets:
    """
    Clip boxes and regions to a picture of `size` (height, width).

    Boxes outside the picture are dropped. If less than `min_visible` (0 to 1) of a box's area is
    left, or it is less than `min_side` pixels wide or high, it becomes an ignore region.
    """
    clipped = clip_boxes(targets.boxes, size)
    area = box_area(clipped)
    present = area > 0.0
    sides = np.minimum(clipped[:, 2] - clipped[:, 0], clipped[:, 3] - clipped[:, 1])
    good = present & (area >= min_visible * box_area(targets.boxes)) & (sides >= min_side)
    ignore = np.concatenate([clip_boxes(targets.ignore, size), clipped[present & ~good]])
    return Targets(clipped[good], targets.labels[good], targets.scores[good],
                   ignore[box_area(ignore) > 0.0], targets.tracks[good])


def shift_targets(targets: Targets, x: float, y: float) -> Targets:
    """Move everything by (x, y) pixels."""
    shift = np.array([x, y, x, y], dtype=np.float32)
    return Targets(targets.boxes + shift, targets.labels, targets.scores, targets.ignore + shift,
                   targets.tracks)


def merge_targets(parts: Iterable[Targets]) -> Targets:
    """Return one `Targets` that holds everything in `parts`, in their order."""
    parts = list(parts)
    return Targets(*(np.concatenate([getattr(part, name) for part in parts])
                     for name in ('boxes', 'labels', 'scores', 'ignore', 'tracks')))
