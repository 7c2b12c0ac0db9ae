# SPDX-License-Identifier: Apache-2.0
"""
Figures that libraries compute from the tables of this package.

hotcoco computes COCO's average precision. TrackEval computes HOTA (Luiten et al., IJCV 2021,
arXiv:2009.07736), MOTA and identity switches (Bernardin and Stiefelhagen 2008), and IDF1 (Ristani
et al. 2016, arXiv:1609.01775). For MOTA and IDF1 a detection hits from an IoU of `IOU_THRESHOLD`
on, as in MOTChallenge.
"""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
import io
from typing import Any

import numpy as np

from .average_precision import IGNORE_OVERLAP
from .tables import DetectionTable, IOU_THRESHOLD, TruthTable
from ..annotations.records import UNKNOWN_TRACK
from ..boxes import box_area, box_iou, intersection
from ..errors import MissingLibraryError

#: COCO's figures of precision: the IoU threshold (None for the mean over 0.5, 0.55, ... 0.95), and
#: the index of the range of areas: all, below 32 x 32 pixels, up to 96 x 96, above.
METRICS = {'ap': (None, 0), 'ap50': (0.5, 0), 'ap75': (0.75, 0), 'small': (None, 1),
           'medium': (None, 2), 'large': (None, 3)}
ALL_DETECTIONS = -1  #: Index of the largest limit of detections per frame, which is 100


@dataclass(frozen=True)
class CocoAp:
    """COCO's average precision."""

    #: Each of the `METRICS`, in [0, 1]; NaN where there is no box of that size.
    figures: dict[str, float]
    per_class: np.ndarray  #: ``(C,)`` float64: `ap` of each class; NaN for a class without boxes


