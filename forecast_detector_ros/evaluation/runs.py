# SPDX-License-Identifier: Apache-2.0
"""Runs of a detector over sequences: what it found and decided, and how long that took."""
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

COLLECT_SCORE = 0.01  #: Score from which on detections are collected for average precision


@dataclass(frozen=True)
class VideoRun:
    """The result of a detector on one sequence; arrays have one entry per frame."""

    name: str
    shown: DetectionTable  #: Detections under the given settings

    #: Detections from `COLLECT_SCORE` on; None if they were not asked for.
    collected: DetectionTable | None
    read: np.ndarray  #: bool: whether the frame was read
    confidence: np.ndarray  #: float64: what the scheduler said of the frame, NaN for the first
    preprocess_ms: np.ndarray  #: float64: resizing; decoding the file is not part of it
    inference_ms: np.ndarray  #: float64: network and post-processing under the given settings

    #: Why each decision came out as it did; empty where nobody asked.
    reasons: tuple[str, ...] = ()


def run_video(detector: Detector, video: Video, settings: DetectorSettings,
              collect: bool, progress: Progress = lambda done, total: None,
              interrupt: StopFlag | None = None) -> VideoRun:
    """
    Run a detector over one sequence from a fresh state.

    :param detector: warmed up, if the latencies are to mean anything
    :param settings: under which the detector decides, and is timed
    :param collect: whether to collect detections of low score as well. Every step is then done a
        second time from the same state, since more candidates would make the timed step slower.
    :param progress: called after each frame with the number of those done, and of all
    :param interrupt: ends the run when it is set
    :raises DataError: if a picture cannot be decoded
    :raises LocationError: if one cannot be fetched
    :raises StoppedError: if the run was ended
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
        """Return that function for a detector that is loaded and warm."""
        return lambda video, progress, interrupt: run_video(
            detector, video, self.settings, self.collect, progress, interrupt)


#: Standard deviation of the noise, in steps of 8-bit pixels: that of a small camera indoors.
SENSOR_NOISE = 3.0


def static_read_ratios(detector: Detector, videos: Sequence[Video],
                       settings: DetectorSettings, frames: int = 60,
                       noise: float = SENSOR_NOISE, seed: int = 0) -> dict[str, float]:
    """
    Show the first picture of every sequence again and again, with fresh noise each time.

    :param videos: sequences of at least one frame
    :param settings: policy and limits; a read that `max_consecutive_forecasts` forces counts as
        well
    :param frames: how often each picture is shown
    :param noise: standard deviation of Gaussian noise, independent in every pixel, channel and
        frame
    :param seed: of the noise
    :returns: fraction of the frames that were read, in (0, 1], by the sequence's name
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
    """Measure `static_read_ratios`; give plain values: how, `mean`, and by sequence."""
    ratios = static_read_ratios(detector, videos, settings, frames)
    return {'frames': frames, 'noise': SENSOR_NOISE, 'mean': mean(list(ratios.values())),
            'sequences': ratios}


def static_as_text(static: Mapping[str, Any], moving: Mapping[str, float]) -> str:
    """Lay out the result of `summarise_static` beside the read ratios of the sequences."""
    rows = [[name, ratio, moving[name]] for name, ratio in static['sequences'].items()]
    rows.append(['mean', static['mean'], mean([row[2] for row in rows])])
    return table(('read ratio', 'nothing moves', 'as filmed'), rows)


#: Where a JSON file has latencies: by kind of decision, a list of milliseconds.
LATENCIES = 'latencies_ms'


def milliseconds(values: Iterable[float]) -> list[float]:
    """Give latencies the form in which files hold them, to the microsecond."""
    return [round(float(value), 3) for value in values]


@dataclass(frozen=True)
class Latencies:
    """Recorded latencies of the two kinds of decision."""

    path: Path  #: Where they are from

    #: Milliseconds, float64, sorted, by `READ` and `FORECAST`; empty where there are none.
    values: dict[str, np.ndarray]
    seed: int = 0

    def draws(self, name: str, frames: int) -> np.ndarray:
        """
        Draw where in the distribution each frame of a sequence lies, ``(frames,)`` in [0, 1).

        It depends on the seed and the sequence's name alone, so every policy and frame rate gets
        the same draws.
        """
        # A folder's name need not be UTF-8.
        key = zlib.crc32(name.encode(errors='surrogateescape'))
        return np.random.default_rng([self.seed, key]).random(frames)

    def at(self, kind: str, fraction: float) -> float:
        """
        Give the latency below which a fraction of the recorded ones lies, milliseconds.

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

    :param path: a JSON object with ``{"latencies_ms": {"read": [...], "forecast": [...]}}``, as
        the results of `evaluate` and `demo` have; anything else in it is passed over
    :param seed: for what is drawn from them
    :raises EvaluationError: if the file is not such a file
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
