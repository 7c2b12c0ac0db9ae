# SPDX-License-Identifier: Apache-2.0
"""What a frame contains: boxes to find, and regions in which nothing is held against anybody."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .affine import map_boxes
from ..boxes import box_area, clip_boxes


@dataclass(frozen=True)
class Targets:
    """
    The boxes of one frame.

    boxes: float32 (N, 4) xyxy, pixels; labels: int64 (N,), 0-based; scores: float32 (N,), 0 to 1;
    ignore: float32 (K, 4) xyxy, pixels.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    ignore: np.ndarray

    def demote(self, chosen: np.ndarray) -> Targets:
        """Turn the boxes where `chosen`, bool (N,), is true into ignore regions."""
        if not chosen.any():
            return self
        kept = ~chosen
        return Targets(self.boxes[kept], self.labels[kept], self.scores[kept],
                       np.concatenate([self.ignore, self.boxes[chosen]]))


def map_targets(targets: Targets, matrix: np.ndarray) -> Targets:
    """Carry every box and region through an affine map (see `affine.map_boxes`)."""
    return Targets(map_boxes(targets.boxes, matrix), targets.labels, targets.scores,
                   map_boxes(targets.ignore, matrix))


def clip_targets(targets: Targets, size: tuple[int, int], min_visible: float,
                 min_side: float) -> Targets:
    """
    Cut everything to a picture of `size` (height, width).

    Boxes of which nothing is left vanish. Boxes of which less than `min_visible` (0 to 1) of the
    area is left, or that are less than `min_side` pixels wide or high, become ignore regions.
    """
    clipped = clip_boxes(targets.boxes, size)
    area = box_area(clipped)
    present = area > 0.0
    sides = np.minimum(clipped[:, 2] - clipped[:, 0], clipped[:, 3] - clipped[:, 1])
    good = present & (area >= min_visible * box_area(targets.boxes)) & (sides >= min_side)
    ignore = np.concatenate([clip_boxes(targets.ignore, size), clipped[present & ~good]])
    return Targets(clipped[good], targets.labels[good], targets.scores[good],
                   ignore[box_area(ignore) > 0.0])


def shift_targets(targets: Targets, x: float, y: float) -> Targets:
    """Move everything by (x, y) pixels."""
    shift = np.array([x, y, x, y], dtype=np.float32)
    return Targets(targets.boxes + shift, targets.labels, targets.scores, targets.ignore + shift)


def merge_targets(parts: Iterable[Targets]) -> Targets:
    """Return one `Targets` that holds everything in `parts`, in their order."""
    parts = list(parts)
    return Targets(*(np.concatenate([getattr(part, name) for part in parts])
                     for name in ('boxes', 'labels', 'scores', 'ignore')))
