# SPDX-License-Identifier: Apache-2.0
"""
The state of a camera from frame to frame, and the decision that follows from it.

Tracks join the detections of one object in successive frames by overlap, class by class, with
boxes that move uniformly, after SORT (Bewley et al. 2016, arXiv:1602.00763). Boxes of forecast
frames keep their numbers, and no track ends there.
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

MIN_IOU = 0.3  #: Overlap from which on two boxes may show one object; SORT's `iou_threshold`

#: Reads that an object may be missing; ByteTrack's buffer (Zhang et al. 2022, section 4.1).
PATIENCE = 30

#: Part of the old velocity in the new one: the mean age of what is known is then two reads.
STEADINESS = 0.5


UNKNOWN = -1  #: In place of a number, of a detection that shows no object known so far


def _empty(*shape: int) -> np.ndarray:
    return np.zeros((0, *shape))


@dataclass(frozen=True)
class Tracks:
    """The objects of one camera; a value that is never changed."""

    next_id: int = 1  #: Number of the next new object; numbers are never used again
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  #: ``(T,)`` int64

    #: ``(T,)`` int64: index of the class; it never changes.
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    #: ``(T, 4)`` float64: where the object was shown last, or has come to since; xyxy, pixels.
    boxes: np.ndarray = field(default_factory=lambda: _empty(4))

    #: ``(T, 4)`` float64: where it was when it was last found on a frame that was read.
    read_boxes: np.ndarray = field(default_factory=lambda: _empty(4))

    #: ``(T,)`` float64: time since then, in the unit of `elapsed`.
    since: np.ndarray = field(default_factory=lambda: _empty())

    #: ``(T, 2)`` float64: of the centre, pixels in that time.
    velocities: np.ndarray = field(default_factory=lambda: _empty(2))

    #: ``(T,)`` int64: reads in a row that did not find it.
    missed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def anew(self) -> 'Tracks':
        """Forget all objects; numbers go on."""
        return Tracks(self.next_id)

    def follow(self, found: Detections, read: bool, elapsed: float = 1.0
               ) -> tuple[np.ndarray, 'Tracks']:
        """
        Give each detection of the next frame a number.

        :param read: whether the frame was read
        :param elapsed: time since the frame before, above 0, in any unit
        :returns: ``(N,)`` int64, a number for each detection, all different; and the next value
        """
        if not len(found) and not len(self.ids):
            return np.zeros(0, np.int64), self
        boxes = found.boxes.astype(np.float64)
        since = self.since + elapsed
        # Where boxes are carried forward they are there already; where they stayed, or the object
        # was not found, they have to come from the last read.
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
        Give the numbers of a frame that does not exist yet, ``(N,)`` int64; -1 for what is new.

        The parameters are those of `follow`.
        """
        ids, _ = self.follow(found, False, elapsed)
        return np.where(ids < self.next_id, ids, UNKNOWN)

    def _known(self) -> np.ndarray:
        """Tell which velocities were ever measured."""
        return np.any(self.velocities != 0.0, axis=1)


