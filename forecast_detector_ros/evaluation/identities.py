# SPDX-License-Identifier: Apache-2.0
"""How well a detector's numbers stay with the objects of annotated video."""

from collections.abc import Mapping, Sequence
import logging
from typing import Any

import numpy as np

from .runs import VideoRun
from .sequences import EvaluationError, Video
from ..annotations.records import UNKNOWN_TRACK
from ..detector.processing import Detections
from ..detector.stream import Tracks
from ..errors import MissingLibraryError
from ..layout import plain, table
from ..metrics.libraries import tracking_figures
from ..metrics.tables import DetectionTable, TruthTable
from ..report.run_record import Identities

log = logging.getLogger(__name__)

#: Figures of a result, and their columns.
HEADS = {'boxes': 'boxes', 'objects': 'objects', 'switches': 'switches', 'mota': 'MOTA',
         'idf1': 'IDF1', 'hota': 'HOTA', 'det_a': 'DetA', 'ass_a': 'AssA'}


def number_detections(shown: DetectionTable, read: np.ndarray) -> np.ndarray:
    """
    Give numbers to the detections of one sequence as a camera's stream does.

    :param shown: its detections, frame by frame
    :param read: ``(F,)`` bool: which frames were read
    :returns: ``(N,)`` int64
    """
    result, tracks = np.zeros(len(shown), np.int64), Tracks()
    for number, is_read in enumerate(read):
        rows = np.flatnonzero(shown.frames == number)
        found = Detections(shown.boxes[rows], shown.labels[rows], shown.scores[rows])
        result[rows], tracks = tracks.follow(found, bool(is_read))
    return result


def check_tracks(videos: Sequence[Video]) -> None:
    """Raise EvaluationError if no annotated box has a track."""
    if not any((item.truth.tracks != UNKNOWN_TRACK).any() for item in videos):
        raise EvaluationError('identities: no annotated box has a track_id, which tells the same '
                              'object in different frames')


def summarise_identities(videos: Sequence[Video], runs: Sequence[VideoRun]
                         ) -> dict[str, Any]:
    """
    Measure what the runs show under the settings' score threshold.

    :param videos, runs: what was looked at, and what came out, in the same order
    :returns: plain values: `tracking_figures` by sequence, and of all of them as `all`
    :raises EvaluationError: if no annotated box has a track
    :raises MissingLibraryError: if TrackEval is missing
    """
    check_tracks(videos)
    figures = tracking_figures([
        (run.shown, number_detections(run.shown, run.read), item.truth)
        for item, run in zip(videos, runs)])
    plainly = [{key: plain(value) if isinstance(value, float) else value
                for key, value in row.items()} for row in figures]
    return {'sequences': dict(zip((item.name for item in videos), plainly)), 'all': plainly[-1]}


def identity_records(sequences: Mapping[str, tuple[DetectionTable, np.ndarray, TruthTable]]
                     ) -> dict[str | None, Identities]:
    """
    Measure those sequences whose objects are known, for the record of a run.

    :param sequences: by name, as for `tracking_figures`
    :returns: by name, and under None all of them together; empty where nothing is known, or
        TrackEval is missing, which the log then says
    """
    known = {name: item for name, item in sequences.items()
             if (item[2].tracks != UNKNOWN_TRACK).any()}
    if not known:
        return {}
    try:
        figures = tracking_figures(list(known.values()))
    except MissingLibraryError as error:
        log.warning('the report is without identities: %s', error)
        return {}
    return {name: Identities(
        int(row['boxes']), int(row['objects']), int(row['switches']),
        *(plain(row[key]) for key in ('mota', 'idf1', 'hota', 'det_a', 'ass_a')))
            for name, row in zip([*known, None], figures)}


def identities_as_text(result: dict[str, Any]) -> str:
    """Lay out the result of `summarise_identities` as a table."""
    rows = [[name, *(row[key] for key in HEADS)]
            for name, row in [*result['sequences'].items(), ('all', result['all'])]]
    return table(('sequence', *HEADS.values()), rows, title='identities')
