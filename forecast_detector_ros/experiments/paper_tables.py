# SPDX-License-Identifier: Apache-2.0
"""The paper's Tables 1 and 2 for checkpoints and footage of one's own."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from .operating_points import score
from ..detector.checkpoint import Card
from ..detector.detector import Detector
from ..detector.policy import Policy
from ..detector.settings import DetectorSettings
from ..evaluation.policy_runs import run_policies
from ..evaluation.runner import run_footage
from ..evaluation.sequences import Footage
from ..metrics.vid_ap import GROUPS
from ..model.network import ForecastDetector


def table1_row(detector: Detector, footage: Sequence[Footage], settings: DetectorSettings,
               protocol: str) -> dict[str, Any]:
    """
    Measure accuracy and speed of one detector under one policy.

    :param detector: is warmed up first
    :param footage, settings, protocol: what to run on, how, and by which average precision (of
        `accuracy.KEYS`)
    :returns: `backbone`, `input` (height x width), `policy`, the figures of
        `operating_points.score`, `read_ratio`, and `fps`: frames by the time that resizing,
        network and post-processing took for them, without decoding
    :raises DataError: if a picture cannot be decoded
    """
    detector.warm_up()
    runs = [run_footage(detector, item, settings, collect=True) for item in footage]
    took = np.concatenate([run.preprocess_ms + run.inference_ms for run in runs])
    read = np.concatenate([run.read for run in runs])
    tables = [run.collected for run in runs if run.collected is not None]
    height, width = detector.input_size
    return {'backbone': f'MobileNetV2 {detector.card.network.width:g}',
            'input': f'{height}x{width}', 'policy': str(settings.policy),
            **score(footage, tables, detector.labels, protocol, settings.score_threshold),
            'read_ratio': float(read.mean()), 'fps': float(1000 / took.mean())}


def table2_rows(network: ForecastDetector, card: Card, footage: Sequence[Footage],
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
    runs = run_policies(network, card, footage, settings, policies, device, precision)
    return [{**known, 'policy': policy,
             'read_ratio': float(np.concatenate([run.read for run in found]).mean()),
             **score(footage, [run.collected for run in found], card.classes, protocol,
                     settings.score_threshold, motion)}
            for policy, found in runs.items()]


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Join rows of the same `model` and `policy`: several trainings of one variant.

    :returns: `model`, `policy`, `trainings`, and of `accuracy` and the `GROUPS` the mean, with the
        standard deviation of the sample under the key with ``_sd`` behind (None for one training);
        None where a training has no figure
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row['model'], row['policy']), []).append(row)
    result = []
    for (model, policy), found in groups.items():
        joined: dict[str, Any] = {'model': model, 'policy': policy, 'trainings': len(found)}
        for key in ('accuracy', *GROUPS):
            values = [row[key] for row in found]
            whole = None not in values
            joined[key] = mean(values) if whole else None
            joined[f'{key}_sd'] = stdev(values) if whole and len(values) > 1 else None
        result.append(joined)
    return result
