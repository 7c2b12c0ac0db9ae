# SPDX-License-Identifier: Apache-2.0
"""One-to-one matching of detections to annotated boxes, and the recall that it gives."""
import numpy as np

from .tables import DetectionTable, TruthTable
from ..boxes import pair_iou

#: Overlap from which on a detection hits a box: PASCAL VOC's, and the 50 of AP50.
IOU_THRESHOLD = 0.5


def match(detections: DetectionTable, truth: TruthTable,
          iou_threshold: float | np.ndarray = IOU_THRESHOLD) -> np.ndarray:
    """
    Match greedily, best score first.

    A detection takes the box with the largest IoU among those of its frame that accept its
    class, reach the threshold and are not taken yet.  Ties are broken by coordinates, so that
    the order of the rows does not matter.

    :param detections, truth: of any frames, in any order
    :param iou_threshold: smallest IoU that counts, in (0, 1]; or ``(M,)``, one for every box in
        `truth`
    :returns: ``(N,)`` int64: for each detection its row in `truth`, or -1
    """
    result = np.full(len(detections), -1, np.int64)
    detection, box = frame_pairs(detections.frames, truth.frames)
    keep = truth.accepted[box, detections.labels[detection]]
    detection, box = detection[keep], box[keep]
    iou = pair_iou(detections.boxes[detection], truth.boxes[box])
    keep = iou >= np.broadcast_to(iou_threshold, len(truth))[box]
    detection, box, iou = detection[keep], box[keep], iou[keep]

    # Only detections that reach a box need a rank; they are a small part of many.
    near = np.unique(detection)
    rank = np.full(len(detections), len(detections), np.int64)
    rank[near[np.lexsort((detections.labels[near], *detections.boxes[near].T,
                          -detections.scores[near]))]] = np.arange(len(near))
    box_rank = _positions(np.lexsort((*truth.accepted.T, *truth.boxes.T)))
    # Each round settles every detection that is the best one left at all its boxes; the outcome
    # is that of going through the detections one by one.
    while detection.size:
        first = np.full(len(truth), len(detections), np.int64)
        np.minimum.at(first, box, rank[detection])
        ready = np.ones(len(detections), bool)
        ready[detection[first[box] != rank[detection]]] = False
        settled = np.flatnonzero(ready[detection])
        order = settled[np.lexsort((box_rank[box[settled]], -iou[settled], detection[settled]))]
        _, best = np.unique(detection[order], return_index=True)
        best = order[best]
        result[detection[best]] = box[best]
        taken = np.zeros(len(truth), bool)
        taken[box[best]] = True
        keep = ~ready[detection] & ~taken[box]
        detection, box, iou = detection[keep], box[keep], iou[keep]
    return result


def frame_pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Pair every row of one table with every row of the same frame of another.

    :param first, second: ``(N,)`` and ``(M,)`` int64 frame numbers
    :returns: two ``(P,)`` int64 arrays of row numbers
    """
    order = np.argsort(second, kind='stable')
    start = np.searchsorted(second, first, 'left', sorter=order)
    count = np.searchsorted(second, first, 'right', sorter=order) - start
    left = np.repeat(np.arange(len(first)), count)
    within = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
    return left, order[np.repeat(start, count) + within]


def _positions(order: np.ndarray) -> np.ndarray:
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    return positions


def found_boxes(detections: DetectionTable, truth: TruthTable,
                iou_threshold: float = IOU_THRESHOLD) -> np.ndarray:
    """
    Tell which boxes are detected, one-to-one and in a class that they accept.

    :param detections: all that are shown: scores are not compared with any threshold here
    :param truth: annotated boxes; ignore regions play no part
    :param iou_threshold: smallest IoU that counts, in (0, 1]
    :returns: ``(M,)`` bool
    """
    result = np.zeros(len(truth), bool)
    matched = match(detections, truth, iou_threshold)
    result[matched[matched >= 0]] = True
    return result


def recall(detections: DetectionTable, truth: TruthTable,
           iou_threshold: float = IOU_THRESHOLD) -> float:
    """Give the share of boxes that `found_boxes` finds, in [0, 1]; NaN if there are none."""
    found = found_boxes(detections, truth, iou_threshold)
    return float(found.mean()) if found.size else float('nan')
