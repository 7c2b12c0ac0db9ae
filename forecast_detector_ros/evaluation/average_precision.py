# SPDX-License-Identifier: Apache-2.0
"""Average precision at IoU 0.5, all points (PASCAL VOC from 2010 on)."""

from dataclasses import dataclass

import numpy as np

from .matching import frame_pairs, IOU_THRESHOLD, match, pair_inside
from .tables import DetectionTable, TruthTable

IGNORE_OVERLAP = 0.5
"""Part of a detection that must lie in an ignore region; COCO's rule for crowds at AP50."""


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision of every class."""

    per_class: np.ndarray
    """``(C,)`` float64, in [0, 1]; NaN for a class without annotated boxes."""

    boxes: np.ndarray
    """``(C,)`` int64: annotated boxes."""

    detections: np.ndarray
    """``(C,)`` int64: detections that counted."""

    ignored: int
    """Detections in ignore regions, which did not count."""

    @property
    def mean(self) -> float:
        """Mean over the classes that have boxes; NaN if none has."""
        present = self.boxes > 0
        return float(self.per_class[present].mean()) if present.any() else float('nan')


def curve_area(scores: np.ndarray, right: np.ndarray, positives: int) -> float:
    """
    Give the area under the interpolated precision-recall curve.

    Parameters
    ----------
    scores:
        ``(N,)`` of the detections of one class, in any order.  Those of equal score enter the
        curve together, so their order does not matter.
    right:
        ``(N,)`` bool: whether each one hit a box.
    positives:
        Number of annotated boxes.

    Returns
    -------
    float
        In [0, 1]; NaN if there are no annotated boxes.

    """
    if not positives:
        return float('nan')
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind='stable')
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(right[order])[last]
    precision = hits / (last + 1)
    # Interpolated: the best precision at this recall or a higher one.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(hits, prepend=0) * precision) / positives)


def average_precision(detections: DetectionTable, truth: TruthTable,
                      iou_threshold: float = IOU_THRESHOLD) -> AveragePrecision:
    """
    Score detections against annotated boxes, class by class.

    A second detection of the same box is wrong.  A detection that hits no box and lies in an
    ignore region does not count.

    Parameters
    ----------
    detections:
        Collected with a low score threshold; what was cut off is missing from the curve.
    truth:
        Each box of exactly one class.
    iou_threshold:
        Smallest IoU that counts, in (0, 1].

    Raises
    ------
    ValueError
        If a box has several classes, or none.

    """
    labels = truth.labels
    classes = truth.accepted.shape[1]
    right = match(detections, truth, iou_threshold) >= 0
    counts = right | ~_in_ignore_region(detections, truth)
    per_class = np.full(classes, np.nan)
    boxes = np.bincount(labels, minlength=classes)
    # One sort instead of one pass over all rows for every class.
    order = np.argsort(detections.labels, kind='stable')
    order = order[counts[order]]
    bounds = np.searchsorted(detections.labels[order], np.arange(classes + 1))
    for label in range(classes):
        rows = order[bounds[label]:bounds[label + 1]]
        per_class[label] = curve_area(detections.scores[rows], right[rows], int(boxes[label]))
    return AveragePrecision(per_class, boxes, np.diff(bounds), int((~counts).sum()))


def _in_ignore_region(detections: DetectionTable, truth: TruthTable) -> np.ndarray:
    result = np.zeros(len(detections), bool)
    detection, region = frame_pairs(detections.frames, truth.ignore_frames)
    inside = pair_inside(detections.boxes[detection], truth.ignore_boxes[region])
    result[detection[inside >= IGNORE_OVERLAP]] = True
    return result
