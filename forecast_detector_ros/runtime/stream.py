# SPDX-License-Identifier: Apache-2.0
"""One camera's frames in the order of their stamps: when its recurrent state is worth nothing."""

from dataclasses import dataclass, field

from .detector import Detector, StepResult, StreamState
from .frame import Frame
from .settings import DetectorSettings

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
    state = before.stream
    if before.stamp_ns is not None and not (
            0 <= stamp_ns - before.stamp_ns <= round(max_gap_s * 1e9)):
        state = StreamState.initial('gap')
    result, after = detector.step(frame, state, settings)
    return result, CameraState(after, stamp_ns)
