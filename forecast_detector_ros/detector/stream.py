# SPDX-License-Identifier: Apache-2.0
"""One camera's frames in the order of their stamps: when its recurrent state is worth nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .detector import Detector, StepResult, StreamState
from .settings import DetectorSettings
from ..images.frame import Frame, FrameError

MAX_GAP_S = 1.0
"""Default of the longest step between two stamps that keeps the state, seconds."""


@dataclass(frozen=True)
class CameraState:
    """A stream's state and the stamp that it belongs to; a value that is never changed."""

    stream: StreamState = field(default_factory=StreamState.initial)
    stamp_ns: int | None = None
    """Of the last frame that was processed, nanoseconds; None before the first."""


def step_stamped(detector: Detector, frame: Frame, stamp_ns: int, before: CameraState,
                 settings: DetectorSettings, max_gap_s: float = MAX_GAP_S
                 ) -> tuple[StepResult, CameraState]:
    """
    Process one frame of a camera, live or out of a bag.

    Parameters
    ----------
    detector:
        Shared by all cameras.
    frame:
        Loaded only if it is read.
    stamp_ns:
        Of the image's header, nanoseconds.
    before:
        State of the camera; after a frame that fails it is still the right one.
    settings:
        Policy, thresholds and limits.
    max_gap_s:
        Seconds; a stamp before the last one, or further behind it, loses the recurrent state,
        and the decision's reason is ``gap``.

    Raises
    ------
    FrameError
        If the frame is read and cannot be loaded.

    """
    result, after = detector.step(frame, _kept(before, stamp_ns, max_gap_s), settings,
                                  _elapsed(before, stamp_ns))
    return result, CameraState(after, stamp_ns)


def step_stamped_many(detector: Detector, frames: Sequence[Frame], stamps_ns: Sequence[int],
                      before: Sequence[CameraState], settings: DetectorSettings,
                      max_gap_s: float = MAX_GAP_S
                      ) -> list[tuple[StepResult, CameraState] | FrameError]:
    """
    Process one frame of each of several cameras, those with the same decision as one batch.

    The arguments are those of `step_stamped`, one for each camera; the result has for each what
    `step_stamped` returns, or the error for which its frame cannot be used.
    """
    states = [_kept(state, stamp_ns, max_gap_s)
              for state, stamp_ns in zip(before, stamps_ns, strict=True)]
    return [outcome if isinstance(outcome, FrameError)
            else (outcome[0], CameraState(outcome[1], stamp_ns))
            for outcome, stamp_ns in zip(
                detector.step_many(frames, states, settings, [
                    _elapsed(state, stamp_ns) for state, stamp_ns in zip(before, stamps_ns)]),
                stamps_ns)]


def _elapsed(before: CameraState, stamp_ns: int) -> float:
    """Give the seconds since a camera's last frame; a stamp that repeats counts as 1 ms later."""
    if before.stamp_ns is None:
        return 1.0
    return max(stamp_ns - before.stamp_ns, 1_000_000) / 1e9


def _kept(before: CameraState, stamp_ns: int, max_gap_s: float) -> StreamState:
    """Give the state that is left of a camera's when a frame of this stamp comes."""
    if before.stamp_ns is not None and not (
            0 <= stamp_ns - before.stamp_ns <= round(max_gap_s * 1e9)):
        return StreamState.initial('gap')
    return before.stream
