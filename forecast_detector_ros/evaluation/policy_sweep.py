# SPDX-License-Identifier: Apache-2.0
"""
Run a network over footage under many policies at once.

Each frame's feature is extracted a single time, however many of the policies read the frame, so
that a sweep costs little more than one run.  Nothing is timed for the same reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .forecast_backends import FeatureSource, SharedFeatureBackend
from .runs import COLLECT_SCORE
from .sequences import as_frame, Footage, picture
from ..detector.checkpoint import Card
from ..detector.detector import Detector
from ..detector.policy import Policy, READ
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..metrics.tables import DetectionTable, TruthTable
from ..model.network import ForecastDetector


@dataclass(frozen=True)
class PolicyRun:
    """What one policy made of one sequence."""

    collected: DetectionTable
    """Detections from `COLLECT_SCORE` on, or from the settings' threshold if that is lower."""

    read: np.ndarray
    """``(F,)`` bool: whether the frame was read."""


def run_policies(network: ForecastDetector, card: Card, footage: Sequence[Footage],
                 settings: DetectorSettings, policies: Sequence[Policy], device: str = 'cpu',
                 precision: str = 'fp32', hold: bool = False) -> dict[str, list[PolicyRun]]:
    """
    Run every policy over every sequence, from a fresh state each.

    Parameters
    ----------
    network, card:
        As `load_checkpoint` gives them.  The network is moved to `device` in place.
    footage:
        The sequences.
    settings:
        What the policies have in common.
    policies:
        Each in place of that of the settings.
    device, precision:
        As for `Detector.load`.
    hold:
        Whether frames that are not read take the last read feature in the forecast's place.

    Returns
    -------
    dict
        By the policy's text: one run a sequence.

    Raises
    ------
    DataError
        If a picture cannot be decoded.
    DeviceError
        If device or precision cannot be had.

    """
    source = FeatureSource(network)
    detector = Detector(SharedFeatureBackend(network, device, precision, source, hold), card)
    low = replace(settings, score_threshold=min(COLLECT_SCORE, settings.score_threshold))
    own = {str(policy): replace(low, policy=policy) for policy in policies}
    result: dict[str, list[PolicyRun]] = {name: [] for name in own}
    for item in footage:
        states = dict.fromkeys(own, StreamState.initial())
        found: dict[str, list[DetectionTable]] = {name: [] for name in own}
        read: dict[str, list[bool]] = {name: [] for name in own}
        for number, record in enumerate(item.frames):
            frame = as_frame(picture(record))
            for name, mine in own.items():
                step, states[name] = detector.step(frame, states[name], mine)
                found[name].append(DetectionTable.of_frame(number, step.detections))
                read[name].append(step.decision.kind == READ)
        for name in own:
            result[name].append(PolicyRun(DetectionTable.join(found[name]),
                                          np.array(read[name], bool)))
    return result


def join_runs(footage: Sequence[Footage], runs: Sequence[PolicyRun]
              ) -> tuple[DetectionTable, TruthTable]:
    """Put what one policy made of all sequences into one table, and what is there into another."""
    found, truths, start = [], [], 0
    for item, run in zip(footage, runs):
        found.append(run.collected.shift(start))
        truths.append(item.truth.shift(start))
        start += len(item.frames)
    return DetectionTable.join(found), TruthTable.join(truths)
