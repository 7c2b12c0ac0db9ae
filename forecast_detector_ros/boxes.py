# SPDX-License-Identifier: Apache-2.0
"""
Boxes as NumPy arrays: areas, intersections, IoU, clipping and pairs.

A box is ``(x0, y0, x1, y1)`` in pixels; its area is in square pixels. `pair_iou` and
`pair_inside` compare two arrays ``(P, 4)`` row by row, in float64.
"""

import numpy as np


def box_area(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (N,) of boxes (N, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def clip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Clip boxes, float32 (N, 4), to a picture of `size` (height, width)."""
    return np.clip(boxes, 0.0, np.array([*size[::-1], *size[::-1]], np.float32))


def intersection(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the areas (N, M) in which boxes (N, 4) and boxes (M, 4) overlap."""
    return _overlap(first[:, None], second[None])


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU (N, M) of boxes (N, 4) and boxes (M, 4); 0 where both are empty."""
    common = intersection(first, second)
    return _ratio(common, box_area(first)[:, None] + box_area(second) - common)


def pair_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU of each pair, float64 (P,); 0 where both are empty."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    common = _overlap(first, second)
    return _ratio(common, box_area(first) + box_area(second) - common)


def best_pairs(overlap: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """
    Pair rows with columns of ``(N, M)`` overlaps, largest overlap first, each at most once.

    :param least: smallest overlap of a pair
    :returns: the rows and the columns of the pairs, ``(P,)`` int64 each
    """
    rows, columns = np.nonzero(overlap >= least)
    order = np.argsort(-overlap[rows, columns], kind='stable')
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist()):
        if row not in chosen and column not in taken:
            chosen[row] = column
            taken.add(column)
    return np.array(list(chosen), np.int64), np.array(list(chosen.values()), np.int64)


def pair_inside(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the fraction of each first box inside its second box, float64 (P,); 0 if empty."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    return _ratio(_overlap(first, second), box_area(first))


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    sides = np.maximum(high - low, 0.0)
    return sides[..., 0] * sides[..., 1]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
