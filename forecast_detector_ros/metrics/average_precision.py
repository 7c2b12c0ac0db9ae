# SPDX-License-Identifier: Apache-2.0
"""
Average precision with all points of the curve, as in PASCAL VOC from 2010 on and ImageNet VID.

On VID it is also split by motion IoU: the mean IoU of an object's box with its boxes in nearby
frames (FGFA, Zhu et al. 2017, section 5.1). The rules are those of FGFA's published evaluation
(`imagenet_vid_eval_motion.py`): boxes outside a group are ignored, not absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .tables import DetectionTable, frame_pairs, IOU_THRESHOLD, match, TruthTable
from ..boxes import pair_inside, pair_iou

#: Part of a detection that must be in an ignore region; COCO's rule for crowds at AP50.
IGNORE_OVERLAP = 0.5


@dataclass(frozen=True)
class ApRules:
    """The rules by which a detection hits a box."""

    iou_threshold: float = IOU_THRESHOLD  #: Smallest IoU that counts, in (0, 1]
    #: Pixels by which a hit may be larger than its box. The threshold of a box of width w and
    #: height h is at most w h / ((w + tolerance) (h + tolerance)).
    tolerance: float = 0.0

    def thresholds(self, boxes: np.ndarray) -> np.ndarray:
        """Return the smallest IoU that counts for each of ``(M, 4)`` boxes, ``(M,)`` float64."""
        result = np.full(len(boxes), self.iou_threshold)
        if self.tolerance:
            sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
            np.minimum(result, np.prod(sides / (sides + self.tolerance), axis=1), out=result)
        return result


#: Recalls at which a curve keeps its precision; those of COCO's evaluation.
RECALLS = np.linspace(0, 1, 101)
PLAIN = ApRules()  #: IoU 0.5 for every box: the most common rule
#: The rules of ImageNet VID's development kit (ILSVRC 2015), which are easier for small boxes. The
#: kit adds 1 to every side, because its corners are the first and the last pixel of a box. Here
#: coordinates are edges, which include that pixel (`annotations/imagenet_vid.py`), so nothing is
#: added.
DEVKIT = ApRules(tolerance=10.0)


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision of every class."""

    per_class: np.ndarray  #: ``(C,)`` float64, in [0, 1]; NaN for a class without annotated boxes
    boxes: np.ndarray  #: ``(C,)`` int64: annotated boxes
    detections: np.ndarray  #: ``(C,)`` int64: detections that count
    ignored: int  #: Detections that do not count

    @property
    def mean(self) -> float:
        """Mean over the classes with boxes; NaN if none has boxes."""
        present = self.boxes > 0
        return float(self.per_class[present].mean()) if present.any() else float('nan')


def curve_area(scores: np.ndarray, right: np.ndarray, positives: int,
               wrong: np.ndarray | None = None) -> float:
    """
    Return the area under the interpolated precision-recall curve.

    :param scores: ``(N,)`` scores of the detections of one class, in any order. Detections of
        equal score are one point of the curve, so their order does not matter.
    :param right: ``(N,)`` bool: whether the detection hits a box
    :param positives: number of annotated boxes
    :param wrong: ``(N,)`` float, 0 to 1: weight of the detection as an error, 0 if it is right;
        None for 1 if it is not right
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
    Return the interpolated precision-recall curve at each score, best first.

    Parameters are those of `curve_area`.

    :returns: ``(K,)`` number of hits down to that score, and ``(K,)`` float64, the best precision
        at this or a lower score; K is the number of different scores
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

    A second detection of the same box is wrong. A detection that hits no box and is in an ignore
    region does not count.

    :param detections: must have a low score threshold, because detections below it are missing
        from the curve
    :param truth: each box of exactly one class
    :param rules: rules of a hit
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
    Match detections with boxes and ignore regions.

    :returns: ``(N,)`` int64, the row in `truth` or -1, and ``(N,)`` bool, whether a detection
        without a box is in an ignore region
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
    Return the average precision of every class.

    :param detections: N rows
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


#: Default score thresholds of `operating_points`.
SCORE_THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)


@dataclass(frozen=True)
class OperatingPoint:
    """Recall and precision of all classes together at a score threshold."""

    score: float  #: The threshold; detections need a score above it
    recall: float  #: Part of the boxes that are found, in [0, 1]; NaN without boxes
    precision: float  #: Part of the detections that are right, in [0, 1]; NaN without detections
    detections: int  #: Detections that count

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision, in [0, 1]."""
        total = self.recall + self.precision
        return 2 * self.recall * self.precision / total if total else 0.0


def operating_points(detections: DetectionTable, truth: TruthTable,
                     scores: Sequence[float] = SCORE_THRESHOLDS,
                     rules: ApRules = PLAIN) -> list[OperatingPoint]:
    """
    Return recall and precision over all boxes at each of the score thresholds.

    :param detections: with scores from the lowest threshold on
    :param truth: boxes may accept several classes; ignore regions as for `average_precision`
    """
    matched, excused = judge(detections, truth, rules)
    right, counts = detections.scores[matched >= 0], detections.scores[~excused]
    points = []
    for score in scores:
        hits, shown = int((right > score).sum()), int((counts > score).sum())
        points.append(OperatingPoint(score, hits / len(truth) if len(truth) else float('nan'),
                                     hits / shown if shown else float('nan'), shown))
    return points


