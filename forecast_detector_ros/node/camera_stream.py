# SPDX-License-Identifier: Apache-2.0
"""One camera: its topic, its recurrent state, and what was counted about it."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
import logging
from typing import Any

import numpy as np

from .diagnostics import CameraStatistics
from ..detector.detector import Detector, look_ahead, step_stamped_many, StepResult
from ..detector.processing import Detections
from ..detector.settings import DetectorSettings
from ..detector.stream import MAX_GAP_S, Period, StreamState
from ..images.frame import Frame
from ..images.image_messages import compressed_frame, image_frame, MAX_IMAGE_PIXELS
from ..recording.result_messages import stamp_ns

_UNKNOWN = 2**64 - 1  #: What rmw reports as the sequence number when the middleware has none


class DropCounter:
    """
    Finds gaps in the sequence numbers of each publisher.

    The subscription keeps only the newest image. The middleware replaces images that come while
    one is processed, and does not report it: Fast DDS raises no `message_lost` for them. The
    publisher's sequence number, which comes with every message, shows these and the images lost on
    the way.
    """

    def __init__(self) -> None:
        """Know no publisher yet."""
        self._last: dict[Any, int] = {}

    def dropped_before(self, info: Mapping[str, Any]) -> int:
        """
        Return how many images were dropped between the previous one and this one.

        `info` is the MessageInfo that rclpy hands to a subscription's callback. The first image
        of a publisher has no predecessor: what was sent before the node listened is no drop. 0
        where the middleware has no sequence numbers.
        """
        number = info.get('publication_sequence_number')
        if number is None or number == _UNKNOWN:
            return 0
        # Jazzy's rclpy does not tell the publisher; there, one publisher a topic is assumed.
        publisher = info.get('publisher_gid')
        key = bytes(publisher['data']) if publisher else None
        previous = self._last.get(key)
        self._last[key] = number
        return max(0, number - previous - 1) if previous is not None else 0

    def forget(self) -> None:
        """Start anew: what is sent while nobody subscribes is no drop."""
        self._last.clear()


_LOG = logging.getLogger(__name__)


class ImageBridge:
    """
    Converts sensor_msgs/Image to BGR with cv_bridge, so that all nodes of a robot see alike.

    On a robot that is the system's cv_bridge. What it does not know, and images with padded rows,
    which its Python part would read askew, are left to the caller.
    """

    def __init__(self) -> None:
        """Look for cv_bridge; a machine may do without."""
        self._unknown: set[str] = set()
        try:
            from cv_bridge import CvBridge
        except ImportError as error:
            _LOG.info('cv_bridge is missing (%s): all images are converted by OpenCV', error)
            self._bridge: Any = None
        else:
            self._bridge = CvBridge()

    def __call__(self, message: Any, row_bytes: int) -> np.ndarray | None:
        """
        Convert a message whose header is known to be sound.

        :param message: a sensor_msgs/Image
        :param row_bytes: what a row takes without padding
        :returns: ``(height, width, 3)`` uint8 BGR, or None where cv_bridge cannot tell
        """
        encoding = message.encoding
        if self._bridge is None or message.step != row_bytes or encoding in self._unknown:
            return None
        try:
            return self._bridge.imgmsg_to_cv2(message, 'bgr8')
        except Exception:  # noqa: B902
            # Ports raise CvBridgeError, KeyError, AttributeError and others for the same thing.
            _LOG.info('cv_bridge does not convert %s: OpenCV does', encoding)
            self._unknown.add(encoding)
            return None


@dataclass(frozen=True)
class Waiting:
    """An image that was taken and not yet processed."""

    message: Any
    frame: Frame
    start: float  #: When it was taken, seconds of `time.perf_counter`


class CameraStream:
    """
    The images of one camera, in the order in which they come.

    :param name: base topic, resolved
    :param topic: the topic that is subscribed, resolved: the base topic, or its ``/compressed``
    :param compressed: whether the messages are CompressedImage instead of Image
    :param now: seconds of the node's clock
    :param max_pixels: most pixels that an image may have
    :param max_gap_s: longest step between two stamps that keeps the camera's state, seconds
    """

    def __init__(self, name: str, topic: str, compressed: bool, now: float,
                 max_pixels: int = MAX_IMAGE_PIXELS, max_gap_s: float = MAX_GAP_S) -> None:
        """Start without a state: the first frame is read."""
        self.name = name
        self.topic = topic
        self.drops = DropCounter()
        self.statistics = CameraStatistics(now)
        self._make_frame: Callable[[Any], Frame] = (
            partial(compressed_frame, max_pixels=max_pixels) if compressed
            else partial(image_frame, convert=ImageBridge(), max_pixels=max_pixels))
        self._max_gap_s = max_gap_s
        self._state = StreamState()
        self.waiting: Waiting | None = None

    def put(self, message: Any, start: float, dropped: int = 0) -> bool:
        """
        Let an image message wait to be processed; tell whether it took another one's place.

        `start` is when it was taken, seconds of `time.perf_counter`, `dropped` how many images
        before it were lost. Raises FrameError for a message that contradicts itself; the one that
        waited before it then goes on waiting.
        """
        frame = self._make_frame(message)
        self._state = self._state.arrived(stamp_ns(message), dropped, self._max_gap_s)
        replaced = self.waiting is not None
        self.waiting = Waiting(message, frame, start)
        return replaced

    def look_ahead(self, detector: Detector, settings: DetectorSettings
                   ) -> tuple[int, Detections] | None:
        """
        Say what the camera will show one period after the image that was processed last.

        Returns the stamp of that time, nanoseconds, and the detections; None as long as no image
        was processed or the period is not known.
        """
        period_ns, last_ns = self._state.period.known_ns, self._state.stamp_ns
        if period_ns is None or last_ns is None:
            return None
        result = look_ahead(detector, self._state, settings, period_ns / 1e9)
        return last_ns + period_ns, result.detections

    def restart(self, reason: str = 'first_frame') -> None:
        """Forget state and period; `reason`, one of `REASONS`, explains the next read."""
        self._state = replace(self._state.anew(reason), period=Period())


def step_waiting(streams: Sequence[CameraStream], detector: Detector, settings: DetectorSettings,
                 max_gap_s: float) -> list[tuple[CameraStream, Waiting, StepResult | Exception]]:
    """
    Process the images that wait, one of each camera at most, those alike as one batch.

    `max_gap_s` is the longest step between two stamps of a camera that keeps its state, seconds. A
    message that cannot be used comes with its FrameError, one on which the
    back-end fails with whatever it raised; its stream is then as it was.
    """
    taken = [(stream, stream.waiting) for stream in streams if stream.waiting is not None]
    for stream, _ in taken:
        stream.waiting = None
    results: list[tuple[CameraStream, Waiting, StepResult | Exception]] = []
    for (stream, waiting), outcome in zip(
            taken, _outcomes(taken, detector, settings, max_gap_s), strict=True):
        if isinstance(outcome, Exception):
            results.append((stream, waiting, outcome))
        else:
            result, stream._state = outcome
            results.append((stream, waiting, result))
    return results


def _outcomes(taken: Sequence[tuple[CameraStream, Waiting]], detector: Detector,
              settings: DetectorSettings, max_gap_s: float
              ) -> Sequence[tuple[StepResult, StreamState] | Exception]:
    try:
        return step_stamped_many(
            detector, [waiting.frame for _, waiting in taken],
            [stamp_ns(waiting.message) for _, waiting in taken],
            [stream._state for stream, _ in taken], settings, max_gap_s)
    # Whatever a library or a device raises; it costs a frame, not the process.
    except Exception as error:  # noqa: B902
        if len(taken) == 1:
            return [error]
    # The frame of one camera is not to cost the others theirs.
    return [outcome for item in taken
            for outcome in _outcomes([item], detector, settings, max_gap_s)]
