# SPDX-License-Identifier: Apache-2.0
"""
Weighted box fusion: one set of boxes from those of several detectors.

Solovyev, Wang, Gabruseva, "Weighted boxes fusion", Image and Vision Computing 107 (2021), with two
changes: a detector gives at most one box to an object, and an object's score is the mean over
those detectors alone that know its class. The package of its authors, ensemble-boxes, knows
neither, needs numba and pandas, and has had no release since 2022.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .teacher import TeacherBoxes
from ..boxes import box_iou

FUSED_IOU = 0.55  #: Overlap above which boxes of two detectors show one object (section 4, THR)


def fuse_boxes(found: Sequence[TeacherBoxes], knows: np.ndarray, weights: Sequence[float],
               min_score: float, iou: float = FUSED_IOU) -> TeacherBoxes:
    """
    Fuse the boxes that several detectors found in a picture.

    Boxes come in the order of weight times score. Each joins that object of its class which it
    overlaps most, if by more than `iou`, or else is an object of its own; a second box of one
    detector for one object is dropped. An object's box is the mean of its boxes, by weight times
    score.

    :param found: what each of M detectors found
    :param knows: ``(M, C)`` bool: whether it knows the class
    :param weights: how much each counts, above 0
    :param min_score: objects whose mean score, by weight over the detectors that know the class,
        is below it are dropped
    :param iou: in (0, 1)
    """
    weight = np.asarray(weights, np.float64)
    boxes = np.concatenate([item.boxes for item in found]).astype(np.float64)
    labels = np.concatenate([item.labels for item in found])
    member = np.concatenate([np.full(len(item.labels), m) for m, item in enumerate(found)])
    mass = np.concatenate([item.scores * w for item, w in zip(found, weight)])
    objects, owner = _objects(boxes, labels, member, mass, iou)
    scores = np.bincount(owner[owner >= 0], mass[owner >= 0], len(objects))
    kinds = labels[objects] if objects else labels[:0]
    scores = scores / (knows[:, kinds] * weight[:, None]).sum(0)
    fused = np.array([np.average(boxes[owner == n], axis=0, weights=mass[owner == n])
                      for n in range(len(objects))], np.float32).reshape(-1, 4)
    order = np.argsort(-scores, kind='stable')
    order = order[scores[order] >= min_score]
    return TeacherBoxes(fused[order], kinds[order].astype(np.int64),
                        scores[order].astype(np.float32))


def _objects(boxes: np.ndarray, labels: np.ndarray, member: np.ndarray, mass: np.ndarray,
             iou: float) -> tuple[list[int], np.ndarray]:
    """Return the first box of each object, and each box's object; -1 for those dropped."""
    objects: list[int] = []
    owner = np.full(len(boxes), -1)
    sums, masses = np.zeros_like(boxes), np.zeros(len(boxes))
    for box in np.argsort(-mass, kind='stable'):
        same = [n for n, first in enumerate(objects) if labels[first] == labels[box]]
        overlap = box_iou(boxes[[box]], sums[same] / masses[same, None])[0]
        best = same[overlap.argmax()] if len(same) and overlap.max() > iou else len(objects)
        if best == len(objects):
            objects.append(int(box))
        elif (member[owner == best] == member[box]).any():
            continue
        owner[box] = best
        sums[best] += boxes[box] * mass[box]
        masses[best] += mass[box]
    return objects, owner
