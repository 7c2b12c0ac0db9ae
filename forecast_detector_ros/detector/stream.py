# SPDX-License-Identifier: Apache-2.0
"""
The state of a stream, and the decision about its next frame.

Tracks join the detections of one object in successive frames by class and overlap, with boxes of
constant velocity, as SORT does (Bewley et al. 2016, arXiv:1602.00763). Forecast frames continue
tracks but never end one.
"""

from dataclasses import dataclass, field, replace
from math import isfinite, isnan, nan
from statistics import median
from typing import Any

import numpy as np

from .policy import Decision, FORECAST, READ, REASONS
from .processing import Candidates, Detections
from .settings import DetectorSettings
from ..boxes import best_pairs, box_iou

MIN_IOU = 0.3  #: Least IoU of two boxes of one object; ``iou_threshold`` of SORT

#: Most reads in a row without the object; as in ByteTrack (Zhang et al. 2022, section 4.1).
PATIENCE = 30

#: Weight of the old velocity in the new one; measurements then have a mean age of two reads.
STEADINESS = 0.5


UNKNOWN = -1  #: Number of a detection whose object is not known yet


def _empty(*shape: int) -> np.ndarray:
    return np.zeros((0, *shape))


@dataclass(frozen=True)
class Tracks:
    """The T objects of one stream; immutable."""

    next_id: int = 1  #: Number of the next new object; numbers are not reused
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  #: ``(T,)`` int64

    #: ``(T,)`` int64: index of the class.
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    #: ``(T, 4)`` float64: last box of the object, moved to the last frame; xyxy, pixels.
    boxes: np.ndarray = field(default_factory=lambda: _empty(4))

    #: ``(T, 4)`` float64: box of its last detection on a read frame; xyxy, pixels.
    read_boxes: np.ndarray = field(default_factory=lambda: _empty(4))

    #: ``(T,)`` float64: time since that frame, in the unit of `elapsed`.
    since: np.ndarray = field(default_factory=lambda: _empty())

    #: ``(T, 2)`` float64: velocity of the centre, pixels per unit of `elapsed`.
    velocities: np.ndarray = field(default_factory=lambda: _empty(2))

    #: ``(T,)`` int64: reads in a row without the object.
    missed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def anew(self) -> 'Tracks':
        """Return tracks without objects; their numbers are not reused."""
        return Tracks(self.next_id)

    def follow(self, found: Detections, read: bool, elapsed: float = 1.0
               ) -> tuple[np.ndarray, 'Tracks']:
        """
        Assign numbers of objects to the detections of the next frame.

        :param read: whether the frame was read
        :param elapsed: time since the previous frame, above 0, in any unit
        :returns: ``(N,)`` int64, the different numbers of the detections; and the next tracks
        """
        if not len(found) and not len(self.ids):
            return np.zeros(0, np.int64), self
        boxes = found.boxes.astype(np.float64)
        since = self.since + elapsed
        # Forecasts of motion have moved the last boxes. Forecasts that repeat boxes, and missed
        # objects, need the motion since the last read.
        ahead = _moved(self.boxes, self.velocities * elapsed)
        far = _moved(self.read_boxes, self.velocities * since[:, None])
        overlap = np.maximum(box_iou(boxes, ahead), box_iou(boxes, far))
        overlap[found.labels[:, None] != self.labels] = 0.0
        rows, tracks = best_pairs(overlap, MIN_IOU)

        unpaired = np.ones(len(found), bool)
        unpaired[rows] = False
        new = np.flatnonzero(unpaired)
        ids = np.zeros(len(found), np.int64)
        ids[rows] = self.ids[tracks]
        ids[new] = self.next_id + np.arange(len(new))

        shown, velocities, read_boxes = ahead, self.velocities.copy(), self.read_boxes.copy()
        missed = self.missed + int(read)
        shown[tracks] = boxes[rows]
        if read:
            speed = (_centres(boxes[rows]) - _centres(read_boxes[tracks])) / since[tracks][:, None]
            known = self._known()[tracks][:, None]
            velocities[tracks] = np.where(
                known, STEADINESS * velocities[tracks] + (1 - STEADINESS) * speed, speed)
            read_boxes[tracks], since[tracks] = boxes[rows], 0.0
            missed[tracks] = 0
        keep = missed <= PATIENCE
        count = len(new)
        return ids, Tracks(
            self.next_id + count, np.append(self.ids[keep], ids[new]),
            np.append(self.labels[keep], found.labels[new]),
            np.concatenate((shown[keep], boxes[new])),
            np.concatenate((read_boxes[keep], boxes[new])),
            np.append(since[keep], np.zeros(count)),
            np.concatenate((velocities[keep], np.zeros((count, 2)))),
            np.append(missed[keep], np.zeros(count, np.int64)))

    def recognise(self, found: Detections, elapsed: float = 1.0) -> np.ndarray:
        """
        Return the numbers of detections ahead of time, ``(N,)`` int64; -1 for a new object.

        The parameters are those of `follow`.
        """
        ids, _ = self.follow(found, False, elapsed)
        return np.where(ids < self.next_id, ids, UNKNOWN)

    def _known(self) -> np.ndarray:
        """Return ``(T,)`` bool: which velocities were measured."""
        return np.any(self.velocities != 0.0, axis=1)