def coco_average_precision(detections: DetectionTable, truth: TruthTable) -> CocoAp:
    """
    Score detections as COCO does.

    An ignore region becomes a crowd of every class that has detections.

    :param detections: with a low score threshold; the best 100 of a class in a frame count
    :param truth: each box of exactly one class
    :raises MissingLibraryError: if hotcoco is missing
    :raises ValueError: if a box has several classes, or none
    """
    hotcoco = import_hotcoco()
    labels, classes = truth.labels, truth.accepted.shape[1]
    found = np.unique(detections.labels)
    crowd = np.repeat(np.arange(len(truth.ignore_frames)), len(found))
    frames = np.unique(np.concatenate(
        [truth.frames, truth.ignore_frames, detections.frames]))
    boxes = hotcoco.COCO.from_arrays(
        # The library requires a size, but does not use it for boxes.
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
    # Axes: IoU threshold, recall, class, area, number of detections; -1 where there is no box.
    precision = np.asarray(evaluator.eval['precision'])[..., ALL_DETECTIONS]
    thresholds = np.asarray(evaluator.params.iou_thrs)

    def figure(iou_threshold: float | None, area: int) -> float:
        chosen = (np.ones(len(thresholds), bool) if iou_threshold is None
                  else np.isclose(thresholds, iou_threshold))
        return _mean(precision[chosen, :, :, area])

    return CocoAp({name: figure(*where) for name, where in METRICS.items()},
                  np.array([_mean(precision[:, :, label, 0]) for label in range(classes)]))


def import_hotcoco() -> Any:
    """Import hotcoco; raises MissingLibraryError."""
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


def import_trackeval() -> Any:
    """Import TrackEval's metrics; raises MissingLibraryError."""
    try:
        # It prints failed imports for data sets that are not used here.
        with redirect_stdout(io.StringIO()):
            from trackeval import metrics
    except ImportError:
        raise MissingLibraryError('measuring identities needs TrackEval and SciPy: pip install '
                                  'scipy; pip install --no-deps trackeval') from None
    return metrics


def tracking_figures(sequences: Sequence[tuple[DetectionTable, np.ndarray, TruthTable]]
                     ) -> list[dict[str, float]]:
    """
    Measure every sequence, and all of them together.

    :param sequences: detections, their object numbers ``(N,)`` int64, and annotated boxes of each
        sequence. Boxes without a track are not used. A detection may only match a box that accepts
        its class.
    :returns: one entry per sequence, and a last one for all. `hota`, `det_a` and `ass_a` are means
        over IoU 0.05 to 0.95. They and `mota` and `idf1` are in [0, 1]; `mota` can be negative.
        `switches`, `objects` and `boxes` are counts.
    :raises MissingLibraryError: if TrackEval is missing
    """
    metrics = import_trackeval()
    quiet = {'PRINT_CONFIG': False, 'THRESHOLD': IOU_THRESHOLD}
    measures = (metrics.HOTA(), metrics.CLEAR(quiet), metrics.Identity(quiet))
    prepared = [_prepare(*sequence) for sequence in sequences]
    parts = [[measure.eval_sequence(data) for data in prepared] for measure in measures]
    wholes = [measure.combine_sequences(dict(zip(map(str, range(len(part))), part)))
              for measure, part in zip(measures, parts)]
    rows = [*zip(*parts), wholes]
    objects = [data['num_gt_ids'] for data in prepared]
    boxes = [data['num_gt_dets'] for data in prepared]
    return [{'hota': float(np.mean(hota['HOTA'])), 'det_a': float(np.mean(hota['DetA'])),
             'ass_a': float(np.mean(hota['AssA'])), 'mota': float(clear['MOTA']),
             'idf1': float(identity['IDF1']), 'switches': int(clear['IDSW']),
             'objects': number, 'boxes': there}
            for (hota, clear, identity), number, there in zip(
                rows, [*objects, sum(objects)], [*boxes, sum(boxes)])]


def _prepare(found: DetectionTable, numbers: np.ndarray, truth: TruthTable) -> dict[str, Any]:
    """Convert a sequence to TrackEval's form: frame by frame, identities from 0 on."""
    known = truth.select(truth.tracks != UNKNOWN_TRACK)
    untracked = truth.select(truth.tracks == UNKNOWN_TRACK)
    frames = 1 + max((int(table.max()) for table in (found.frames, known.frames) if len(table)),
                     default=0)
    tracks, objects = np.unique(known.tracks, return_inverse=True)
    gt_ids, tracker_ids, similarities, kept = [], [], [], np.zeros(len(found), bool)
    for frame in range(frames):
        boxes = np.flatnonzero(known.frames == frame)
        rows = np.flatnonzero(found.frames == frame)
        overlap = box_iou(known.boxes[boxes].astype(np.float64),
                          found.boxes[rows].astype(np.float64))
        overlap[~known.accepted[boxes][:, found.labels[rows]]] = 0.0
        counts = ~_excused(found.boxes[rows], overlap, np.concatenate((
            truth.ignore_boxes[truth.ignore_frames == frame],
            untracked.boxes[untracked.frames == frame])))
        kept[rows[counts]] = True
        gt_ids.append(objects[boxes])
        similarities.append(overlap[:, counts])
    places = np.zeros(len(found), np.int64)
    used, places[kept] = np.unique(numbers[kept], return_inverse=True)
    for frame in range(frames):
        tracker_ids.append(places[kept & (found.frames == frame)])
    return {'gt_ids': gt_ids, 'tracker_ids': tracker_ids, 'similarity_scores': similarities,
            'num_gt_ids': len(tracks), 'num_tracker_ids': len(used),
            'num_gt_dets': len(known), 'num_tracker_dets': int(kept.sum()),
            'num_timesteps': frames, 'seq': ''}


def _excused(boxes: np.ndarray, overlap: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Return which detections hit no box and are in an ignore region, bool ``(N,)``."""
    boxes = boxes.astype(np.float64)
    shared = intersection(boxes, regions.astype(np.float64))
    inside = shared >= IGNORE_OVERLAP * box_area(boxes)[:, None]
    hit = overlap >= IOU_THRESHOLD
    return np.any(inside, axis=1) & ~np.any(hit, axis=0)
