# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation, as plain values for JSON and as a table for people."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .accuracy import accuracy_as_text, measure_accuracy
from .accuracy import KEYS as AP_KEYS
from .latencies import KEY as LATENCIES
from .latencies import milliseconds
from .runs import FootageRun
from .sequences import Footage
from ..layout import mean, plain, table
from ..metrics.tables import recall

PERCENTILES = (50, 95)
"""Percentiles of the latency that are reported."""


def summarise_runs(footage: Sequence[Footage], runs: Sequence[FootageRun], labels: Sequence[str],
                   protocols: Sequence[str] = ('plain',),
                   motion: Sequence[np.ndarray] | None = None
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


def as_text(result: dict[str, Any]) -> str:
    """Lay out the result of `summarise_runs` as tables."""
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


def _latency(values: np.ndarray) -> dict[str, Any]:
    return {'frames': len(values),
            **{f'p{p}': plain(np.percentile(values, p)) if len(values) else None
               for p in PERCENTILES}}
