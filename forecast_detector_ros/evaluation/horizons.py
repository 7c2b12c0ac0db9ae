# SPDX-License-Identifier: Apache-2.0
"""
Forecasts from every frame of a sequence, up to a horizon, and rules that use only boxes.

Of n streams, each reads every n-th frame, and each starts at another frame, so that each frame is
read once. From each read, forecasts run to the horizon, also beyond the next read. So all horizons
start from the same states.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .forecast_backends import Displacement, FeatureSource
from .sequences import as_frame, picture, Video
from ..annotations.records import UNKNOWN_TRACK
from ..detector.detector import Detector
from ..detector.policy import AlternatePolicy, AlwaysReadPolicy
from ..detector.processing import Detections, resize
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..images.frame import Frame, FrameError
from ..metrics.tables import DetectionTable, match, one_hot, TruthTable


@dataclass(frozen=True)
class HorizonRun:
    """The result of one sequence."""

    read: DetectionTable  #: Detections if every frame is read

    #: By detector and frames after a read; 0: the reads that the forecasts start from.
    tables: dict[tuple[str, int], DetectionTable]

    #: ``(2, levels, horizons)`` float64: squared errors of forecast and last read feature, means
    #: over each frame's map, summed over frames.
    squares: np.ndarray
    counts: np.ndarray  #: ``(horizons,)`` int64: number of summed frames


class Rollouts:
    """
    Forecasts of one detector from all of its latest reads.

    :param detector: computes all of them as one batch
    :param settings: thresholds; the policy is not used
    :param horizons: frames that are forecast after each read, at least 1
    :param reads_every: frames from one read of a stream to the next, from 1 to ``horizons + 1``
    """

    def __init__(self, detector: Detector, settings: DetectorSettings, horizons: int,
                 reads_every: int) -> None:
        self._detector = detector
        self._read = replace(settings, policy=AlwaysReadPolicy())
        self._forecast = replace(settings, policy=AlternatePolicy(horizons),
                                 max_consecutive_forecasts=horizons)
        self._horizons, self._reads_every = horizons, reads_every
        self._opening = StreamState.initial()
        #: By the frame that was read: the state after the last frame.
        self.states: dict[int, StreamState] = {}

    def starts(self, number: int) -> list[int]:
        """Return the reads whose forecasts reach frame `number`, the oldest first."""
        return [start for start in self.states if number - start <= self._horizons]

    def step(self, number: int, frame: Frame) -> dict[int, Detections]:
        """
        Forecast a frame from all reads before it, then read it.

        :returns: detections by frames after the read; 0 is the frame read
        """
        every = self._reads_every
        # Before its first start a stream reads every frame.
        before = self._opening if number < every else self.states[number - every]
        starts = self.starts(number)
        outcomes = self._detector.step_many([frame] * len(starts),
                                            [self.states[start] for start in starts],
                                            self._forecast)
        self.states, found = {}, {}
        for start, outcome in zip(starts, outcomes):
            if isinstance(outcome, FrameError):
                raise outcome
            found[number - start], self.states[start] = outcome[0].detections, outcome[1]
        result, after = self._detector.step(frame, before, self._read)
        found[0], self.states[number], self._opening = result.detections, after, after
        return found


def reads_before(frames: int, reads_every: int) -> list[int]:
    """Return, for each frame, its stream's last read before it; -1 for none."""
    return [number - (1 if number < reads_every else reads_every) for number in range(frames)]


