# SPDX-License-Identifier: Apache-2.0
"""Average precision with all points of the curve (PASCAL VOC from 2010 on), as PASCAL or VID."""

from dataclasses import dataclass

import numpy as np

from .matching import frame_pairs, IOU_THRESHOLD, match
from .tables import DetectionTable, TruthTable
from ..boxes import pair_inside

#: Part of a detection that must lie in an ignore region; COCO's rule for crowds at AP50.
IGNORE_OVERLAP = 0.5


@dataclass(frozen=True)
class ApRules:
    """When a detection hits a box."""

    iou_threshold: float = IOU_THRESHOLD  #: Smallest IoU that counts, in (0, 1]
    #: Pixels by which a box may be enlarged and still be hit: a box of width w and height h asks
    #: for no more than an IoU of w h / ((w + tolerance) (h + tolerance)).
    tolerance: float = 0.0

    def thresholds(self, boxes: np.ndarray) -> np.ndarray:
        """Give the smallest IoU that counts for each of ``(M, 4)`` boxes, ``(M,)`` float64."""
        result = np.full(len(boxes), self.iou_threshold)
        if self.tolerance:
            sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
            np.minimum(result, np.prod(sides / (sides + self.tolerance), axis=1), out=result)
        return result


#: Recalls at which a curve keeps its precision; those of COCO's evaluation.
RECALLS = np.linspace(0, 1, 101)
PLAIN = ApRules()  #: IoU 0.5 for every box: what is mostly reported
#: The rules of ImageNet VID's development kit (ILSVRC 2015), which are kind to small boxes. The
#: kit adds 1 to every side, because its corners are the first and the last pixel of a box.
#: Coordinates here are edges, which have that pixel between them (`annotations/imagenet_vid.py`),
#: so nothing is left to add.
DEVKIT = ApRules(tolerance=10.0)


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision of every class."""

    per_class: np.ndarray  #: ``(C,)`` float64, in [0, 1]; NaN for a class without annotated boxes
    boxes: np.ndarray  #: ``(C,)`` int64: annotated boxes
    detections: np.ndarray  #: ``(C,)`` int64: detections that counted
    ignored: int  #: Detections that did not count

    @property
    def mean(self) -> float:
        """Mean over the classes that have boxes; NaN if none has."""
        present = self.boxes > 0
        return float(self.per_class[present].mean()) if present.any() else float('nan')


def curve_area(scores: np.ndarray, right: np.ndarray, positives: int,
               wrong: np.ndarray | None = None) -> float:
    """
    Give the area under the interpolated precision-recall curve.

    :param scores: ``(N,)`` of the detections of one class, in any order. Those of equal score
        enter the curve together, so their order does not matter.
    :param right: ``(N,)`` bool: whether each one hit a box
    :param positives: number of annotated boxes
    :param wrong: ``(N,)`` float: what each one weighs as a mistake, from 0 to 1, and 0 where it is
        right; None for 1 wherever it is not
    :returns: in [0, 1]; NaN if there are no annotated boxes
    """
    if not positives:
        return float('nan')
    if not len(scores):
        return 0.0
    hits, precision = precision_steps(scores, right, wrong)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / positives)


def precision_steps(scores: np.ndarray, right: np.ndarray, wrong: np.ndarray | None = None
                    ) -> tuple[np.ndarray, np.ndarray]:
    """
    Give the interpolated precision-recall curve at each score, best first.

    Parameters are those of `curve_area`.

    :returns: ``(K,)`` boxes hit down to that score, and ``(K,)`` float64, the best precision there
        or further down; K is the number of different scores
    """
    order = np.argsort(-scores, kind='stable')
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)[:len(order)])
    hits = np.cumsum(right[order])[last]
    mistakes = last + 1 - hits if wrong is None else np.cumsum(wrong[order])[last]
    total = hits + mistakes
    precision = np.divide(hits, total, out=np.zeros(len(last)), where=total > 0)
    # Interpolated: the best precision at this recall or a higher one.
    return hits, np.maximum.accumulate(precision[::-1])[::-1]


def average_precision(detections: DetectionTable, truth: TruthTable, rules: ApRules = PLAIN
                      ) -> AveragePrecision:
    """
    Score detections against annotated boxes, class by class.

    A second detection of the same box is wrong.  A detection that hits no box and lies in an
    ignore region does not count.

    :param detections: collected with a low score threshold; what was cut off is missing from the
        curve
    :param truth: each box of exactly one class
    :param rules: when a detection hits a box
    :raises ValueError: if a box has several classes, or none
    """
    labels = truth.labels
    matched, excused = judge(detections, truth, rules)
    boxes = np.bincount(labels, minlength=truth.accepted.shape[1])
    right = matched >= 0
    return by_class(detections, right, (~right & ~excused).astype(np.float64), boxes)


def judge(detections: DetectionTable, truth: TruthTable, rules: ApRules
          ) -> tuple[np.ndarray, np.ndarray]:
    """
    Match detections with boxes, and excuse what lies in ignore regions.

    :returns: ``(N,)`` int64, the row in `truth` or -1, and ``(N,)`` bool, whether a detection
        without a box is excused
    """
    matched = match(detections, truth, rules.thresholds(truth.boxes))
    excused = np.zeros(len(detections), bool)
    detection, region = frame_pairs(detections.frames, truth.ignore_frames)
    inside = pair_inside(detections.boxes[detection], truth.ignore_boxes[region])
    excused[detection[inside >= IGNORE_OVERLAP]] = True
    return matched, excused & (matched < 0)


def by_class(detections: DetectionTable, right: np.ndarray, wrong: np.ndarray,
             boxes: np.ndarray) -> AveragePrecision:
    """
    Give the average precision of every class.

    :param detections: n rows
    :param right, wrong: as for `curve_area`; a detection that is neither does not count
    :param boxes: ``(C,)`` int64: annotated boxes of each class
    """
    counts = right | (wrong > 0)
    # One sort instead of one pass over all rows for every class.
    order = np.argsort(detections.labels, kind='stable')
    order = order[counts[order]]
    bounds = np.searchsorted(detections.labels[order], np.arange(len(boxes) + 1))
    per_class = np.full(len(boxes), np.nan)
    for label, positives in enumerate(boxes):
        rows = order[bounds[label]:bounds[label + 1]]
        per_class[label] = curve_area(detections.scores[rows], right[rows], int(positives),
                                      wrong[rows])
    return AveragePrecision(per_class, boxes, np.diff(bounds), int((~counts).sum()))
