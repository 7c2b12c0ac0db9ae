# SPDX-License-Identifier: Apache-2.0
"""One camera: its topic, its recurrent state, and what was counted about it."""
from __future__ import annotations

from typing import Any

from .camera_statistics import CameraStatistics
from .drops import DropCounter
from ..runtime.detector import Detector, StepResult, StreamState
from ..runtime.frame import Frame
from ..runtime.image_messages import compressed_frame, image_frame
from ..runtime.settings import DetectorSettings
from ..runtime.stream import CameraState, step_stamped


class CameraStream:
    """
    The images of one camera, in the order in which they come.

    Parameters
    ----------
    name:
        Base topic, resolved.
    topic:
        The topic that is subscribed, resolved: the base topic, or its ``/compressed``.
    compressed:
        Whether the messages are CompressedImage instead of Image.
    max_gap_s:
        Seconds between two stamps from which on the recurrent state is worth nothing.
    now:
        Seconds of the node's clock.

    """

    def __init__(self, name: str, topic: str, compressed: bool, max_gap_s: float,
                 now: float) -> None:
        """Start without a state: the first frame is read."""
        self.name = name
        self.topic = topic
        self.drops = DropCounter()
        self.statistics = CameraStatistics(now)
        self._make_frame = compressed_frame if compressed else image_frame
        self._max_gap_s = max_gap_s
        self._state = CameraState()

    def step(self, message: Any, detector: Detector, settings: DetectorSettings
             ) -> tuple[StepResult, Frame]:
        """
        Process one image message; return the result and the frame it was made from.

        Raises FrameError for a message that cannot be used; the stream is then as it was.
        """
        frame = self._make_frame(message)
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        result, self._state = step_stamped(
            detector, frame, stamp, self._state, settings, self._max_gap_s)
        return result, frame

    def restart(self, reason: str = 'first_frame') -> None:
        """Forget the recurrent state; `reason`, one of `REASONS`, explains the next read."""
        self._state = CameraState(StreamState.initial(reason))
