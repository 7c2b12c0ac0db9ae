# SPDX-License-Identifier: Apache-2.0
"""
Give boxes of one video the number of the object that they show.

A small tracker after the manner of the IoU tracker (Bochinski et al. 2017), for labels of a
teacher: it looks at overlap alone, so it fits footage in which an object overlaps with itself
from frame to frame.  Two objects of a class that cross may change their numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

#: Overlap from which on two boxes may show one object; SORT's (Bewley et al. 2016) limit.
MIN_IOU = 0.3
#: Frames that an object may be missed, because a teacher does not find it in every one.
PATIENCE = 5


@dataclass
class _Track:
    number: int
    label: int
    box: np.ndarray
    frame: int


def track_boxes(frames: Sequence[tuple[np.ndarray, np.ndarray]], first: int = 1,
                min_iou: float = MIN_IOU, patience: int = PATIENCE) -> list[np.ndarray]:
    """
    Give each object of a video a number of its own.

    In every frame, the boxes are joined to the last boxes of the tracks of their class, the pair
    with the largest IoU first, as long as it is at least `min_iou`.  A box that is left begins a
    new track; a track without a box for more than `patience` frames ends.

    :param frames: of each frame in their order: boxes ``(N, 4)`` xyxy, and labels ``(N,)``
    :param first: number of the first track, at least 1
    :param min_iou: in (0, 1]
    :param patience: frames without a box that a track survives
    :returns: of each frame: ``(N,)`` int64, the number of the track of each box
    """
    alive: list[_Track] = []
    result = []
    number = first
    for index, (boxes, labels) in enumerate(frames):
        alive = [track for track in alive if index - track.frame <= patience + 1]
        ids = np.zeros(len(boxes), np.int64)
        for at, track in _pairs(boxes, labels, alive, min_iou):
            ids[at] = track.number
            track.box, track.frame = boxes[at], index
        for new in np.flatnonzero(ids == 0):
            ids[new] = number
            alive.append(_Track(number, int(labels[new]), boxes[new], index))
            number += 1
        result.append(ids)
    return result


def _pairs(boxes: np.ndarray, labels: np.ndarray, tracks: list[_Track],
           min_iou: float) -> list[tuple[int, _Track]]:
    """Join boxes and tracks of the same class, best overlap first, each at most once."""
    if not len(boxes) or not tracks:
        return []
    overlap = box_iou(torch.from_numpy(np.asarray(boxes, np.float64)),
                      torch.from_numpy(np.stack([track.box for track in tracks])).double()).numpy()
    overlap[labels[:, None] != np.array([track.label for track in tracks])] = 0
    pairs: list[tuple[int, _Track]] = []
    while overlap.max() >= min_iou:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        pairs.append((int(row), tracks[column]))
        overlap[row] = overlap[:, column] = 0
    return pairs
