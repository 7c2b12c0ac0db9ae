# SPDX-License-Identifier: Apache-2.0
"""
How good forecast frames are, 1, 2, ... frames after a read, beside persistence.

After every read, `horizons` frames are forecast.  The pattern is run from every start phase, so
that each frame is measured once at each horizon that its place in the sequence allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
import logging

import numpy as np
import torch

from .displaced_features import DisplacedFeatureBackend, Displacement
from .forecast_backends import FeatureSource, SharedFeatureBackend
from .sequences import as_frame, Footage, picture
from ..detector.checkpoint import Card
from ..detector.detector import Detector, StreamState
from ..detector.policy import AlternatePolicy, AlwaysReadPolicy, FORECAST
from ..detector.preprocess import resize
from ..detector.settings import DetectorSettings
from ..metrics.recall import found_boxes
from ..metrics.tables import DetectionTable
from ..model.config import NetworkConfig
from ..model.network import ForecastDetector

_log = logging.getLogger(__name__)

RIVALS = {
    'forecast': 'the detector as it is',
    'held_feature': 'the same, but the last read feature replaces the forecast as the feature '
                    'of frames that are not read',
    'persistence': 'the variant `persistence` with the same weights: without Encoder 1',
    'repeated_boxes': 'boxes of the last read frame, again',
    'extrapolated': 'as `held_feature`, moved along the optical flow between the last read frame '
                    'and the frame before it, as if the motion went on',
    'true_motion': 'as `held_feature`, moved along the optical flow from the last read frame to '
                   'the present one',
}
"""
What is compared on frames that are not read.

