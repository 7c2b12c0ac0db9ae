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

from .recall import found_boxes
from .sequences import as_frame, Footage, picture
from .tables import DetectionTable
from ..model.config import NetworkConfig
from ..model.network import ForecastDetector, NetworkState, StepOutput
from ..runtime.backends import RawOutput
from ..runtime.backends.torch_backend import raw_output, TorchBackend
from ..runtime.checkpoint import Card
from ..runtime.detector import Detector, StreamState
from ..runtime.policy import AlternatePolicy, AlwaysReadPolicy, FORECAST
from ..runtime.preprocess import resize
from ..runtime.settings import DetectorSettings

_log = logging.getLogger(__name__)

RIVALS = {
    'forecast': 'the detector as it is',
    'held_feature': 'the same, but the last read feature replaces the forecast as the feature '
                    'of frames that are not read',
    'persistence': 'the variant `persistence` with the same weights: without Encoder 1',
    'repeated_boxes': 'boxes of the last read frame, again',
}
"""What is compared on frames that are not read."""


class FeatureSource:
    """
    Extract the feature of each picture once for all streams that read it.

    Parameters
    ----------
    network:
        Its extractor is used, on the device where it is then.

    """

    def __init__(self, network: ForecastDetector) -> None:
        self._network = network
        self._images: np.ndarray | None = None
        self._feature: tuple[torch.Tensor, ...] = ()

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Give the feature of ``(1, H, W, 3)`` uint8 BGR pixels, one map per level."""
        if self._images is None or not np.array_equal(images, self._images):
            tensor = torch.from_numpy(images).to(self._network.mean.device)
            self._feature = self._network.extract(self._network.normalise_bgr(tensor))
            self._images = images
        return self._feature


class SharedFeatureBackend(TorchBackend):
    """
    Do what `TorchBackend` does, with features from a common source.

    Parameters
    ----------
    network, device, precision:
        As for `TorchBackend`.
    source:
        Of a network with the same extractor.
    hold:
        Whether frames that are not read take the last read feature in the forecast's place.

    """

    def __init__(self, network: ForecastDetector, device: str, precision: str,
                 source: FeatureSource, hold: bool = False) -> None:
        super().__init__(network, device, precision)
        self._source = source
        self._hold = hold

    @torch.inference_mode()
    def read_step(self, images: np.ndarray, state: NetworkState) -> RawOutput:
        """Read one ``(1, H, W, 3)`` uint8 BGR picture."""
        feature = self._source(images)
        maps, after = self.network.encode(feature, state)
        output = StepOutput(self.network.head(maps.fused), self.network.schedule(maps), after)
        if self._hold:
            # The forecast in the state feeds nothing but the next step without an image.
            output = output._replace(state=after._replace(forecast=feature))
        return raw_output(output)

    @torch.inference_mode()
    def forecast_step(self, state: NetworkState) -> RawOutput:
        """Advance without images."""
        raw = super().forecast_step(state)
        if self._hold:
            raw = raw._replace(state=raw.state._replace(forecast=state.forecast))
        return raw


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
                      precision: str = 'fp32') -> ForecastQuality:
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
    runs = []
    for item in footage:
        _log.info('%s: forecasts up to %d frames after a read', item.name, horizons)
        runs.append(_run(source, network.config, detectors, item, settings, horizons))
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
         footage: Footage, settings: DetectorSettings, horizons: int) -> _Run:
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

    for number, record in enumerate(footage.frames):
        pixels = picture(record)
        frame = as_frame(pixels)
        feature = source(resize(pixels, config.input_size)[None])
        result, read_state = detectors['forecast'].step(frame, read_state, read_all)
        rows['read', 0].append(DetectionTable.of_frame(number, result.detections))
        for (rival, phase), state in states.items():
            # Until its phase has come a stream reads everything.
            now = read_all if number <= phase else pattern
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
            rows['repeated_boxes', horizon].append(
                DetectionTable.of_frame(number, last_boxes[phase]))
    errors /= np.where(counts > 0, counts, np.nan)
    return _Run({key: DetectionTable.join(value) for key, value in rows.items()}, errors)


def _errors(guess: Sequence[torch.Tensor], feature: Sequence[torch.Tensor]) -> list[float]:
    return [float(torch.mean((a.float() - b.float()) ** 2)) for a, b in zip(guess, feature)]
