# SPDX-License-Identifier: Apache-2.0
"""Run a detector over sequences, frame by frame as the node would, in any process."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .sequences import as_frame, Footage, frames_here, picture
from ..detector.detector import Detector
from ..detector.policy import READ
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..jobs.job import Progress, StopFlag, StoppedError
from ..jobs.locations import kept, Location
from ..metrics.tables import DetectionTable

COLLECT_SCORE = 0.01
"""Score from which on detections are collected for average precision."""


@dataclass(frozen=True)
class FootageRun:
    """What a detector made of one sequence; arrays have one entry a frame."""

    name: str
    shown: DetectionTable
    """Detections under the given settings."""

    collected: DetectionTable | None
    """Detections from `COLLECT_SCORE` on; None if they were not asked for."""

    read: np.ndarray
    """bool: whether the frame was read."""

    confidence: np.ndarray
    """float64: what the scheduler said of the frame, NaN for the first."""

    preprocess_ms: np.ndarray
    """float64: resizing; decoding the file is not part of it."""

    inference_ms: np.ndarray
    """float64: network and post-processing under the given settings."""

    reasons: tuple[str, ...] = ()
    """Why each decision came out as it did; empty where nobody asked."""


def run_footage(detector: Detector, footage: Footage, settings: DetectorSettings,
                collect: bool, progress: Progress = lambda done, total: None,
                interrupt: StopFlag | None = None) -> FootageRun:
    """
    Run a detector over one sequence from a fresh state.

    Parameters
    ----------
    detector:
        Warmed up, if the latencies are to mean anything.
    footage:
        The sequence.
    settings:
        Under which the detector decides, and is timed.
    collect:
        Whether to collect detections of low score as well.  Every step is then done a second
        time from the same state, since more candidates would make the timed step slower.
    progress:
        Called after each frame with the number of those done, and of all.
    interrupt:
        Ends the run when it is set.

    Raises
    ------
    DataError
        If a picture cannot be decoded.
    LocationError
        If one cannot be fetched.
    StoppedError
        If the run was ended.

    """
    low = replace(settings, score_threshold=min(COLLECT_SCORE, settings.score_threshold))
    state = StreamState.initial()
    shown, collected, steps = [], [], []
    with frames_here(footage) as records:
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
    return FootageRun(
        footage.name, DetectionTable.join(shown),
        DetectionTable.join(collected) if collect else None,
        np.array([step.decision.kind == READ for step in steps]),
        np.array([step.decision.confidence for step in steps]),
        np.array([step.preprocess_ms for step in steps]),
        np.array([step.inference_ms for step in steps]),
        tuple(step.decision.reason for step in steps))


@dataclass(frozen=True)
class FootageWork:
    """What every process needs to run a detector over sequences."""

    checkpoint: Location
    device: str
    precision: str
    threads: int
    backend: str
    settings: DetectorSettings
    collect: bool
    """See `run_footage`."""

    def prepare(self) -> Callable[[Footage, Progress, StopFlag], FootageRun]:
        """Load the detector, warm it up, and return the function that runs one sequence."""
        detector = Detector.load(kept(self.checkpoint), self.device, self.precision,
                                 self.threads, backend=self.backend)
        detector.warm_up()
        return self.with_detector(detector)

    def with_detector(self, detector: Detector
                      ) -> Callable[[Footage, Progress, StopFlag], FootageRun]:
        """Return that function for a detector that is loaded and warm."""
        return partial(_run, self, detector)


def _run(work: FootageWork, detector: Detector, footage: Footage, progress: Progress,
         interrupt: StopFlag) -> FootageRun:
    return run_footage(detector, footage, work.settings, work.collect, progress, interrupt)
