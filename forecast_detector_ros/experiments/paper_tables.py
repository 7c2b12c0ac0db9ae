# SPDX-License-Identifier: Apache-2.0
"""The paper's Tables 1 and 2 for one's own checkpoints and videos: accuracy and speed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..detector.checkpoint import Card
from ..detector.detector import Detector
from ..detector.policy import AlternatePolicy, FORECAST, Policy, READ
from ..detector.settings import DetectorSettings
from ..evaluation.accuracy import HEADS, KEYS, measure_accuracy
from ..evaluation.policy_sweep import run_policies
from ..evaluation.runs import Latencies, run_video
from ..evaluation.sequences import EvaluationError, Video
from ..layout import mean, mean_and_deviation, plain
from ..metrics.average_precision import GROUPS
from ..metrics.tables import DetectionTable, recall
from ..model.network import ForecastDetector


def table1_row(detector: Detector, videos: Sequence[Video], settings: DetectorSettings,
               protocol: str) -> dict[str, Any]:
    """
    Measure accuracy and speed of one detector under one policy.

    :param detector: is warmed up first
    :param videos, settings, protocol: what to run on, how, and by which average precision (of
        `accuracy.KEYS`)
    :returns: `backbone`, `input` (height x width), `policy`, the figures of
        `operating_points.score`, `read_ratio`, and `fps`: frames by the time that resizing,
        network and post-processing took for them, without decoding
    :raises DataError: if a picture cannot be decoded
    """
    detector.warm_up()
    runs = [run_video(detector, item, settings, collect=True) for item in videos]
    took = np.concatenate([run.preprocess_ms + run.inference_ms for run in runs])
    read = np.concatenate([run.read for run in runs])
    tables = [run.collected for run in runs if run.collected is not None]
    height, width = detector.input_size
    return {'backbone': f'MobileNetV2 {detector.card.network.width:g}',
            'input': f'{height}x{width}', 'policy': str(settings.policy),
            **score(videos, tables, detector.labels, protocol, settings.score_threshold),
            'read_ratio': float(read.mean()), 'fps': float(1000 / took.mean())}


def table2_rows(network: ForecastDetector, card: Card, videos: Sequence[Video],
                settings: DetectorSettings, policies: Sequence[Policy], protocol: str,
                motion: Sequence[np.ndarray], device: str = 'cpu', precision: str = 'fp32'
                ) -> list[dict[str, Any]]:
    """
    Measure a variant by motion, under each policy.

    :param network, card, device, precision: as for `run_policies`
    :param protocol: `plain` or `devkit`
    :param motion: motion IoU of the boxes for average precision, one array a sequence
    :returns: one a policy: `variant`, `forecast_mode`, `policy`, `read_ratio`, and the figures of
        `operating_points.score`
    :raises DataError, EvaluationError: with a message of one line
    """
    # The variant is asked for first: what is run may be moved and changed.
    known = {'variant': network.config.variant, 'forecast_mode': network.config.forecast_mode}
    runs = run_policies(network, card, videos, settings, policies, device, precision)
    return [{**known, 'policy': policy,
             'read_ratio': float(np.concatenate([run.read for run in found]).mean()),
             **score(videos, [run.collected for run in found], card.classes, protocol,
                     settings.score_threshold, motion)}
            for policy, found in runs.items()]


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Join rows of the same `model` and `policy`: several trainings of one variant.

    :returns: `model`, `policy`, `trainings`, and the means of `accuracy` and the `GROUPS`. Keys
        that end in ``_sd`` have the standard deviation of the sample (None for one training). None
        if a training has no value.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row['model'], row['policy']), []).append(row)
    result = []
    for (model, policy), found in groups.items():
        joined: dict[str, Any] = {'model': model, 'policy': policy, 'trainings': len(found)}
        for key in ('accuracy', *GROUPS):
            joined[key], joined[f'{key}_sd'] = mean_and_deviation([row[key] for row in found])
        result.append(joined)
    return result


#: The measure where objects without a box are in view, so that precision means nothing.
RECALL = 'recall'


@dataclass(frozen=True)
class Speed:
    """Mean times of the decisions, milliseconds: resizing, network and post-processing."""

    read_ms: float
    forecast_ms: float
    source: str  #: Where it is from

    def fps(self, read_ratio: float) -> float:
        """Give frames per second where such a share of them is read, in [0, 1]."""
        return 1000 / (read_ratio * self.read_ms + (1 - read_ratio) * self.forecast_ms)


def measure_speed(detector: Detector, videos: Sequence[Video], settings: DetectorSettings
                  ) -> Speed:
    """
    Time every frame of the videos once, read and forecast in turn.

    :param detector: is warmed up first
    :param videos, settings: what to run on, and under which thresholds
    :raises DataError: if a picture cannot be decoded
    :raises EvaluationError: if there is no second frame to forecast
    """
    detector.warm_up()
    runs = [run_video(detector, item, replace(settings, policy=AlternatePolicy(1)), False)
            for item in videos]
    took = np.concatenate([run.preprocess_ms + run.inference_ms for run in runs])
    read = np.concatenate([run.read for run in runs])
    if read.all():
        raise EvaluationError('speed: the videos have no sequence of two frames or more')
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


def measure_name(videos: Sequence[Video], protocol: str) -> str:
    """Name what `score` gives as `accuracy`: of `accuracy.HEADS`, or `RECALL`."""
    return HEADS[protocol] if all(item.labelled is not None for item in videos) else RECALL


def score(videos: Sequence[Video], collected: Sequence[DetectionTable],
          labels: Sequence[str], protocol: str, score_threshold: float,
          motion: Sequence[np.ndarray] | None = None) -> dict[str, Any]:
    """
    Score the detections of all sequences.

    :param videos, collected: the sequences, and the detections in each from a low score on
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
                  for item, table in zip(videos, collected)])
    if measure_name(videos, protocol) == RECALL:
        if motion is not None:
            raise EvaluationError('motion IoU: the videos have no boxes of all objects')
        return {'accuracy': found, 'recall': found}
    figures = measure_accuracy(videos, collected, labels, (protocol,), motion)[KEYS[protocol]]
    result = {'accuracy': figures['mean'], 'recall': found}
    if motion is not None:
        if 'motion' not in figures:
            raise EvaluationError(f'protocol {protocol} is not split by motion; take plain or '
                                  'devkit')
        result |= {name: figures['motion'][name]['mean'] for name in GROUPS}
    return result