def _moved(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return boxes + np.concatenate((shift, shift), 1)


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


MAX_GAP_S = 1.0  #: Default of the longest gap between two stamps that keeps the state, seconds

WEIGHT = 0.2  #: Weight of the newest cost in the running mean, over about ten reads


@dataclass(frozen=True)
class Pace:
    """Measured costs and saved time of one stream; immutable."""

    #: Running mean of the cost of a read frame, milliseconds; NaN before the first.
    read_ms: float = nan
    forecast_ms: float = nan  #: Running mean of the cost of a forecast frame

    #: Unused time of the frames so far, milliseconds. At most the cost of one read, so that a
    #: quiet time is not followed by many reads in a row. At least its negative, so that forced
    #: reads and interruptions are soon compensated.
    saved_ms: float = 0.0

    def affords_read(self, budget_ms: float) -> bool:
        """
        Return whether a read keeps the mean cost of the frames within the budget.

        :param budget_ms: mean cost that a frame may have, milliseconds; infinite for no limit
        """
        return isnan(self.read_ms) or self.saved_ms + budget_ms >= self.read_ms

    def after(self, read: bool, cost_ms: float, budget_ms: float) -> 'Pace':
        """
        Return the pace after a frame.

        :param read: whether the frame was read
        :param cost_ms: its cost, milliseconds
        :param budget_ms: as for `affords_read`
        """
        if read:
            pace = replace(self, read_ms=_mean(self.read_ms, cost_ms))
        else:
            pace = replace(self, forecast_ms=_mean(self.forecast_ms, cost_ms))
        if not isfinite(budget_ms):
            return replace(pace, saved_ms=0.0)
        saved = self.saved_ms + budget_ms - cost_ms
        limit = cost_ms if isnan(pace.read_ms) else pace.read_ms
        return replace(pace, saved_ms=min(max(saved, -limit), limit))


FEWEST_GAPS = 3  #: With fewer, one dropped frame could change the period

#: Gaps whose median is the period. It tolerates four undetected drops, and follows a change of the
#: camera's rate within five frames.
MOST_GAPS = 9


@dataclass(frozen=True)
class Period:
    """The time between the images of one camera, from their stamps; immutable."""

    stamp_ns: int | None = None  #: Stamp of the last image, nanoseconds
    gaps_ns: tuple[float, ...] = ()  #: Between the last images, at most `MOST_GAPS`

    def after(self, stamp_ns: int, dropped: int = 0, max_gap_s: float = MAX_GAP_S) -> 'Period':
        """
        Return the period after an image.

        :param stamp_ns: stamp of the image, nanoseconds. A repeated stamp changes nothing.
        :param dropped: number of images that were lost since the last image
        :param max_gap_s: longest time between two stamps, seconds. After a longer gap or a step
            back the period is unknown.
        """
        step = -1 if self.stamp_ns is None else stamp_ns - self.stamp_ns
        if not 0 <= step <= round(max_gap_s * 1e9):
            return Period(stamp_ns)
        if not step:
            return self
        return Period(stamp_ns, (*self.gaps_ns, step / (1 + dropped))[-MOST_GAPS:])

    @property
    def known_ns(self) -> int | None:
        """Return the median of the gaps, nanoseconds; None before there are `FEWEST_GAPS`."""
        return round(median(self.gaps_ns)) if len(self.gaps_ns) >= FEWEST_GAPS else None


@dataclass(frozen=True)
class StreamState:
    """The state of one stream; immutable."""

    network: Any = None  #: The back-end's recurrent state; None forces a read

    #: The scheduler's score for forecasting the next frame, 0 to 1; NaN if there is none.
    confidence: float = nan
    consecutive_forecasts: int = 0
    frame_size: tuple[int, int] | None = None  #: (height, width) of the last read frame
    reason: str = 'first_frame'  #: Why the next frame must be read if `network` is None

    #: Costs of the frames, for policies with a time budget.
    pace: Pace = field(default_factory=Pace)

    #: Stamp of the last frame, nanoseconds; None before the first, and without stamps.
    stamp_ns: int | None = None
    tracks: Tracks = field(default_factory=Tracks)  #: Objects of the detections
    period: Period = field(default_factory=Period)  #: Time between the images, processed or not

    #: Candidates of the last frame if forecasts keep its scores, else None.
    candidates: Candidates | None = None

    #: All boxes of the last frame above `WEAK_SCORE`, with smoothed scores; else None.
    remembered: Detections | None = None

    @staticmethod
    def initial(reason: str = 'first_frame') -> 'StreamState':
        """
        Return the state of a new or restarted stream.

        :param reason: one of `REASONS`, for the decision on the next frame
        :raises ValueError: if there is no such reason
        """
        if reason not in REASONS:
            raise ValueError(f'reason is {reason!r}, must be one of {REASONS}')
        return StreamState(reason=reason)

    def kept(self, stamp_ns: int, max_gap_s: float) -> 'StreamState':
        """
        Return the state before a frame with this stamp (ns).

        It is reset if the stamp steps back, or follows the last one by more than `max_gap_s`
        seconds.
        """
        if self.stamp_ns is not None and not (
                0 <= stamp_ns - self.stamp_ns <= round(max_gap_s * 1e9)):
            return self.anew('gap')
        return self

    def anew(self, reason: str) -> 'StreamState':
        """Return the state of `initial`, but do not reuse numbers of objects."""
        return replace(StreamState.initial(reason), tracks=self.tracks.anew(), period=self.period)

    def arrived(self, stamp_ns: int, dropped: int = 0, max_gap_s: float = MAX_GAP_S
                ) -> 'StreamState':
        """Return the state after the arrival of an image; parameters as in `Period.after`."""
        return replace(self, period=self.period.after(stamp_ns, dropped, max_gap_s))

    def elapsed_s(self, stamp_ns: int) -> float:
        """Return the seconds since the last frame; a repeated stamp counts as 1 ms later."""
        if self.stamp_ns is None:
            return 1.0
        return max(stamp_ns - self.stamp_ns, 1_000_000) / 1e9


def decide(state: StreamState, frame_size: tuple[int, int] | None, settings: DetectorSettings
           ) -> Decision:
    """
    Decide whether a frame is read or forecast.

    :param state: state of the stream before the frame
    :param frame_size: (height, width) of the frame; None if it is not known
    """
    policy = settings.policy
    kind, reason = READ, policy.reason
    if state.network is None:
        reason = state.reason
    elif frame_size is not None and frame_size != state.frame_size:
        reason = 'size_changed'
    else:
        if policy.forecast(state.confidence, state.consecutive_forecasts):
            kind = FORECAST
        elif not state.pace.affords_read(settings.budget_ms):
            kind, reason = FORECAST, 'budget'
        elif reason == 'scheduler' and isnan(state.confidence):
            reason = 'second_frame'
        if kind == FORECAST and (
                state.consecutive_forecasts >= settings.max_consecutive_forecasts):
            kind, reason = READ, 'max_consecutive'
    consecutive = state.consecutive_forecasts + 1 if kind == FORECAST else 0
    return Decision(kind, reason, state.confidence, policy.threshold, consecutive)


def _mean(before: float, now: float) -> float:
    return now if isnan(before) else before + WEIGHT * (now - before)