#: Smallest and largest motion IoU of each group; both are included, as in FGFA's evaluation.
GROUPS = {'slow': (0.9, 1.0), 'medium': (0.7, 0.9), 'fast': (0.0, 0.7)}


@dataclass(frozen=True)
class VidAp:
    """Average precision on video."""

    whole: AveragePrecision  #: Of all boxes
    #: Of each of the `GROUPS`; empty if the motion is not known.
    groups: dict[str, AveragePrecision]
    fractions: dict[str, float]  #: Fraction of the boxes that belong to each group, in [0, 1]


def in_group(motion_iou: np.ndarray, group: str) -> np.ndarray:
    """Return whether each of ``(M,)`` motion IoUs is in a group, bool ``(M,)``; False for NaN."""
    low, high = GROUPS[group]
    return (motion_iou >= low) & (motion_iou <= high)


def group_fractions(motion_iou: np.ndarray) -> dict[str, dict[str, float]]:
    """
    Count the boxes of each of the `GROUPS` among ``(M,)`` motion IoUs.

    :returns: by group: `boxes`, and their `fraction` in [0, 1], NaN without boxes. A box on a
        limit is in both groups, and one of unknown motion in none, so the sum need not be 1.
    """
    counts = {name: int(in_group(motion_iou, name).sum()) for name in GROUPS}
    return {name: {'boxes': count, 'fraction': count / len(motion_iou) if len(motion_iou)
                   else float('nan')} for name, count in counts.items()}


def vid_average_precision(detections: DetectionTable, truth: TruthTable,
                          rules: ApRules = DEVKIT, motion_iou: np.ndarray | None = None
                          ) -> VidAp:
    """
    Score detections against annotated boxes, all of them and by motion.

    In a group, a detection of a box outside the group does not count. A detection without a hit is
    judged by the box of any class that it overlaps most. It is wrong if that box is in the group,
    and does not count otherwise. If it overlaps boxes inside and outside equally, or none, its
    weight is the part of its frame's boxes that are outside (sic). In a frame without boxes the
    weight is the part of all boxes in the group.

    :param detections: without a limit of their number per frame
    :param truth: each box of exactly one class
    :param rules: rules of a hit
    :param motion_iou: ``(M,)`` float64, in [0, 1], NaN if unknown; see the function `motion_iou`
    :raises ValueError: if a box does not have exactly one class, or `motion_iou` has not one value
        per box
    """
    labels, classes = truth.labels, truth.accepted.shape[1]
    matched, excused = judge(detections, truth, rules)
    right = matched >= 0
    whole = by_class(detections, right, (~right & ~excused).astype(np.float64),
                     np.bincount(labels, minlength=classes))
    groups: dict[str, AveragePrecision] = {}
    fractions: dict[str, float] = {}
    if motion_iou is None:
        return VidAp(whole, groups, fractions)
    if motion_iou.shape != (len(truth),):
        raise ValueError(f'motion_iou has shape {motion_iou.shape}, must be ({len(truth)},)')
    open_rows = np.flatnonzero(~right & ~excused)
    detection, box = frame_pairs(detections.frames[open_rows], truth.frames)
    iou = pair_iou(detections.boxes[open_rows[detection]], truth.boxes[box])
    for name in GROUPS:
        member = in_group(motion_iou, name)
        fractions[name] = float(member.mean()) if len(member) else float('nan')
        hit = right.copy()
        hit[right] = member[matched[right]]
        wrong = np.zeros(len(detections))
        wrong[open_rows] = _mistakes(len(open_rows), detection, iou, member[box], fractions[name])
        groups[name] = by_class(detections, hit, wrong,
                                np.bincount(labels[member], minlength=classes))
    return VidAp(whole, groups, fractions)


def _mistakes(count: int, detection: np.ndarray, iou: np.ndarray, member: np.ndarray,
              fraction: float) -> np.ndarray:
    """Return the weights of `count` detections without a box, from their pairs with boxes."""
    inside, outside = np.full(count, -1.0), np.full(count, -1.0)
    np.maximum.at(inside, detection[member], iou[member])
    np.maximum.at(outside, detection[~member], iou[~member])
    boxes = np.bincount(detection, minlength=count)
    others = np.bincount(detection[~member], minlength=count)
    tie = np.divide(others, boxes, out=np.full(count, fraction), where=boxes > 0)
    return np.where(inside > outside, 1.0, np.where(inside < outside, 0.0, tie))


NEIGHBOURS = 10  #: Frames before and after that are compared (FGFA, section 5.1)


def motion_iou(truth: TruthTable, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """
    Compute the motion IoU of every box of one video.

    :param truth: boxes with their tracks, of one video, frames numbered as they follow each other
    :param neighbours: number of frames before and after with which a box is compared, if its
        object is there
    :returns: ``(M,)`` float64, in [0, 1]; 0 for an object that is in none of the other frames, NaN
        if the track is unknown
    :raises ValueError: if a track has two boxes in one frame
    """
    known = np.flatnonzero(truth.tracks >= 0)
    result = np.full(len(truth), np.nan)
    if not known.size:
        return result
    frames, boxes = truth.frames[known], truth.boxes[known]
    _, track = np.unique(truth.tracks[known], return_inverse=True)
    # Keys of different tracks differ by more than any offset, so they are never mixed up.
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