def _moved(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return boxes + np.concatenate((shift, shift), 1)


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


MAX_GAP_S = 1.0  #: Default of the longest step between two stamps that keeps the state, seconds

WEIGHT = 0.2  #: Of the newest cost in the running mean: about the last ten reads count


@dataclass(frozen=True)
class Pace:
    """Measured costs and saved time of one stream; a value that is never changed."""

    #: Running mean of the cost of a read frame, milliseconds; NaN before the first.
    read_ms: float = nan
    forecast_ms: float = nan  #: The same of a forecast frame

    #: Time left over by the frames so far, at most the cost of one read, so that a quiet time is
    #: not followed by a long row of reads. At least its negative, so that forced reads and
    #: interruptions are soon forgotten.
    saved_ms: float = 0.0

    def affords_read(self, budget_ms: float) -> bool:
        """
        Tell whether a read keeps the mean cost of the frames within the budget.

        :param budget_ms: what a frame may cost on average, milliseconds; infinite for no limit
        """
        return isnan(self.read_ms) or self.saved_ms + budget_ms >= self.read_ms

    def after(self, read: bool, cost_ms: float, budget_ms: float) -> 'Pace':
        """
        Give the pace after a frame.

        :param read: whether the frame was read
        :param cost_ms: what it cost, milliseconds
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


FEWEST_GAPS = 3  #: Below it one dropped frame could pass for the period

#: Of which the median is taken: it stands up to four drops without a trace, and follows a camera
#: that changes its rate within five frames.
MOST_GAPS = 9


@dataclass(frozen=True)
class Period:
    """The time between the images of one camera, from their stamps; a value, never changed."""

    stamp_ns: int | None = None  #: Of the last image
    gaps_ns: tuple[float, ...] = ()  #: Between the last images, at most `MOST_GAPS`

    def after(self, stamp_ns: int, dropped: int = 0, max_gap_s: float = MAX_GAP_S) -> 'Period':
        """
        Give the period after an image.

        :param stamp_ns: of the image, nanoseconds. One that repeats the last stamp tells nothing.
        :param dropped: images that were sent in between and never came
        :param max_gap_s: seconds; a stamp before the last one, or further behind it, makes the
            period unknown again, as it loses a stream's state
        """
        step = -1 if self.stamp_ns is None else stamp_ns - self.stamp_ns
        if not 0 <= step <= round(max_gap_s * 1e9):
            return Period(stamp_ns)
        if not step:
            return self
        return Period(stamp_ns, (*self.gaps_ns, step / (1 + dropped))[-MOST_GAPS:])

    @property
    def known_ns(self) -> int | None:
        """Give the median of the gaps, nanoseconds; None before there are `FEWEST_GAPS`."""
        return round(median(self.gaps_ns)) if len(self.gaps_ns) >= FEWEST_GAPS else None


@dataclass(frozen=True)
class StreamState:
    """The state of one camera; a value that is never changed."""

    network: Any = None  #: The back-end's recurrent state; None forces a read

    #: The scheduler's score for forecasting the next frame; NaN where it has none.
    confidence: float = nan
    consecutive_forecasts: int = 0
    frame_size: tuple[int, int] | None = None  #: (height, width) of the last frame that was read
    reason: str = 'first_frame'  #: Why the next frame must be read, when `network` is None

    #: What the stream's frames have cost, for the policies that look at time.
    pace: Pace = field(default_factory=Pace)

    #: Of the last frame, nanoseconds; None before the first, and of frames without stamps.
    stamp_ns: int | None = None
    tracks: Tracks = field(default_factory=Tracks)  #: The objects that its detections show
    period: Period = field(default_factory=Period)  #: Between its images, whether processed or not

    #: Of the last frame, where a forecast keeps the scores; None where it does not.
    candidates: Candidates | None = None

    #: All boxes of the last frame above `WEAK_SCORE`, with smoothed scores; None where scores are
    #: not smoothed.
    remembered: Detections | None = None

    @staticmethod
    def initial(reason: str = 'first_frame') -> 'StreamState':
        """
        Give the state of a stream that starts, or starts anew.

        :param reason: one of `REASONS`, told in the next frame's decision
        :raises ValueError: if there is no such reason
        """
        if reason not in REASONS:
            raise ValueError(f'reason is {reason!r}, must be one of {REASONS}')
        return StreamState(reason=reason)

    def kept(self, stamp_ns: int, max_gap_s: float) -> 'StreamState':
        """
        Give what is left of the state when a frame of this stamp comes.

        A stamp before the last one, or more than `max_gap_s` seconds behind it, loses it.
        """
        if self.stamp_ns is not None and not (
                0 <= stamp_ns - self.stamp_ns <= round(max_gap_s * 1e9)):
            return self.anew('gap')
        return self

    def anew(self, reason: str) -> 'StreamState':
        """Start anew as `initial` does, but give no number of an object a second time."""
        return replace(StreamState.initial(reason), tracks=self.tracks.anew(), period=self.period)

    def arrived(self, stamp_ns: int, dropped: int = 0, max_gap_s: float = MAX_GAP_S
                ) -> 'StreamState':
        """Give the state when an image has come, before it is processed; as `Period.after`."""
        return replace(self, period=self.period.after(stamp_ns, dropped, max_gap_s))

    def elapsed_s(self, stamp_ns: int) -> float:
        """Give the seconds since the last frame; a stamp that repeats counts as 1 ms later."""
        if self.stamp_ns is None:
            return 1.0
        return max(stamp_ns - self.stamp_ns, 1_000_000) / 1e9


def decide(state: StreamState, frame_size: tuple[int, int] | None, settings: DetectorSettings
           ) -> Decision:
    """
    Decide whether a frame is read or forecast.

    :param state: state of the stream before the frame
    :param frame_size: (height, width) of the frame, or None when it is not known
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
