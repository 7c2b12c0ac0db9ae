# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a detector on many sequences: boxes by protocols, reads, and identities."""
from collections.abc import Mapping, Sequence
import logging
from typing import Any

import numpy as np

from .runs import LATENCIES, milliseconds, VideoRun
from .sequences import EvaluationError, Video
from ..annotations.records import UNKNOWN_TRACK
from ..detector.processing import Detections
from ..detector.settings import DetectorSettings
from ..detector.stream import Tracks
from ..errors import MissingLibraryError
from ..layout import mean, plain, table
from ..metrics.average_precision import (
    AveragePrecision,
    DEVKIT,
    operating_points,
    PLAIN,
    SCORE_THRESHOLDS,
    vid_average_precision,
)
from ..metrics.libraries import coco_average_precision, import_hotcoco, METRICS, tracking_figures
from ..metrics.tables import DetectionTable, join_sequences, recall, TruthTable
from ..report.run_record import Identities

#: Name of each protocol's figures in a result.
KEYS = {'plain': 'ap50', 'devkit': 'ap50_devkit', 'coco': 'coco'}

RULES = {'plain': PLAIN, 'devkit': DEVKIT}  #: Protocols of this package; a library has the other

HEADS = {'plain': 'AP50', 'devkit': 'AP50 devkit', 'coco': 'COCO AP'}


def check_protocols(protocols: Sequence[str]) -> None:
    """Raise MissingLibraryError if a protocol needs a library that is missing."""
    if 'coco' in protocols:
        import_hotcoco()


def measure_accuracy(videos: Sequence[Video], collected: Sequence[DetectionTable],
                     labels: Sequence[str], protocols: Sequence[str] = ('plain',),
                     motion: Sequence[np.ndarray] | None = None) -> dict[str, Any]:
    """
    Score the detections of all sequences together.

    :param videos: sequences with boxes for average precision
    :param collected: the detections of each, from a low score on
    :param labels: the detector's classes
    :param protocols: keys of `KEYS`
    :param motion: motion IoU of the boxes of each sequence, ``(M,)`` float64; None for no result
        by motion
    :returns: plain values by the `KEYS` of the protocols; None for values that cannot be measured
    :raises MissingLibraryError: if a protocol needs a library that is missing
    """
    found, truth = _join(videos, collected)
    motion_iou = None if motion is None else np.concatenate(motion)
    result: dict[str, Any] = {}
    for protocol in protocols:
        if protocol in RULES:
            vid = vid_average_precision(found, truth, RULES[protocol], motion_iou)
            result[KEYS[protocol]] = _figures(vid.whole, labels)
            if vid.groups:
                result[KEYS[protocol]]['motion'] = {
                    name: {'fraction': plain(vid.fractions[name]), **_figures(ap, labels)}
                    for name, ap in vid.groups.items()}
        else:
            coco = coco_average_precision(found, truth)
            result[KEYS[protocol]] = {
                'mean': plain(coco.figures['ap']),
                'figures': {name: plain(value) for name, value in coco.figures.items()},
                'classes': {name: {'ap': plain(value)}
                            for name, value in zip(labels, coco.per_class)
                            if not np.isnan(value)}}
    return result


def _join(videos: Sequence[Video], collected: Sequence[DetectionTable]
          ) -> tuple[DetectionTable, TruthTable]:
    truths = [item.labelled for item in videos if item.labelled is not None]
    assert len(truths) == len(videos)
    return join_sequences([len(item.frames) for item in videos], collected, truths)


def measure_thresholds(videos: Sequence[Video], collected: Sequence[DetectionTable],
                       score_threshold: float) -> list[dict[str, Any]]:
    """
    Return recall, precision, F1 and boxes per frame over all sequences, by score threshold.

    :param videos, collected: as for `measure_accuracy`
    :param score_threshold: an additional threshold, in [0, 1]
    :returns: plain values, the lowest threshold first
    """
    frames = sum(len(item.frames) for item in videos)
    scores = sorted({*SCORE_THRESHOLDS, score_threshold})
    return [{'score_threshold': point.score, 'recall': plain(point.recall),
             'precision': plain(point.precision), 'f1': plain(point.f1),
             'boxes_a_frame': point.detections / frames}
            for point in operating_points(*_join(videos, collected), scores)]


