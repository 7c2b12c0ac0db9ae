# SPDX-License-Identifier: Apache-2.0
"""Runs of a detector over sequences: detections, decisions and latencies."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
import math
from pathlib import Path
from typing import Any
import zlib

import numpy as np

from .sequences import as_frame, EvaluationError, frames_here, picture, Video
from ..detector.detector import Detector
from ..detector.policy import FORECAST, READ
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..images.frame import Pixels
from ..jobs.engine import Progress, StopFlag, StoppedError
from ..jobs.locations import kept, Location
from ..layout import mean, table
from ..metrics.tables import DetectionTable
from ..plain_values import PlainJsonError, read_plain_json

COLLECT_SCORE = 0.01  #: Smallest score of detections that are collected for average precision


@dataclass(frozen=True)
class VideoRun:
    """The result of a detector on one sequence; arrays have one entry per frame."""

    name: str
    shown: DetectionTable  #: Detections under the given settings

    #: Detections from `COLLECT_SCORE` on; None if they were not collected.
    collected: DetectionTable | None
    read: np.ndarray  #: bool: whether the frame was read
    confidence: np.ndarray  #: float64: the scheduler's confidence, NaN for the first frame
    preprocess_ms: np.ndarray  #: float64: time of resizing, without decoding the file
    inference_ms: np.ndarray  #: float64: time of network and post-processing

    #: Reason of each decision; empty if not recorded.
    reasons: tuple[str, ...] = ()


def run_video(detector: Detector, video: Video, settings: DetectorSettings,
              collect: bool, progress: Progress = lambda done, total: None,
              interrupt: StopFlag | None = None) -> VideoRun:
    """
    Run a detector over one sequence from a fresh state.

    :param detector: must be warmed up for valid latencies
    :param settings: of the decisions and the timed steps
    :param collect: whether to collect detections of low score as well. Every step is then done a
        second time from the same state, because more candidates would slow down the timed step.
    :param progress: called after each frame with the number of finished frames, and of all
    :param interrupt: ends the run when it is set
    :raises DataError: if a picture cannot be decoded
    :raises LocationError: if a picture cannot be fetched
    :raises StoppedError: if `interrupt` was set
    """
    low = replace(settings, score_threshold=min(COLLECT_SCORE, settings.score_threshold))
    state = StreamState.initial()
    shown, collected, steps = [], [], []
    with frames_here(video) as records:
        for number, record in enumerate(records):
            if interrupt is not None and interrupt.is_set:
                raise StoppedError
            frame = as_frame(picture(record))
            result, after = detector.step(frame, state, settings)
            if collect:
                again, _ = detector.step(frame, state, low)
                collected.append(DetectionTable.of_frame(number, again.detections))
            shown.append(DetectionTable.of_frame(number, result.detections))
            steps.append(result)
            state = after
            progress(number + 1, len(records))
    return VideoRun(
        video.name, DetectionTable.join(shown),
        DetectionTable.join(collected) if collect else None,
        np.array([step.decision.kind == READ for step in steps]),
        np.array([step.decision.confidence for step in steps]),
        np.array([step.preprocess_ms for step in steps]),
        np.array([step.inference_ms for step in steps]),
        tuple(step.decision.reason for step in steps))


@dataclass(frozen=True)
class VideoWork:
    """The input of every process that runs a detector over sequences."""

    checkpoint: Location
    device: str
    precision: str
    threads: int
    backend: str
    settings: DetectorSettings
    collect: bool  #: See `run_video`

    def prepare(self) -> Callable[[Video, Progress, StopFlag], VideoRun]:
        """Load the detector, warm it up, and return the function that runs one sequence."""
        detector = Detector.load(kept(self.checkpoint), self.device, self.precision,
                                 self.threads, backend=self.backend)
        detector.warm_up()
        return self.with_detector(detector)

    def with_detector(self, detector: Detector
                      ) -> Callable[[Video, Progress, StopFlag], VideoRun]:
        """Return that function for a detector that is loaded and warmed up."""
        return lambda video, progress, interrupt: run_video(
            detector, video, self.settings, self.collect, progress, interrupt)


#: Standard deviation of the noise of a small camera indoors, in steps of 8-bit pixels.
SENSOR_NOISE = 3.0


def static_read_ratios(detector: Detector, videos: Sequence[Video],
                       settings: DetectorSettings, frames: int = 60,
                       noise: float = SENSOR_NOISE, seed: int = 0) -> dict[str, float]:
    """
    Measure read ratios on still scenes: the first picture of a sequence, repeated with new noise.

    :param videos: sequences of at least one frame
    :param settings: policy and limits; reads due to `max_consecutive_forecasts` count as well
    :param frames: repetitions of each picture
    :param noise: standard deviation of Gaussian noise, independent in every pixel, channel and
        frame
    :param seed: seed of the noise
    :returns: read ratio, in (0, 1], by the sequence's name
    :raises DataError: if a picture cannot be decoded
    """
    result = {}
    for item in videos:
        rng = np.random.default_rng(seed)
        still = picture(item.frames[0])
        state, reads = StreamState.initial(), 0
        for _ in range(frames):
            shake = rng.normal(0.0, noise, still.array.shape)
            noisy = np.clip(still.array + shake, 0, 255).astype(np.uint8)
            step, state = detector.step(as_frame(Pixels(noisy, still.order)), state, settings)
            reads += step.decision.kind == READ
        result[item.name] = reads / frames
    return result


def summarise_static(detector: Detector, videos: Sequence[Video], settings: DetectorSettings,
                     frames: int) -> dict[str, Any]:
    """Measure `static_read_ratios`; return plain values: settings, `mean`, and by sequence."""
    ratios = static_read_ratios(detector, videos, settings, frames)
    return {'frames': frames, 'noise': SENSOR_NOISE, 'mean': mean(list(ratios.values())),
            'sequences': ratios}


def static_as_text(static: Mapping[str, Any], moving: Mapping[str, float]) -> str:
    """Format the result of `summarise_static`, and the read ratios of the sequences."""
    rows = [[name, ratio, moving[name]] for name, ratio in static['sequences'].items()]
    rows.append(['mean', static['mean'], mean([row[2] for row in rows])])
    return table(('read ratio', 'nothing moves', 'as filmed'), rows)


#: Key of the latencies in a JSON file: lists of milliseconds by kind of decision.
LATENCIES = 'latencies_ms'


def milliseconds(values: Iterable[float]) -> list[float]:
    """Round latencies to microseconds for a file."""
    return [round(float(value), 3) for value in values]


@dataclass(frozen=True)
class Latencies:
    """Recorded latencies of the two kinds of decision."""

    path: Path  #: File of the latencies

    #: Milliseconds, float64, sorted, by `READ` and `FORECAST`; empty if there are none.
    values: dict[str, np.ndarray]
    seed: int = 0

    def draws(self, name: str, frames: int) -> np.ndarray:
        """
        Draw each frame's place in the distribution of latencies, ``(frames,)`` in [0, 1).

        It depends only on the seed and the sequence's name, so every policy and frame rate gets
        the same draws.
        """
        # A folder's name need not be UTF-8.
        key = zlib.crc32(name.encode(errors='surrogateescape'))
        return np.random.default_rng([self.seed, key]).random(frames)

    def at(self, kind: str, fraction: float) -> float:
        """
        Return the latency, in milliseconds, below which a fraction of the recorded ones are.

        :raises EvaluationError: if no decision of this kind was recorded
        """
        values = self.values[kind]
        if not len(values):
            raise EvaluationError(f'{self.path}: {LATENCIES}: has no latency of a {kind} frame, '
                                  'and one is needed; record a run whose policy makes both '
                                  'decisions')
        return float(values[int(fraction * len(values))])


def load_latencies(path: Path, seed: int = 0) -> Latencies:
    """
    Read recorded latencies.

    :param path: a JSON object with ``{"latencies_ms": {"read": [...], "forecast": [...]}}``, such
        as a result of `evaluate` or `demo`; other keys are ignored
    :param seed: seed of the draws
    :raises EvaluationError: if the file has another form
    """
    try:
        document = read_plain_json(path)
    except PlainJsonError as error:
        raise EvaluationError(str(error)) from None
    lists = document.get(LATENCIES) if isinstance(document, dict) else None
    if not isinstance(lists, dict):
        raise EvaluationError(f'{path}: {LATENCIES}: must hold an object with lists of '
                              f'milliseconds, {READ} and {FORECAST}')
    values = {}
    for kind in (READ, FORECAST):
        numbers = lists.get(kind, [])
        if not isinstance(numbers, list) or not all(
                isinstance(number, (int, float)) and not isinstance(number, bool)
                and math.isfinite(number) and number >= 0 for number in numbers):
            raise EvaluationError(f'{path}: {LATENCIES}.{kind}: must be a list of milliseconds, '
                                  'from 0 on')
        values[kind] = np.sort(np.array(numbers, np.float64))
    return Latencies(path, values, seed)
