# SPDX-License-Identifier: Apache-2.0
"""The scheduler's target y_t (paper, section 3.4)."""

from torch import Tensor
from torchvision.ops import box_iou

from .losses import inner_fractions
from ..model.ssdlite import Boxes

RELIABLE_IOU = 0.7  #: "IOU over 0.7, for example" (section 3.4)


def is_reliable(detections: Boxes, boxes: Tensor, labels: Tensor, iou: float = RELIABLE_IOU,
                ignore: Tensor | None = None) -> bool:
    """
    Tell whether the detections on a forecast find every box of the next frame.

    :param detections: detections from the forecast, with the scores that count as confident
    :param boxes, labels: ground truth of the next frame: ``(K, 4)`` xyxy, ``(K,)``
    :param iou: smallest overlap that matches
    :param ignore: ``(R, 4)`` xyxy, regions of which nothing is known; None for none
    :returns: True if every box is matched one-to-one by a detection of its class; without any box,
        True if there is no detection but such of which more than half lies in a region
    """
    if not len(boxes):
        if ignore is None or not len(ignore) or not len(detections.boxes):
            return not len(detections.boxes)
        return bool((inner_fractions(detections.boxes, ignore).amax(1) > 0.5).all())
    if len(detections.boxes) < len(boxes):
        return False
    overlap = box_iou(boxes, detections.boxes)
    overlap = overlap.masked_fill(labels[:, None] != detections.labels[None, :], 0.0)
    return _perfect_matching(overlap >= iou)


def is_consistent(forecast: Boxes, read: Boxes, confident: float, iou: float = RELIABLE_IOU
                  ) -> bool:
    """
    Tell whether detections on a forecast say what detections on the read frame say.

    :param forecast, read: detections on the forecast of a frame and on the frame's own features,
        down to a lower score than `confident`, so that a score just above it may meet one just
        below it
    :param confident: score from which on a box has to be found by the other side
    :param iou: smallest overlap that matches
    :returns: True if every confident box of either side is matched one-to-one, in its class, by a
        box of the other
    """
    return _found(read, forecast, confident, iou) and _found(forecast, read, confident, iou)


def _found(wanted: Boxes, among: Boxes, confident: float, iou: float) -> bool:
    picked = wanted.scores >= confident
    boxes = wanted.boxes[picked]
    return not len(boxes) or is_reliable(among, boxes, wanted.labels[picked], iou)


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
