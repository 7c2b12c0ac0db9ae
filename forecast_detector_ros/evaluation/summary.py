# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation, as plain values for JSON and as a table for people."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .accuracy import accuracy_as_text, measure_accuracy
from .accuracy import KEYS as AP_KEYS
from .forecast_quality import ForecastQuality, Hits
from .latencies import KEY as LATENCIES
from .latencies import milliseconds
from .runner import FootageRun
from .sequences import Footage
from ..layout import mean, plain, table
from ..metrics.recall import recall

PERCENTILES = (50, 95)
"""Percentiles of the latency that are reported."""


def summarise(footage: Sequence[Footage], runs: Sequence[FootageRun], labels: Sequence[str],
              protocols: Sequence[str] = ('plain',), motion: Sequence[np.ndarray] | None = None
              ) -> dict[str, Any]:
    """
    Compute recall, average precision, read ratio and latency.

    Parameters
    ----------
    footage, runs:
        What was looked at, and what came out, in the same order; at least one.
    labels:
        The detector's classes.
    protocols, motion:
        For average precision; see `accuracy.measure_accuracy`.

    Returns
    -------
    dict
        Plain values; what could not be measured is None.

    Raises
    ------
    EvaluationError
        If a protocol needs a library that is missing.

    """
    sequences = {}
    for item, run in zip(footage, runs):
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
        **dict.fromkeys(AP_KEYS.values())}
    if all(item.labelled is not None for item in footage):
        collected = [run.collected for run in runs if run.collected is not None]
        result.update(measure_accuracy(footage, collected, labels, protocols, motion))
    return result


def summarise_forecasts(quality: ForecastQuality) -> dict[str, Any]:
    """
    Turn forecast quality into plain values.

    Recall is the mean over sequences; `feature_mse` is forecast MSE / persistence MSE, per level
    and horizon, by sequence and as their mean.
    """
    def by_horizon(hits: Sequence[Hits]) -> list[dict[str, Any]]:
        return [{'horizon': horizon, 'mean_recall': mean(item.recall.tolist()),
                 'sequences': dict(zip(quality.names, map(plain, item.recall)))}
                for horizon, item in enumerate(hits)]

    mse, rival = quality.feature_mse, quality.persistence_mse
    ratio = np.divide(mse, rival, out=np.full(mse.shape, np.nan), where=rival > 0)
    return {
        'read': by_horizon(quality.read),
        **{name: by_horizon(hits) for name, hits in quality.hits.items()},
        'feature_mse': [
            {'level': level, 'horizon': horizon + 1,
             'mean_ratio': mean(ratio[level, horizon].tolist()),
             'sequences': {name: {'forecast': plain(mse[level, horizon, i]),
                                  'persistence': plain(rival[level, horizon, i]),
                                  'ratio': plain(ratio[level, horizon, i])}
                           for i, name in enumerate(quality.names)}}
            for level in range(mse.shape[0]) for horizon in range(mse.shape[1])]}


def as_text(result: dict[str, Any]) -> str:
    """Lay out the result of `summarise` as tables."""
    rows = [[name, item['frames'], item['boxes'], item['recall'], item['read_ratio']]
            for name, item in result['sequences'].items()]
    rows.append(['mean over sequences', '', '', result['mean_recall'],
                 result['mean_read_ratio']])
    parts = [table(('sequence', 'frames', 'boxes', 'recall', 'read ratio'), rows)]
    accuracy = accuracy_as_text(result)
    if accuracy:
        parts.append(accuracy)
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


def _latency(values: np.ndarray) -> dict[str, Any]:
    return {'frames': len(values),
            **{f'p{p}': plain(np.percentile(values, p)) if len(values) else None
               for p in PERCENTILES}}
