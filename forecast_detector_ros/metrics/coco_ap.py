# SPDX-License-Identifier: Apache-2.0
"""COCO's average precision, by the library hotcoco; this file only hands our tables over."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .tables import DetectionTable, TruthTable
from ..errors import MissingLibraryError

#: COCO's figures of precision: the IoU threshold (None for the mean over 0.5, 0.55, ... 0.95) and
#: the place of the range of areas: all, below 32 x 32 pixels, up to 96 x 96, above.
METRICS = {'ap': (None, 0), 'ap50': (0.5, 0), 'ap75': (0.75, 0), 'small': (None, 1),
           'medium': (None, 2), 'large': (None, 3)}
ALL_DETECTIONS = -1  #: Place of the largest number of detections a frame that count; COCO's is 100


@dataclass(frozen=True)
class CocoAp:
    """COCO's average precision."""

    #: Each of the `METRICS`, in [0, 1]; NaN where there is no box of that size.
    figures: dict[str, float]
    per_class: np.ndarray  #: ``(C,)`` float64: `ap` of each class; NaN for a class without boxes


def coco_average_precision(detections: DetectionTable, truth: TruthTable) -> CocoAp:
    """
    Score detections as COCO does.

    An ignore region is handed over as a crowd of every class that has detections.

    :param detections: collected with a low score threshold; the best 100 of a class in a frame
        count
    :param truth: each box of exactly one class
    :raises MissingLibraryError: if hotcoco is missing
    :raises ValueError: if a box has several classes, or none
    """
    hotcoco = library()
    labels, classes = truth.labels, truth.accepted.shape[1]
    found = np.unique(detections.labels)
    crowd = np.repeat(np.arange(len(truth.ignore_frames)), len(found))
    frames = np.unique(np.concatenate(
        [truth.frames, truth.ignore_frames, detections.frames]))
    boxes = hotcoco.COCO.from_arrays(
        # The library wants a size, which boxes do not need.
        [{'id': int(frame), 'width': 1, 'height': 1} for frame in frames],
        [{'id': label, 'name': str(label)} for label in range(classes)],
        np.concatenate([truth.frames, truth.ignore_frames[crowd]]),
        np.concatenate([labels, np.tile(found, len(truth.ignore_frames))]),
        _xywh(np.concatenate([truth.boxes, truth.ignore_boxes[crowd]])),
        iscrowd=np.repeat([0, 1], [len(truth), len(crowd)]))
    evaluator = hotcoco.COCOeval(boxes, boxes.load_res(np.column_stack(
        [detections.frames, _xywh(detections.boxes), detections.scores, detections.labels])),
        'bbox')
    evaluator.evaluate()
    evaluator.accumulate()
    # By IoU threshold, recall, class, area and number of detections; -1 where there is no box.
    precision = np.asarray(evaluator.eval['precision'])[..., ALL_DETECTIONS]
    thresholds = np.asarray(evaluator.params.iou_thrs)

    def figure(iou_threshold: float | None, area: int) -> float:
        chosen = (np.ones(len(thresholds), bool) if iou_threshold is None
                  else np.isclose(thresholds, iou_threshold))
        return _mean(precision[chosen, :, :, area])

    return CocoAp({name: figure(*where) for name, where in METRICS.items()},
                  np.array([_mean(precision[:, :, label, 0]) for label in range(classes)]))


def library() -> Any:
    """Import hotcoco; raises MissingLibraryError where it is missing."""
    try:
        import hotcoco
    except ImportError:
        raise MissingLibraryError("COCO's average precision needs hotcoco: pip install hotcoco"
                                  ) from None
    return hotcoco


def _xywh(boxes: np.ndarray) -> np.ndarray:
    boxes = boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float('nan')