def _figures(ap: AveragePrecision, labels: Sequence[str]) -> dict[str, Any]:
    return {'mean': plain(ap.mean), 'ignored_detections': ap.ignored, 'classes': {
        name: {'ap50': plain(ap.per_class[i]), 'boxes': int(ap.boxes[i]),
               'detections': int(ap.detections[i])}
        for i, name in enumerate(labels) if ap.boxes[i] or ap.detections[i]}}


def accuracy_as_text(result: dict[str, Any]) -> str:
    """Format the result of `measure_accuracy` as tables; an empty text without protocols."""
    parts = []
    own = [name for name in RULES if result.get(KEYS[name])]
    used = [name for name in KEYS if result.get(KEYS[name])]
    if own:
        counted = result[KEYS[own[0]]]['classes']
        rows = [[name, item['boxes'], item['detections'], *_row(result, used, name)]
                for name, item in counted.items()]
        rows.append(['mean over classes with boxes', '', '', *_means(result, used)])
        parts.append(table(('class', 'boxes', 'detections', *(HEADS[key] for key in used)), rows))
        groups = result[KEYS[own[0]]].get('motion', {})
        rows = [[name, sum(item['boxes'] for item in group['classes'].values()), group['fraction'],
                 *(result[KEYS[rules]]['motion'][name]['mean'] for rules in own)]
                for name, group in groups.items()]
        if rows:
            heads = ('motion', 'boxes', 'fraction', *(HEADS[key] for key in own))
            parts.append(table(heads, rows))
    elif used:
        rows = [[name, *_row(result, used, name)] for name in result[KEYS[used[0]]]['classes']]
        rows.append(['mean over classes with boxes', *_means(result, used)])
        parts.append(table(('class', *(HEADS[key] for key in used)), rows))
    if result.get(KEYS['coco']):
        parts.append(table(('COCO', *METRICS),
                           [['AP', *result[KEYS['coco']]['figures'].values()]]))
    return '\n\n'.join(parts)


def _row(result: dict[str, Any], protocols: Sequence[str], name: str) -> list[float | None]:
    found = (result[KEYS[protocol]]['classes'].get(name, {}) for protocol in protocols)
    return [item.get('ap50', item.get('ap')) for item in found]


def _means(result: dict[str, Any], protocols: Sequence[str]) -> list[float | None]:
    return [result[KEYS[protocol]]['mean'] for protocol in protocols]


PERCENTILES = (50, 95)  #: Percentiles of the latency that are reported


def summarise_runs(videos: Sequence[Video], runs: Sequence[VideoRun], labels: Sequence[str],
                   protocols: Sequence[str] = ('plain',),
                   motion: Sequence[np.ndarray] | None = None,
                   score_threshold: float = DetectorSettings.score_threshold
                   ) -> dict[str, Any]:
    """
    Compute recall, precision, average precision, read ratio and latency.

    :param videos, runs: sequences and their runs, in the same order; at least one
    :param labels: the detector's classes
    :param protocols, motion: for average precision; see `measure_accuracy`
    :param score_threshold: threshold of the shown boxes
    :returns: plain values; None for values that could not be measured
    :raises MissingLibraryError: if a protocol needs a library that is missing
    """
    sequences = {}
    for item, run in zip(videos, runs):
        sequences[item.name] = {
            'frames': len(item.frames), 'boxes': len(item.truth),
            'recall': plain(recall(run.shown, item.truth)),
            'read_ratio': plain(run.read.mean())}
    read = np.concatenate([run.read for run in runs])
    inference = np.concatenate([run.inference_ms for run in runs])
    total = inference + np.concatenate([run.preprocess_ms for run in runs])
    result: dict[str, Any] = {
        'frames': len(read),
        'sequences': sequences,
        'mean_recall': mean([item['recall'] for item in sequences.values()]),
        'read_ratio': plain(read.mean()),
        'mean_read_ratio': mean([item['read_ratio'] for item in sequences.values()]),
        'latency_ms': {'read': _latency(total[read]), 'forecast': _latency(total[~read])},
        LATENCIES: {'read': milliseconds(total[read]), 'forecast': milliseconds(total[~read])},
        'thresholds': None, **dict.fromkeys(KEYS.values())}
    if all(item.labelled is not None for item in videos):
        collected = [run.collected for run in runs if run.collected is not None]
        result['thresholds'] = measure_thresholds(videos, collected, score_threshold)
        result.update(measure_accuracy(videos, collected, labels, protocols, motion))
    return result


