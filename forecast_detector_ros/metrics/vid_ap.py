# SPDX-License-Identifier: Apache-2.0
"""
Average precision as it is reported on ImageNet VID: of all objects, and by their motion.

An object's motion is the mean IoU of its box with its own boxes nearby in time (FGFA, Zhu et al.
2017, section 5.1). The rules are those of the evaluation published with FGFA
(`imagenet_vid_eval_motion.py`): boxes outside a group are ignored, not absent.
"""

from dataclasses import dataclass

import numpy as np

from .average_precision import ApRules, AveragePrecision, by_class, DEVKIT, judge
from .matching import frame_pairs
from .tables import DetectionTable, TruthTable
from ..boxes import pair_iou

#: Smallest and largest motion IoU of each group; both belong to it, as in FGFA's evaluation.
GROUPS = {'slow': (0.9, 1.0), 'medium': (0.7, 0.9), 'fast': (0.0, 0.7)}


@dataclass(frozen=True)
class VidAp:
    """Average precision on video."""

    whole: AveragePrecision  #: Of all boxes
    #: Of each of the `GROUPS`; empty if the motion is not known.
    groups: dict[str, AveragePrecision]
    shares: dict[str, float]  #: Share of the boxes that belong to each group, in [0, 1]


def in_group(motion_iou: np.ndarray, group: str) -> np.ndarray:
    """Tell which of ``(M,)`` motion IoUs belong to a group, bool ``(M,)``; NaN to none."""
    low, high = GROUPS[group]
    return (motion_iou >= low) & (motion_iou <= high)


def group_shares(motion_iou: np.ndarray) -> dict[str, dict[str, float]]:
    """
    Count the boxes of each of the `GROUPS` among ``(M,)`` motion IoUs.

    :returns: by group: `boxes`, and their `share` in [0, 1], NaN of no boxes. A box on a bound is
        in both groups, and one of unknown motion in none, so shares need not add up to 1.
    """
    counts = {name: int(in_group(motion_iou, name).sum()) for name in GROUPS}
    return {name: {'boxes': count, 'share': count / len(motion_iou) if len(motion_iou)
                   else float('nan')} for name, count in counts.items()}


def vid_average_precision(detections: DetectionTable, truth: TruthTable,
                          rules: ApRules = DEVKIT, motion_iou: np.ndarray | None = None
                          ) -> VidAp:
    """
    Score detections against annotated boxes, all of them and by motion.

    Within a group, a detection of a box outside the group does not count.  One that hits nothing
    is wrong if the box that it overlaps most, of whatever class, belongs to the group, and does
    not count if that box is outside.  If it overlaps both alike, or none, it weighs as much as
    the share of boxes of its frame that are outside (sic), and in a frame without boxes as much
    as the share of all boxes that belong to the group.

    :param detections: all there are: nothing is cut off, whatever their number in a frame
    :param truth: each box of exactly one class
    :param rules: when a detection hits a box
    :param motion_iou: ``(M,)`` float64, in [0, 1], NaN where it is not known; see `motion_iou.py`
    :raises ValueError: if a box has several classes, or none; or if `motion_iou` has not one value
        a box
    """
    labels, classes = truth.labels, truth.accepted.shape[1]
    matched, excused = judge(detections, truth, rules)
    right = matched >= 0
    whole = by_class(detections, right, (~right & ~excused).astype(np.float64),
                     np.bincount(labels, minlength=classes))
    groups: dict[str, AveragePrecision] = {}
    shares: dict[str, float] = {}
    if motion_iou is None:
        return VidAp(whole, groups, shares)
    if motion_iou.shape != (len(truth),):
        raise ValueError(f'motion_iou has shape {motion_iou.shape}, must be ({len(truth)},)')
    open_rows = np.flatnonzero(~right & ~excused)
    detection, box = frame_pairs(detections.frames[open_rows], truth.frames)
    iou = pair_iou(detections.boxes[open_rows[detection]], truth.boxes[box])
    for name in GROUPS:
        member = in_group(motion_iou, name)
        shares[name] = float(member.mean()) if len(member) else float('nan')
        hit = right.copy()
        hit[right] = member[matched[right]]
        wrong = np.zeros(len(detections))
        wrong[open_rows] = _mistakes(len(open_rows), detection, iou, member[box], shares[name])
        groups[name] = by_class(detections, hit, wrong,
                                np.bincount(labels[member], minlength=classes))
    return VidAp(whole, groups, shares)


def _mistakes(count: int, detection: np.ndarray, iou: np.ndarray, member: np.ndarray,
              share: float) -> np.ndarray:
    """Give the weight of `count` detections without a box, from their pairs with boxes."""
    inside, outside = np.full(count, -1.0), np.full(count, -1.0)
    np.maximum.at(inside, detection[member], iou[member])
    np.maximum.at(outside, detection[~member], iou[~member])
    boxes = np.bincount(detection, minlength=count)
    others = np.bincount(detection[~member], minlength=count)
    tie = np.divide(others, boxes, out=np.full(count, share), where=boxes > 0)
    return np.where(inside > outside, 1.0, np.where(inside < outside, 0.0, tie))


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
