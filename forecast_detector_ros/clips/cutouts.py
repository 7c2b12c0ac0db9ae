# SPDX-License-Identifier: Apache-2.0
"""Cut-outs: pictures of single objects with an alpha channel, to paste onto clips."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import logging
from pathlib import Path

import cv2
import numpy as np

from .affine import map_points, warp
from ..annotations.findings import DataError

_log = logging.getLogger(__name__)

# Pixels at least this opaque, of 255, belong to the object.
_OPAQUE = 128


@dataclass(frozen=True)
class Cutout:
    """
    One object.

    label: 0-based. image: uint8 (h, w, 4) RGBA, colours multiplied by alpha. outline: float64 (P,
    2), convex hull of the opaque pixels, in pixels of `image`. fill: opaque part of its box, 0 to
    1.
    """

    label: int
    image: np.ndarray
    outline: np.ndarray
    fill: float

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


def load_cutouts(root: str | Path, classes: Sequence[str]) -> list[Cutout]:
    """
    Read `root`/<class>/*.png, in the order of their names.

    Folders that are no class are left out, and the log names them.

    :raises DataError: no such folder, or a file that is no picture, has no alpha or is empty
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f'{root}: no such folder of cut-outs')
    index = {name: number for number, name in enumerate(classes)}
    cutouts, others = [], []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name not in index:
            others.append(folder.name)
            continue
        for path in sorted(folder.glob('*.png')):
            cutouts.append(_load(path, index[folder.name]))
    if others:
        _log.warning('%s: left out, not among the classes: %s', root, ', '.join(others))
    return cutouts


def _load(path: Path, label: int) -> Cutout:
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror}') from None
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
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
    :param gain: brightness of the cut-out, a factor
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
