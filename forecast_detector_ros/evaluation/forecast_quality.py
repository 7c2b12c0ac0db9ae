# SPDX-License-Identifier: Apache-2.0
"""
Accuracy of forecasts 1, 2, ... frames after a read, compared with simpler rules.

The result is recall by horizon, IoU and frame rate, for each sequence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import logging

import numpy as np

from .forecast_backends import (
    DisplacedFeatureBackend,
    Displacement,
    FeatureSource,
    SharedFeatureBackend,
)
from .horizons import (
    constant_velocity,
    HorizonRun,
    moved_by_truth,
    reads_before,
    repeated,
    run_horizons,
    true_velocity,
)
from .sequences import EvaluationError, thin, Video
from ..annotations.records import UNKNOWN_TRACK
from ..detector.backends.torch_backend import TorchBackend
from ..detector.checkpoint import Card
from ..detector.detector import Detector
from ..detector.settings import DetectorSettings
from ..metrics.tables import DetectionTable, found_boxes, TruthTable
from ..model.network import ForecastDetector

_log = logging.getLogger(__name__)

READ, FORECAST, HELD, PERSISTENCE = 'read', 'forecast', 'held', 'persistence'
REPEATED, VELOCITY = 'repeated_boxes', 'constant_velocity'
PAST, CEILING = 'true_velocity', 'moved_by_truth'

#: The compared rules; the last two, which use pictures, are measured on request.
ROWS = {
    READ: 'the frame is read',
    FORECAST: 'the detector as it is',
    HELD: 'the detector without motion: the last read feature replaces the forecast as the '
          'feature of frames that are not read; where motion is forecast, boxes stay',
    PERSISTENCE: 'the variant `persistence` with the same weights: without Encoder 1; left out '
                 'where motion is forecast, as it is the same as `held` there',
    REPEATED: 'boxes of the last read frame',
    VELOCITY: 'these boxes, moved as between the last two reads',
    PAST: 'these boxes, moved as their objects really moved between the last two reads',
    CEILING: 'these boxes, moved as their objects really moved: the best that moving boxes can '
             'reach',
    'extrapolated': 'as `held`, moved along the optical flow between the last read frame '
                    'and the frame before it, as if the motion continued',
    'true_motion': 'as `held`, moved along the optical flow from the last read frame to '
                   'the present one',
}

#: Rows that use pictures, and whether they extrapolate.
BY_FLOW = {'extrapolated': True, 'true_motion': False}

_FEATURES = 'a network that forecasts features'
#: Requirements of rows that some networks, videos or calls do not meet.
_NEEDS = {PERSISTENCE: _FEATURES, **dict.fromkeys((PAST, CEILING), 'boxes with track_ids'),
          **dict.fromkeys(BY_FLOW, f'optical flow (--optical-flow) and {_FEATURES}')}

IOUS = np.arange(10, 20) / 20  #: COCO's thresholds, 0.5 to 0.95; 0.7 is among them


@dataclass(frozen=True)
class Hits:
    """Numbers of found and of annotated boxes, one entry per sequence."""

    found: np.ndarray  #: ``(10, S)`` int64: at each of the `IOUS`
    boxes: np.ndarray  #: ``(S,)`` int64
    shown: np.ndarray  #: ``(S,)`` float64: detections per frame

    @property
    def recall(self) -> np.ndarray:
        """Recall, ``(10, S)`` float64; NaN without boxes."""
        return np.divide(self.found, self.boxes, out=np.full(self.found.shape, np.nan),
                         where=self.boxes > 0)


@dataclass(frozen=True)
class StrideQuality:
    """Result for some sequences at one frame rate."""

    stride: int  #: Every `stride`-th frame was used
    names: tuple[str, ...]
    #: By the names of `ROWS`, and of other networks: one entry per horizon, from 0 on.
    rows: dict[str, tuple[Hits, ...]]

    #: ``(levels, horizons, sequences)`` float64: mean squared error of the forecast. None if
    #: forecasts are not features.
    feature_mse: np.ndarray | None
    persistence_mse: np.ndarray | None  #: The same for the last read feature


@dataclass(frozen=True)
class ForecastQuality:
    """Result at some frame rates."""

    strides: tuple[StrideQuality, ...]
    reads_every: int  #: Frames from one read of a stream to the next


def measure_forecasts(network: ForecastDetector, card: Card, videos: Sequence[Video],
                      settings: DetectorSettings, horizons: int = 3, device: str = 'cpu',
                      precision: str = 'fp32', optical_flow: bool = False,
                      strides: Sequence[int] = (1,), rows: Sequence[str] | None = None,
                      beside: Mapping[str, tuple[ForecastDetector, Card]] | None = None
                      ) -> ForecastQuality:
    """
    Measure recall and feature error by horizon.

    :param network, card: from `load_checkpoint`. The network is moved to `device` in place.
    :param videos: at least one sequence
    :param settings: thresholds and `max_consecutive_forecasts`. The policy is not used: streams
        forecast this many frames after each read, or `horizons` if that is less.
    :param horizons: frames forecast after each read, at least 1
    :param device, precision: as for `Detector.load`
    :param optical_flow: whether the rows of `BY_FLOW` are measured too
    :param strides: frame rates: every n-th frame, from each of n starts
    :param rows: names of `ROWS`; None for all
    :param beside: other networks with their cards, whose forecasts become rows of these names
    :raises DataError: if a picture cannot be decoded
    :raises DeviceError: if device or precision is not available
    :raises EvaluationError: if another network has other classes, or one of `rows` cannot be
        measured with this network or these videos
    """
    def wanted(row: str) -> bool:
        return rows is None or row in rows

    moves_features = not network.config.forecasts_motion
    source = FeatureSource(network)

    def build(variant: ForecastDetector, hold: bool = False) -> Detector:
        return Detector(SharedFeatureBackend(variant, device, precision, source, hold), card)

    detectors = {FORECAST: build(network)}
    if wanted(HELD):
        # Without encoders a frame that is not read always repeats the last read.
        detectors[HELD] = (build(network, hold=network.config.has_encoders) if moves_features
                           else build(network.with_variant('persistence')))
    if network.config.has_encoders and moves_features and wanted(PERSISTENCE):
        detectors[PERSISTENCE] = build(network.with_variant('persistence'))
    displacements = {row: Displacement(extrapolate) for row, extrapolate in BY_FLOW.items()
                     if optical_flow and moves_features and wanted(row)}
    for row, displacement in displacements.items():
        detectors[row] = Detector(
            DisplacedFeatureBackend(network, device, precision, source, displacement), card)
    for name, (other, its_card) in (beside or {}).items():
        if its_card.classes != card.classes:
            raise EvaluationError(f'{name}: its classes are {", ".join(its_card.classes)}; they '
                                  f'must be {", ".join(card.classes)}')
        detectors[name] = Detector(TorchBackend(other, device, precision), its_card)
    every = min(horizons, settings.max_consecutive_forecasts) + 1
    names = [row for row in ROWS if wanted(row) and (row in detectors or row not in (
        FORECAST, HELD, PERSISTENCE, *BY_FLOW))] + list(beside or {})
    names = [name for name in names if name not in (PAST, CEILING) or _tracked(videos)]
    for row in rows or ():
        if row not in names:
            raise EvaluationError(f'row {row} cannot be measured: it needs {_NEEDS[row]}')
    result = []
    for stride in strides:
        runs = []
        for item in videos:
            _log.info('%s: forecasts up to %d frames after a read, every %s', item.name, horizons,
                      'frame' if stride == 1 else f'{stride} frames')
            runs.append([(part, run_horizons(
                detectors, part, settings, horizons, every,
                source if moves_features else None, displacements))
                for part in thin(item, stride)])
        result.append(StrideQuality(
            stride, tuple(item.name for item in videos),
            {name: tuple(_hits(name, runs, horizon, every) for horizon in range(horizons + 1))
             for name in names},
            *(_mean_errors(runs) if moves_features else (None, None))))
    return ForecastQuality(tuple(result), every)


_Runs = Sequence[Sequence[tuple[Video, HorizonRun]]]


def _tracked(videos: Sequence[Video]) -> bool:
    return any((item.truth.tracks != UNKNOWN_TRACK).any() for item in videos)


def _shown(name: str, item: Video, run: HorizonRun, horizon: int, reads_every: int
           ) -> DetectionTable:
    """Return a row's detections in the frames of a sequence `horizon` frames after a read."""
    reads = run.tables[FORECAST, 0]
    if name == READ:
        return run.read
    if name == REPEATED:
        return repeated(reads, horizon, len(item.frames))
    if name == VELOCITY:
        return constant_velocity(reads, reads_before(len(item.frames), reads_every), horizon,
                                 item)
    if name == PAST:
        return true_velocity(reads, item.truth, reads_before(len(item.frames), reads_every),
                             horizon, item)
    if name == CEILING:
        return moved_by_truth(reads, item.truth, horizon, item)
    return run.tables[name, horizon]


