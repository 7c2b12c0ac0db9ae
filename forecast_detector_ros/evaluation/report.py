# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation, as plain values for JSON and as a table for people."""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np

from .average_precision import average_precision
from .forecast_quality import ForecastQuality, Hits
from .recall import recall
from .runner import FootageRun
from .sequences import Footage
from .tables import DetectionTable, TruthTable

PERCENTILES = (50, 95)
"""Percentiles of the latency that are reported."""


def summarise(footage: Sequence[Footage], runs: Sequence[FootageRun], labels: Sequence[str]
              ) -> dict[str, Any]:
    """
    Compute recall, average precision, read ratio and latency.

    Parameters
    ----------
    footage, runs:
        What was looked at, and what came out, in the same order; at least one.
    labels:
        The detector's classes.

    Returns
    -------
    dict
        Plain values; what could not be measured is None.

    """
    sequences = {}
    for item, run in zip(footage, runs):
        sequences[item.name] = {
            'frames': len(item.frames), 'boxes': len(item.truth),
            'recall': _plain(recall(run.shown, item.truth)),
            'read_ratio': _plain(run.read.mean())}
    read = np.concatenate([run.read for run in runs])
    inference = np.concatenate([run.inference_ms for run in runs])
    total = inference + np.concatenate([run.preprocess_ms for run in runs])
    result: dict[str, Any] = {
        'frames': len(read),
        'sequences': sequences,
        'mean_recall': _mean([item['recall'] for item in sequences.values()]),
        'read_ratio': _plain(read.mean()),
        'mean_read_ratio': _mean([item['read_ratio'] for item in sequences.values()]),
        'latency_ms': {'read': _latency(total[read]), 'forecast': _latency(total[~read])},
        'ap50': None}
    if all(item.labelled is not None for item in footage):
        result['ap50'] = _ap(footage, runs, labels)
    return result


def _ap(footage: Sequence[Footage], runs: Sequence[FootageRun], labels: Sequence[str]
        ) -> dict[str, Any]:
    truths, detections, start = [], [], 0
    for item, run in zip(footage, runs):
        assert item.labelled is not None and run.collected is not None
        truths.append(item.labelled.shift(start))
        detections.append(run.collected.shift(start))
        start += len(item.frames)
    ap = average_precision(DetectionTable.join(detections), TruthTable.join(truths))
    return {'mean': _plain(ap.mean), 'ignored_detections': ap.ignored, 'classes': {
        name: {'ap50': _plain(ap.per_class[i]), 'boxes': int(ap.boxes[i]),
               'detections': int(ap.detections[i])}
        for i, name in enumerate(labels) if ap.boxes[i] or ap.detections[i]}}


def summarise_forecasts(quality: ForecastQuality) -> dict[str, Any]:
    """
    Turn forecast quality into plain values.

    Recall is the mean over sequences; `feature_mse` is forecast MSE / persistence MSE, per level
    and horizon, by sequence and as their mean.
    """
    def by_horizon(hits: Sequence[Hits]) -> list[dict[str, Any]]:
        return [{'horizon': horizon, 'mean_recall': _mean(item.recall.tolist()),
                 'sequences': dict(zip(quality.names, map(_plain, item.recall)))}
                for horizon, item in enumerate(hits)]

    mse, rival = quality.feature_mse, quality.persistence_mse
    ratio = np.divide(mse, rival, out=np.full(mse.shape, np.nan), where=rival > 0)
    return {
        'read': by_horizon(quality.read),
        **{name: by_horizon(hits) for name, hits in quality.hits.items()},
        'feature_mse': [
            {'level': level, 'horizon': horizon + 1,
             'mean_ratio': _mean(ratio[level, horizon].tolist()),
             'sequences': {name: {'forecast': _plain(mse[level, horizon, i]),
                                  'persistence': _plain(rival[level, horizon, i]),
                                  'ratio': _plain(ratio[level, horizon, i])}
                           for i, name in enumerate(quality.names)}}
            for level in range(mse.shape[0]) for horizon in range(mse.shape[1])]}


def as_text(result: dict[str, Any]) -> str:
    """Lay out the result of `summarise` as tables."""
    rows = [[name, item['frames'], item['boxes'], item['recall'], item['read_ratio']]
            for name, item in result['sequences'].items()]
    rows.append(['mean over sequences', '', '', result['mean_recall'],
                 result['mean_read_ratio']])
    parts = [table(('sequence', 'frames', 'boxes', 'recall', 'read ratio'), rows)]
    if result['ap50']:
        rows = [[name, item['boxes'], item['detections'], item['ap50']]
                for name, item in result['ap50']['classes'].items()]
        rows.append(['mean over classes with boxes', '', '', result['ap50']['mean']])
        parts.append(table(('class', 'boxes', 'detections', 'AP50'), rows))
    rows = [[kind, item['frames'], *(item[f'p{p}'] for p in PERCENTILES)]
            for kind, item in result['latency_ms'].items()]
    parts.append(table(('decision', 'frames', *(f'p{p} ms' for p in PERCENTILES)), rows, 1))
    return '\n\n'.join(parts)


def forecasts_as_text(result: dict[str, Any], levels: Sequence[int]) -> str:
    """Lay out the result of `summarise_forecasts`; `levels` are the strides of the levels."""
    rivals = [name for name in result if name not in ('read', 'feature_mse')]
    rows = [[item['horizon'], item['mean_recall'],
             *(result[name][item['horizon']]['mean_recall'] for name in rivals)]
            for item in result['read']]
    parts = [table(('frames after a read', 'read', *rivals), rows,
                   title='mean recall over sequences')]
    names = list(result['feature_mse'][0]['sequences'])
    rows = [[f'stride {levels[item["level"]]}, {item["horizon"]} after a read',
             item['mean_ratio'], *(item['sequences'][name]['ratio'] for name in names)]
            for item in result['feature_mse']]
    parts.append(table(('', 'mean', *names), rows,
                       title='feature MSE of the forecast / of the last read feature'))
    return '\n\n'.join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 3,
          title: str = '') -> str:
    """Align columns; the first to the left, the others to the right; None becomes a dash."""
    def cell(value: Any) -> str:
        if value is None:
            return '-'
        return f'{value:.{digits}f}' if isinstance(value, float) else str(value)

    cells = [list(head), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ['  '.join(text.ljust(width) if not i else text.rjust(width)
                       for i, (text, width) in enumerate(zip(row, widths))).rstrip()
             for row in cells]
    lines.insert(1, '  '.join('-' * width for width in widths))
    return '\n'.join([title, *lines] if title else lines)


def _latency(values: np.ndarray) -> dict[str, Any]:
    return {'frames': len(values),
            **{f'p{p}': _plain(np.percentile(values, p)) if len(values) else None
               for p in PERCENTILES}}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return sum(known) / len(known) if known else None


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
