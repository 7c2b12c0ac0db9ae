# SPDX-License-Identifier: Apache-2.0
"""
How well numbers stay with their objects: HOTA, MOTA, IDF1, by the library TrackEval.

HOTA: Luiten et al., IJCV 2021, arXiv:2009.07736; MOTA and identity switches: Bernardin and
Stiefelhagen 2008; IDF1: Ristani et al. 2016, arXiv:1609.01775.
"""

from collections.abc import Sequence
from contextlib import redirect_stdout
import io
from typing import Any

import numpy as np

from .tables import DetectionTable, TruthTable
from ..annotations.records import UNKNOWN_TRACK
from ..boxes import box_iou, intersection
from ..errors import MissingLibraryError

#: From this IoU on a detection is the object, for MOTA and IDF1 (MOTChallenge's threshold).
MATCH_IOU = 0.5
#: Of a detection that hits nothing: with so much of it in an ignore region it does not count.
IGNORED_PART = 0.5


def library() -> Any:
    """Import TrackEval's metrics; raises MissingLibraryError where it is missing."""
    try:
        # It prints what it could not import of data sets that nobody asked for.
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

    :param sequences: of each: the detections, their numbers ``(N,)`` int64, and the annotated
        boxes. Boxes without a track play no part; a detection may only match a box that accepts
        its class.
    :returns: one entry a sequence, and a last one for all: `hota`, `det_a`, `ass_a` (means over
        IoU 0.05 to 0.95), `mota`, `idf1`, in [0, 1] (MOTA also below); `switches`, `objects`,
        `boxes`, numbers
    :raises MissingLibraryError: if TrackEval is missing
    """
    metrics = library()
    quiet = {'PRINT_CONFIG': False, 'THRESHOLD': MATCH_IOU}
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
    """Lay a sequence out as TrackEval wants it: frame by frame, identities from 0 on."""
    known = truth.select(truth.tracks != UNKNOWN_TRACK)
    frames = 1 + max((int(table.max()) for table in (found.frames, known.frames) if len(table)),
                     default=0)
    _, objects = np.unique(known.tracks, return_inverse=True)
    gt_ids, tracker_ids, similarities, kept = [], [], [], np.zeros(len(found), bool)
    for frame in range(frames):
        boxes = np.flatnonzero(known.frames == frame)
        rows = np.flatnonzero(found.frames == frame)
        overlap = box_iou(known.boxes[boxes].astype(np.float64),
                          found.boxes[rows].astype(np.float64))
        overlap[~known.accepted[boxes][:, found.labels[rows]]] = 0.0
        counts = ~_excused(found.boxes[rows], overlap,
                           truth.ignore_boxes[truth.ignore_frames == frame])
        kept[rows[counts]] = True
        gt_ids.append(objects[boxes])
        similarities.append(overlap[:, counts])
    places = np.zeros(len(found), np.int64)
    used, places[kept] = np.unique(numbers[kept], return_inverse=True)
    for frame in range(frames):
        tracker_ids.append(places[kept & (found.frames == frame)])
    return {'gt_ids': gt_ids, 'tracker_ids': tracker_ids, 'similarity_scores': similarities,
            'num_gt_ids': len(np.unique(objects)), 'num_tracker_ids': len(used),
            'num_gt_dets': len(known), 'num_tracker_dets': int(kept.sum()),
            'num_timesteps': frames, 'seq': ''}


def _excused(boxes: np.ndarray, overlap: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Tell which detections hit nothing and lie in an ignore region."""
    if not len(regions):
        return np.zeros(len(boxes), bool)
    boxes = boxes.astype(np.float64)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    inside = intersection(boxes, regions.astype(np.float64)) >= IGNORED_PART * area[:, None]
    hit = (overlap >= MATCH_IOU).any(0) if len(overlap) else np.zeros(len(boxes), bool)
    return inside.any(1) & ~hit