The last two, of which only `true_motion` is told what it could not know, are measured if asked
for.
"""

BY_FLOW = {'extrapolated': True, 'true_motion': False}
"""Rivals that look at pictures, and whether they extrapolate."""


@dataclass(frozen=True)
class Hits:
    """Boxes found and boxes there, one entry a sequence."""

    found: np.ndarray
    boxes: np.ndarray

    @property
    def recall(self) -> np.ndarray:
        """Recall per sequence; NaN where there are no boxes."""
        return np.divide(self.found, self.boxes, out=np.full(len(self.boxes), np.nan),
                         where=self.boxes > 0)


@dataclass(frozen=True)
class ForecastQuality:
    """Result for some sequences."""

    names: tuple[str, ...]
    hits: dict[str, tuple[Hits, ...]]
    """By rival: one entry a horizon, from 0 (read frames of the pattern) on."""

    read: tuple[Hits, ...]
    """The same frames, all of them read: one entry a horizon."""

    feature_mse: np.ndarray
    """``(levels, horizons, sequences)`` float64: mean squared error of the forecast."""

    persistence_mse: np.ndarray
    """The same of the last read feature."""


def measure_forecasts(network: ForecastDetector, card: Card, footage: Sequence[Footage],
                      settings: DetectorSettings, horizons: int = 3, device: str = 'cpu',
                      precision: str = 'fp32', optical_flow: bool = False) -> ForecastQuality:
    """
    Measure recall and feature error by horizon.

    Parameters
    ----------
    network, card:
        As `load_checkpoint` gives them.  The network is moved to `device` in place.
    footage:
        At least one sequence.
    settings:
        Thresholds; the policy in it plays no part.
    horizons:
        Frames forecast after each read, at least 1.
    device, precision:
        As for `Detector.load`.
    optical_flow:
        Whether the rivals of `BY_FLOW` are measured too.

    Raises
    ------
    DataError
        If a picture cannot be decoded.
    DeviceError
        If device or precision cannot be had.

    """
    source = FeatureSource(network)

    def build(variant: ForecastDetector, hold: bool = False) -> Detector:
        return Detector(SharedFeatureBackend(variant, device, precision, source, hold), card)

    detectors = {'forecast': build(network), 'held_feature': build(network, hold=True)}
    if network.config.has_encoders:
        detectors['persistence'] = build(network.with_variant('persistence'))
    displacements = {rival: Displacement(extrapolate)
                     for rival, extrapolate in BY_FLOW.items() if optical_flow}
    for rival, displacement in displacements.items():
        detectors[rival] = Detector(
            DisplacedFeatureBackend(network, device, precision, source, displacement), card)
    runs = []
    for item in footage:
        _log.info('%s: forecasts up to %d frames after a read', item.name, horizons)
        runs.append(_run(source, network.config, detectors, displacements, item, settings,
                         horizons))
    rivals = [rival for rival in RIVALS if rival in (*detectors, 'repeated_boxes')]
    hits = {rival: tuple(_hits([run.tables[rival, h] for run in runs], footage, h)
                         for h in range(horizons + 1)) for rival in rivals}
    read = tuple(_hits([run.tables['read', 0] for run in runs], footage, h)
                 for h in range(horizons + 1))
    return ForecastQuality(tuple(item.name for item in footage), hits, read,
                           np.stack([run.errors[0] for run in runs], 2),
                           np.stack([run.errors[1] for run in runs], 2))


@dataclass(frozen=True)
class _Run:
    tables: dict[tuple[str, int], DetectionTable]
    errors: np.ndarray  # (2, levels, horizons): forecast, persistence


def _hits(tables: Sequence[DetectionTable], footage: Sequence[Footage], horizon: int) -> Hits:
    # The first frames of a sequence cannot be so far behind a read.
    truths = [item.truth.select(item.truth.frames >= horizon) for item in footage]
    return Hits(np.array([found_boxes(table, truth).sum()
                          for table, truth in zip(tables, truths)]),
                np.array([len(truth) for truth in truths]))


def _run(source: FeatureSource, config: NetworkConfig, detectors: dict[str, Detector],
         displacements: dict[str, Displacement], footage: Footage, settings: DetectorSettings,
         horizons: int) -> _Run:
    read_all = replace(settings, policy=AlwaysReadPolicy())
    pattern = replace(settings, policy=AlternatePolicy(horizons),
                      max_consecutive_forecasts=horizons)
    phases = range(horizons + 1)
    states = {(rival, phase): StreamState.initial() for rival in detectors for phase in phases}
    read_state = StreamState.initial()
    rows: dict[tuple[str, int], list[DetectionTable]] = {('read', 0): []}
    for rival in RIVALS:
        rows.update(((rival, horizon), []) for horizon in phases)
    errors = np.zeros((2, len(config.levels), horizons))
    counts = np.zeros(horizons)
    last_feature: dict[int, tuple[torch.Tensor, ...]] = {}
    last_boxes = {}
    last_read = dict.fromkeys(phases, 0)
    for displacement in displacements.values():
        displacement.start()

    for number, record in enumerate(footage.frames):
        pixels = picture(record)
        frame = as_frame(pixels)
        resized = resize(pixels, config.input_size)
        feature = source(resized[None])
        for displacement in displacements.values():
            displacement.see(resized)
        result, read_state = detectors['forecast'].step(frame, read_state, read_all)
        rows['read', 0].append(DetectionTable.of_frame(number, result.detections))
        for (rival, phase), state in states.items():
            # Until its phase has come a stream reads everything.
            now = read_all if number <= phase else pattern
            if rival in displacements:
                displacements[rival].since(last_read[phase])
            result, states[rival, phase] = detectors[rival].step(frame, state, now)
            if number < phase:
                continue
            horizon = result.decision.consecutive_forecasts
            rows[rival, horizon].append(DetectionTable.of_frame(number, result.detections))
            if rival != 'forecast':
                continue
            if result.decision.kind == FORECAST:
                errors[0, :, horizon - 1] += _errors(state.network.forecast, feature)
                errors[1, :, horizon - 1] += _errors(last_feature[phase], feature)
                counts[horizon - 1] += 1
            else:
                last_feature[phase], last_boxes[phase] = feature, result.detections
                # Rivals of the same phase come later, and do not look at it when they read.
                last_read[phase] = number
            rows['repeated_boxes', horizon].append(
                DetectionTable.of_frame(number, last_boxes[phase]))
    errors /= np.where(counts > 0, counts, np.nan)
    return _Run({key: DetectionTable.join(value) for key, value in rows.items()}, errors)


def _errors(guess: Sequence[torch.Tensor], feature: Sequence[torch.Tensor]) -> list[float]:
    return [float(torch.mean((a.float() - b.float()) ** 2)) for a, b in zip(guess, feature)]
