# SPDX-License-Identifier: Apache-2.0
"""The scheduler's target y_t (paper, section 3.4)."""

from torch import Tensor
from torchvision.ops import box_iou

from ..model.ssdlite import Boxes

RELIABLE_IOU = 0.7
""""IOU over 0.7, for example" (section 3.4)."""


def is_reliable(detections: Boxes, boxes: Tensor, labels: Tensor, iou: float = RELIABLE_IOU
                ) -> bool:
    """
    Tell whether the detections on a forecast find every box of the next frame.

    Parameters
    ----------
    detections:
        Detections from the forecast, with the scores that count as confident.
    boxes, labels:
        Ground truth of the next frame: ``(K, 4)`` xyxy, ``(K,)``.
    iou:
        Smallest overlap that matches.

    Returns
    -------
    bool
        True if every box is matched one-to-one by a detection of its class; without any box,
        True if there is no detection.

    """
    if not len(boxes):
        return not len(detections.boxes)
    if len(detections.boxes) < len(boxes):
        return False
    overlap = box_iou(boxes, detections.boxes)
    overlap = overlap.masked_fill(labels[:, None] != detections.labels[None, :], 0.0)
    return _perfect_matching(overlap >= iou)


def _perfect_matching(allowed: Tensor) -> bool:
    """Tell whether every row can get a column of its own (augmenting paths)."""
    owner = [-1] * allowed.shape[1]
    columns = [row.nonzero().flatten().tolist() for row in allowed]

    def place(row: int, seen: set[int]) -> bool:
        for column in columns[row]:
            if column in seen:
                continue
            seen.add(column)
            if owner[column] < 0 or place(owner[column], seen):
                owner[column] = row
                return True
        return False

    return all(place(row, set()) for row in range(len(columns)))
