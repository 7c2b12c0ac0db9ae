# SPDX-License-Identifier: Apache-2.0
"""What a camera carries from frame to frame, and the decision that is made of it."""

from dataclasses import dataclass, field, replace
from math import isfinite, isnan, nan
from typing import Any

from .policy import Decision, FORECAST, READ, REASONS
from .settings import DetectorSettings
from .tracks import Tracks

MAX_GAP_S = 1.0
"""Default of the longest step between two stamps that keeps the state, seconds."""

WEIGHT = 0.2
"""Of the newest cost in the running mean: about the last ten reads count."""


@dataclass(frozen=True)
class Pace:
    """Measured costs and saved time of one stream; a value that is never changed."""

    read_ms: float = nan
    """Running mean of what a read frame costs, milliseconds; NaN before the first."""

    forecast_ms: float = nan
    """The same of a forecast frame."""

    saved_ms: float = 0.0
    """
    Time that the frames so far have left over.

    Never more than one read costs, so that a quiet time is not followed by a long row of reads;
    nor less than its negative, so that forced reads and interruptions are soon forgotten.
    """

    def affords_read(self, budget_ms: float) -> bool:
        """
        Tell whether a read keeps the mean cost of the frames within the budget.

        Parameters
        ----------
        budget_ms:
            What a frame may cost on average, milliseconds; infinite for no limit.

        """
        return isnan(self.read_ms) or self.saved_ms + budget_ms >= self.read_ms

    def after(self, read: bool, cost_ms: float, budget_ms: float) -> 'Pace':
        """
        Give the pace after a frame.

        Parameters
        ----------
        read:
            Whether the frame was read.
        cost_ms:
            What it cost, milliseconds.
        budget_ms:
            As for `affords_read`.

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


@dataclass(frozen=True)
class StreamState:
    """What one camera carries from frame to frame; a value that is never changed."""

    network: Any = None
    """The back-end's recurrent state; None forces a read."""

    confidence: float = nan
    """The scheduler's score for forecasting the next frame; NaN where it has none."""

    consecutive_forecasts: int = 0
    frame_size: tuple[int, int] | None = None
    """(height, width) of the last frame that was read."""

    reason: str = 'first_frame'
    """Why the next frame must be read, when `network` is None."""

    pace: Pace = field(default_factory=Pace)
    """What the stream's frames have cost, for the policies that look at time."""

    stamp_ns: int | None = None
    """Of the last frame, nanoseconds; None before the first, and of frames without stamps."""

    tracks: Tracks = field(default_factory=Tracks)
    """The objects that its detections show."""

    @staticmethod
    def initial(reason: str = 'first_frame') -> 'StreamState':
        """
        Give the state of a stream that starts, or starts anew.

        Parameters
        ----------
        reason:
            One of `REASONS`, told in the next frame's decision.

        Raises
        ------
        ValueError
            If there is no such reason.

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
        return replace(StreamState.initial(reason), tracks=self.tracks.anew())

    def elapsed_s(self, stamp_ns: int) -> float:
        """Give the seconds since the last frame; a stamp that repeats counts as 1 ms later."""
        if self.stamp_ns is None:
            return 1.0
        return max(stamp_ns - self.stamp_ns, 1_000_000) / 1e9


def decide(state: StreamState, frame_size: tuple[int, int] | None, settings: DetectorSettings
           ) -> Decision:
    """
    Decide whether a frame is read or forecast.

    Parameters
    ----------
    state:
        State of the stream before the frame.
    frame_size:
        (height, width) of the frame, or None when it is not known.
    settings:
        Policy and limits.

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