def run_horizons(detectors: Mapping[str, Detector], video: Video, settings: DetectorSettings,
                 horizons: int, reads_every: int, source: FeatureSource | None = None,
                 displacements: Mapping[str, Displacement] | None = None) -> HorizonRun:
    """
    Run detectors over one sequence.

    :param detectors: by name; the first one also reads every frame
    :param video, settings, horizons, reads_every: as for `Rollouts`
    :param source: features of the first detector's network, if that forecasts features; None:
        errors of features are not measured
    :param displacements: optical flow of the detectors that use it, by their names
    :raises DataError: if a picture cannot be decoded
    """
    rollouts = {name: Rollouts(detector, settings, horizons, reads_every)
                for name, detector in detectors.items()}
    displacements = displacements or {}
    for displacement in displacements.values():
        displacement.start()
    main, detector = next(iter(detectors.items()))
    read_all, state = replace(settings, policy=AlwaysReadPolicy()), StreamState.initial()
    read: list[DetectionTable] = []
    tables: dict[tuple[str, int], list[DetectionTable]] = {
        (name, horizon): [] for name in detectors for horizon in range(horizons + 1)}
    errors = _FeatureErrors(horizons)
    for number, record in enumerate(video.frames):
        pixels = picture(record)
        frame = as_frame(pixels)
        image = resize(pixels, detector.input_size)
        if source is not None:
            errors.add(number, source(image[None]), rollouts[main])
        result, state = detector.step(frame, state, read_all)
        read.append(DetectionTable.of_frame(number, result.detections))
        for name, rollout in rollouts.items():
            if name in displacements:
                displacements[name].see(image)
                displacements[name].since(rollout.starts(number))
            for horizon, found in rollout.step(number, frame).items():
                tables[name, horizon].append(DetectionTable.of_frame(number, found))
    return HorizonRun(DetectionTable.join(read),
                      {key: DetectionTable.join(value) for key, value in tables.items()},
                      errors.squares, errors.counts)


class _FeatureErrors:
    """Sums of the squared errors of forecasts, and of last read features."""

    def __init__(self, horizons: int) -> None:
        self._features: dict[int, Sequence[torch.Tensor]] = {}
        self.squares = np.zeros((2, 0, horizons))
        self.counts = np.zeros(horizons, np.int64)

    def add(self, number: int, feature: Sequence[torch.Tensor], rollouts: Rollouts) -> None:
        if not self.squares.size:
            self.squares = np.zeros((2, len(feature), len(self.counts)))
        starts = rollouts.starts(number)
        for start in starts:
            state: Any = rollouts.states[start].network
            place = number - start - 1
            self.squares[0, :, place] += _errors(state.forecast, feature)
            self.squares[1, :, place] += _errors(self._features[start], feature)
            self.counts[place] += 1
        self._features = {start: self._features[start] for start in starts} | {number: feature}


def _errors(guess: Sequence[torch.Tensor], feature: Sequence[torch.Tensor]) -> list[float]:
    return [float(torch.mean((a.float() - b.float()) ** 2)) for a, b in zip(guess, feature)]


#: Smallest IoU of two detections of one object; the limit of SORT (Bewley 2016).
SAME_OBJECT = 0.3


def repeated(reads: DetectionTable, horizon: int, frames: int) -> DetectionTable:
    """
    Repeat the boxes of each read.

    :param reads: detections of the frames that were read
    :param horizon: frames from a read to the frame of the result
    :param frames: length of the sequence; later frames have no result
    """
    later = reads.shift(horizon)
    return later.select(later.frames < frames)


def constant_velocity(reads: DetectionTable, before: Sequence[int], horizon: int,
                      video: Video) -> DetectionTable:
    """
    Move boxes as they moved between the last two reads.

    Detections of both reads are matched class by class; centre and sides are extrapolated
    linearly. A detection without a match does not move.

    :param reads, horizon: as for `repeated`
    :param before: for each frame, the frame that was read before it; -1 for none
    """
    if not len(reads):
        return reads
    previous = np.asarray(before, np.int64)
    frames = len(video.frames)
    # Detections of the earlier read are the truth of the matching.
    later = np.flatnonzero(previous >= 0)
    rows = [np.flatnonzero(reads.frames == previous[frame]) for frame in later]
    numbers = np.repeat(later, [len(found) for found in rows])
    earlier = np.concatenate([np.zeros(0, np.int64), *rows])
    classes = int(reads.labels.max()) + 1
    partner = match(reads, TruthTable(numbers, reads.boxes[earlier],
                                      one_hot(reads.labels[earlier], classes),
                                      np.zeros(0, np.int64), np.zeros((0, 4), np.float32)),
                    SAME_OBJECT)
    moved = reads.boxes.astype(np.float64)
    found = np.flatnonzero(partner >= 0)
    here, there = moved[found], moved[earlier[partner[found]]]
    gap = (reads.frames[found] - reads.frames[earlier[partner[found]]])[:, None]
    moved[found] = _box(_form(here) + (_form(here) - _form(there)) * horizon / gap)
    return repeated(_replaced(reads, moved, video), horizon, frames)


