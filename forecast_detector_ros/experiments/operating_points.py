# SPDX-License-Identifier: Apache-2.0
"""Accuracy and speed of a detector under a policy: a point of Table 1, 2 or Fig. 5."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..detector.detector import Detector
from ..detector.policy import AlternatePolicy, FORECAST, READ
from ..detector.settings import DetectorSettings
from ..evaluation.accuracy import HEADS, KEYS, measure_accuracy
from ..evaluation.latencies import Latencies
from ..evaluation.runner import run_footage
from ..evaluation.sequences import EvaluationError, Footage
from ..layout import mean, plain
from ..metrics.matching import recall
from ..metrics.tables import DetectionTable
from ..metrics.vid_ap import GROUPS

#: The measure where objects without a box are in view, so that precision means nothing.
RECALL = 'recall'


@dataclass(frozen=True)
class Speed:
    """What decisions take on average, milliseconds: resizing, network and post-processing."""

    read_ms: float
    forecast_ms: float
    source: str  #: Where it is from

    def fps(self, read_ratio: float) -> float:
        """Give frames per second where such a share of them is read, in [0, 1]."""
        return 1000 / (read_ratio * self.read_ms + (1 - read_ratio) * self.forecast_ms)


def measure_speed(detector: Detector, footage: Sequence[Footage], settings: DetectorSettings
                  ) -> Speed:
    """
    Time every frame of the footage once, read and forecast in turn.

    :param detector: is warmed up first
    :param footage, settings: what to run on, and under which thresholds
    :raises DataError: if a picture cannot be decoded
    :raises EvaluationError: if there is no second frame to forecast
    """
    detector.warm_up()
    runs = [run_footage(detector, item, replace(settings, policy=AlternatePolicy(1)), False)
            for item in footage]
    took = np.concatenate([run.preprocess_ms + run.inference_ms for run in runs])
    read = np.concatenate([run.read for run in runs])
    if read.all():
        raise EvaluationError('speed: the footage has no sequence of two frames or more')
    return Speed(float(took[read].mean()), float(took[~read].mean()), 'measured')


def recorded_speed(latencies: Latencies) -> Speed:
    """
    Take the means of recorded latencies.

    :raises EvaluationError: if one kind of decision was not recorded
    """
    values = {kind: latencies.values[kind] for kind in (READ, FORECAST)}
    for kind, found in values.items():
        if not len(found) or not found.mean() > 0:
            raise EvaluationError(f'{latencies.path}: has no latency of a {kind} frame; record a '
                                  'run whose policy makes both decisions')
    return Speed(float(values[READ].mean()), float(values[FORECAST].mean()),
                 str(latencies.path))


def measure_name(footage: Sequence[Footage], protocol: str) -> str:
    """Name what `score` gives as `accuracy`: of `accuracy.HEADS`, or `RECALL`."""
    return HEADS[protocol] if all(item.labelled is not None for item in footage) else RECALL


def score(footage: Sequence[Footage], collected: Sequence[DetectionTable],
          labels: Sequence[str], protocol: str, score_threshold: float,
          motion: Sequence[np.ndarray] | None = None) -> dict[str, Any]:
    """
    Score the detections of all sequences.

    :param footage, collected: the sequences, and the detections in each from a low score on
    :param labels: the detector's classes
    :param protocol: for average precision, of `accuracy.KEYS`
    :param score_threshold: for recall
    :param motion: motion IoU of the boxes for average precision, one array a sequence; None if
        unwanted
    :returns: fractions, None where there is nothing to measure: `accuracy` (of `measure_name`),
        `recall` (mean over sequences), and with `motion` the `GROUPS` as well
    :raises EvaluationError: if the protocol needs a library that is missing, or knows no motion
    """
    found = mean([plain(recall(table.select(table.scores > score_threshold), item.truth))
                  for item, table in zip(footage, collected)])
    if measure_name(footage, protocol) == RECALL:
        if motion is not None:
            raise EvaluationError('motion IoU: the footage has no boxes of all objects')
        return {'accuracy': found, 'recall': found}
    figures = measure_accuracy(footage, collected, labels, (protocol,), motion)[KEYS[protocol]]
    result = {'accuracy': figures['mean'], 'recall': found}
    if motion is not None:
        if 'motion' not in figures:
            raise EvaluationError(f'protocol {protocol} is not split by motion; take plain or '
                                  'devkit')
        result |= {name: figures['motion'][name]['mean'] for name in GROUPS}
    return result