def _hits(name: str, runs: _Runs, horizon: int, reads_every: int) -> Hits:
    tables, truths, owners, start = [], [], [], 0
    frames = np.zeros(len(runs), np.int64)
    shown = np.zeros(len(runs))
    for place, parts in enumerate(runs):
        for item, run in parts:
            # The first frames of a sequence have no read so far before them.
            truth = item.truth.select(item.truth.frames >= horizon)
            table = _shown(name, item, run, horizon, reads_every)
            table = table.select(table.frames >= horizon)
            frames[place] += max(len(item.frames) - horizon, 0)
            shown[place] += len(table)
            tables.append(table.shift(start))
            truths.append(truth.shift(start))
            owners.append(np.full(len(truth), place))
            start += len(item.frames)
    table, truth, owner = (DetectionTable.join(tables), TruthTable.join(truths),
                           np.concatenate(owners))
    found = [np.bincount(owner[found_boxes(table, truth, float(iou))], minlength=len(runs))
             for iou in IOUS]
    return Hits(np.array(found), np.bincount(owner, minlength=len(runs)),
                np.divide(shown, frames, out=np.full(len(runs), np.nan), where=frames > 0))


def _mean_errors(runs: _Runs) -> tuple[np.ndarray, np.ndarray]:
    means = []
    for parts in runs:
        squares = sum(run.squares for _, run in parts)
        counts = sum(run.counts for _, run in parts)
        means.append(squares / np.where(counts > 0, counts, np.nan))
    forecast, persistence = np.stack(means, -1)
    return forecast, persistence