def moved_by_truth(reads: DetectionTable, truth: TruthTable, horizon: int, video: Video
                   ) -> DetectionTable:
    """
    Move boxes as their objects really moved: the best that moving boxes could reach.

    A detection that hits an annotated box (IoU 0.5, class accepted) is moved and scaled as that
    object's box is up to the later frame. Others, and those whose object is not annotated there,
    do not move.

    :param reads, horizon, video: as for `constant_velocity`
    :param truth: annotated boxes with their tracks
    """
    def then(frame: int, _: np.ndarray, boxes: _Track) -> np.ndarray | None:
        return boxes.get(frame + horizon)
    return _moved_with_objects(reads, truth, horizon, video, then)


def true_velocity(reads: DetectionTable, truth: TruthTable, before: Sequence[int], horizon: int,
                  video: Video) -> DetectionTable:
    """
    Move boxes as their objects really moved between the last two reads.

    This is the result of exact knowledge of the past motion, if the motion continued.

    :param reads, before, horizon, video: as for `constant_velocity`
    :param truth: annotated boxes with their tracks
    """
    def then(frame: int, now: np.ndarray, boxes: _Track) -> np.ndarray | None:
        earlier = boxes.get(before[frame])
        return None if earlier is None else (
            now + (now - earlier) * horizon / (frame - before[frame]))
    return _moved_with_objects(reads, truth, horizon, video, then)


_Track = Mapping[int, np.ndarray]  #: Centre and sides of an object, by the frame


def _moved_with_objects(reads: DetectionTable, truth: TruthTable, horizon: int, video: Video,
                        then: Callable[[int, np.ndarray, _Track], np.ndarray | None]
                        ) -> DetectionTable:
    """
    Move and scale detections as the annotated objects that they hit.

    :param then: returns centre and sides of an object at the later frame, from the frame of the
        read, its centre and sides there, and its track; None if unknown
    """
    known = truth.select(truth.tracks != UNKNOWN_TRACK)
    forms = _form(known.boxes)
    tracks: dict[int, dict[int, np.ndarray]] = {}
    for track, frame, form in zip(known.tracks.tolist(), known.frames.tolist(), forms):
        tracks.setdefault(track, {})[frame] = form
    partner = match(reads, known)
    moved = reads.boxes.astype(np.float64)
    for row in np.flatnonzero(partner >= 0):
        start = forms[partner[row]]
        end = then(int(reads.frames[row]), start, tracks[int(known.tracks[partner[row]])])
        if end is None:
            continue
        box = _form(moved[row])
        moved[row] = _box(np.concatenate((box[:2] + end[:2] - start[:2],
                                          box[2:] * end[2:] / start[2:])))
    return repeated(_replaced(reads, moved, video), horizon, len(video.frames))


def _form(boxes: np.ndarray) -> np.ndarray:
    """Convert corners to centre and sides, ``(..., 4)`` float64."""
    first, last = np.float64(boxes[..., :2]), np.float64(boxes[..., 2:])
    return np.concatenate(((first + last) / 2, last - first), -1)


def _box(form: np.ndarray) -> np.ndarray:
    """Convert centre and sides to corners; negative sides become 0."""
    half = form[..., 2:].clip(0) / 2
    return np.concatenate((form[..., :2] - half, form[..., :2] + half), -1)


def _replaced(reads: DetectionTable, boxes: np.ndarray, video: Video) -> DetectionTable:
    """Return the table with other boxes, cut to the picture like those of a detector."""
    first = video.frames[0]
    limit = np.array((first.width, first.height) * 2, np.float64)
    return DetectionTable(reads.frames, np.clip(boxes, 0, limit).astype(np.float32),
                          reads.labels, reads.scores)
