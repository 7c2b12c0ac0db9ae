# SPDX-License-Identifier: Apache-2.0
"""
How much an object moves: the mean IoU of its box with its own boxes nearby in time.

It is what ImageNet VID's results are split by (slow, medium, fast; FGFA, Zhu et al. 2017, section
5.1).
"""

import numpy as np

from .tables import TruthTable
from ..boxes import pair_iou

NEIGHBOURS = 10  #: Frames before and after that are compared (FGFA, section 5.1)


def motion_iou(truth: TruthTable, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """
    Compute the motion IoU of every box of one video.

    :param truth: boxes with their tracks, of one video, frames numbered as they follow each other
    :param neighbours: the box is compared with those of its object in so many frames before and
        after, as far as there are any
    :returns: ``(M,)`` float64, in [0, 1]; 0 for an object that is in none of the other frames, NaN
        where the track is not known
    :raises ValueError: if a track has two boxes in one frame
    """
    known = np.flatnonzero(truth.tracks >= 0)
    result = np.full(len(truth), np.nan)
    if not known.size:
        return result
    frames, boxes = truth.frames[known], truth.boxes[known]
    _, track = np.unique(truth.tracks[known], return_inverse=True)
    # The keys of neighbouring tracks are so far apart that no offset leads from one to another.
    key = track * (int(frames.max() - frames.min()) + neighbours + 1) + frames
    order = np.argsort(key)
    if np.any(np.diff(key[order]) == 0):
        raise ValueError('a track has two boxes in one frame')
    total, count = np.zeros(len(known)), np.zeros(len(known), np.int64)
    for offset in range(1, neighbours + 1):
        place = np.searchsorted(key, key + offset, sorter=order)
        later = order[np.minimum(place, len(order) - 1)]
        first = np.flatnonzero(key[later] == key + offset)
        second = later[first]
        iou = pair_iou(boxes[first], boxes[second])
        for end in (first, second):
            total[end] += iou
            count[end] += 1
    result[known] = np.divide(total, count, out=np.zeros(len(known)), where=count > 0)
    return result
