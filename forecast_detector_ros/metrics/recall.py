# SPDX-License-Identifier: Apache-2.0
"""Recall: the share of annotated boxes that are detected."""

import numpy as np

from .matching import IOU_THRESHOLD, match
from .tables import DetectionTable, TruthTable


def found_boxes(detections: DetectionTable, truth: TruthTable,
                iou_threshold: float = IOU_THRESHOLD) -> np.ndarray:
    """
    Tell which boxes are detected, one-to-one and in a class that they accept.

    Parameters
    ----------
    detections:
        All that are shown: scores are not compared with any threshold here.
    truth:
        Annotated boxes; ignore regions play no part.
    iou_threshold:
        Smallest IoU that counts, in (0, 1].

    Returns
    -------
    numpy.ndarray
        ``(M,)`` bool.

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