def as_text(result: dict[str, Any]) -> str:
    """Format the result of `summarise_runs` as tables."""
    rows = [[name, item['frames'], item['boxes'], item['recall'], item['read_ratio']]
            for name, item in result['sequences'].items()]
    rows.append(['mean over sequences', '', '', result['mean_recall'],
                 result['mean_read_ratio']])
    parts = [table(('sequence', 'frames', 'boxes', 'recall', 'read ratio'), rows)]
    if result['thresholds']:
        parts.append(table(('score threshold', 'recall', 'precision', 'F1', 'boxes a frame'),
                           [list(row.values()) for row in result['thresholds']]))
    accuracy = accuracy_as_text(result)
    if accuracy:
        parts.append(accuracy)
    rows = [[kind, item['frames'], *(item[f'p{p}'] for p in PERCENTILES)]
            for kind, item in result['latency_ms'].items()]
    parts.append(table(('decision', 'frames', *(f'p{p} ms' for p in PERCENTILES)), rows, 1))
    return '\n\n'.join(parts)


def _latency(values: np.ndarray) -> dict[str, Any]:
    return {'frames': len(values),
            **{f'p{p}': plain(np.percentile(values, p)) if len(values) else None
               for p in PERCENTILES}}


log = logging.getLogger(__name__)

#: Figures of a result, and their columns.
FIGURES = {'boxes': 'boxes', 'objects': 'objects', 'switches': 'switches', 'mota': 'MOTA',
           'idf1': 'IDF1', 'hota': 'HOTA', 'det_a': 'DetA', 'ass_a': 'AssA'}


def number_detections(shown: DetectionTable, read: np.ndarray) -> np.ndarray:
    """
    Assign object numbers to one sequence's detections, as the stream of a camera does.

    :param shown: its detections, frame by frame
    :param read: ``(F,)`` bool: whether the frame was read
    :returns: ``(N,)`` int64, the object number of each detection
    """
    result, tracks = np.zeros(len(shown), np.int64), Tracks()
    for number, is_read in enumerate(read):
        rows = np.flatnonzero(shown.frames == number)
        found = Detections(shown.boxes[rows], shown.labels[rows], shown.scores[rows])
        result[rows], tracks = tracks.follow(found, bool(is_read))
    return result


def every_object(videos: Sequence[Video]) -> list[TruthTable]:
    """
    Return all objects of the sequences, with their tracks.

    If only some objects are annotated, detections of the others would count as wrong.

    :raises EvaluationError: if not every object is annotated, or none has a track
    """
    tables = [item.labelled for item in videos if item.labelled is not None]
    if len(tables) < len(videos):
        raise EvaluationError('identities: only some objects of these sequences are annotated; '
                              'name all of them by --annotations, --mot or --pseudo-labels')
    if not any((table.tracks != UNKNOWN_TRACK).any() for table in tables):
        raise EvaluationError('identities: no annotated box has a track_id, which is the same for '
                              'an object in all frames')
    return tables


def summarise_identities(videos: Sequence[Video], runs: Sequence[VideoRun]
                         ) -> dict[str, Any]:
    """
    Measure the identities of the shown detections.

    :param videos, runs: sequences and their runs, in the same order
    :returns: plain values: `tracking_figures` by sequence, and of all together as `all`
    :raises EvaluationError: as `every_object` does
    :raises MissingLibraryError: if TrackEval is missing
    """
    figures = tracking_figures([
        (run.shown, number_detections(run.shown, run.read), truth)
        for run, truth in zip(runs, every_object(videos))])
    plainly = [{key: plain(value) if isinstance(value, float) else value
                for key, value in row.items()} for row in figures]
    return {'sequences': dict(zip((item.name for item in videos), plainly)), 'all': plainly[-1]}


def identity_records(sequences: Mapping[str, tuple[DetectionTable, np.ndarray, TruthTable]]
                     ) -> dict[str | None, Identities]:
    """
    Measure the identities of sequences with tracks, for the record of a run.

    :param sequences: by name, as for `tracking_figures`
    :returns: by name, and under None all of them together. Empty without tracks, or with a
        warning in the log if TrackEval is missing.
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
    """Format the result of `summarise_identities` as a table."""
    rows = [[name, *(row[key] for key in FIGURES)]
            for name, row in [*result['sequences'].items(), ('all', result['all'])]]
    return table(('sequence', *FIGURES.values()), rows, title='identities')
