# SPDX-License-Identifier: Apache-2.0
"""One camera: its topic, its stream state and its statistics."""
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

_UNKNOWN = 2**64 - 1  #: Sequence number that rmw reports if the middleware has none


class DropCounter:
    """
    Finds gaps in the sequence numbers of each publisher.

    The subscription keeps only the newest image. The middleware replaces images that arrive
    during processing and does not report them: Fast DDS raises no ``message_lost`` event. The
    sequence numbers show both these images and those lost in transport.
    """

    def __init__(self) -> None:
        self._last: dict[Any, int] = {}

    def dropped_before(self, info: Mapping[str, Any]) -> int:
        """
        Return how many images were dropped between the previous one and this one.

        `info` is the MessageInfo that rclpy passes to a subscription's callback. The result is 0
        for the first image of a publisher, and if the middleware has no sequence numbers.
        """
        number = info.get('publication_sequence_number')
        if number is None or number == _UNKNOWN:
            return 0
        # rclpy of Jazzy does not name the publisher: one publisher per topic is assumed.
        publisher = info.get('publisher_gid')
        key = bytes(publisher['data']) if publisher else None
        previous = self._last.get(key)
        self._last[key] = number
        return max(0, number - previous - 1) if previous is not None else 0

    def forget(self) -> None:
        """Forget all publishers: images sent without a subscription are not drops."""
        self._last.clear()


_LOG = logging.getLogger(__name__)


class ImageBridge:
    """
    Converts sensor_msgs/Image to BGR with cv_bridge, so that all nodes of a robot agree.

    Unknown encodings and images with padded rows are left to the caller. The Python part of
    cv_bridge would read padded rows wrongly.
    """

    def __init__(self) -> None:
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
        Convert a message with a checked header.

        :param message: a sensor_msgs/Image
        :param row_bytes: bytes of a row without padding
        :returns: ``(height, width, 3)`` uint8 BGR, or None if cv_bridge cannot convert it
        """
        encoding = message.encoding
        if self._bridge is None or message.step != row_bytes or encoding in self._unknown:
            return None
        try:
            return self._bridge.imgmsg_to_cv2(message, 'bgr8')
        except Exception:  # noqa: B902
            # Versions of cv_bridge raise CvBridgeError, KeyError, AttributeError and others.
            _LOG.info('cv_bridge does not convert %s: OpenCV does', encoding)
            self._unknown.add(encoding)
            return None


@dataclass(frozen=True)
class Waiting:
    """An image that was received and not yet processed."""

    message: Any
    frame: Frame
    start: float  #: Time of receipt, seconds of `time.perf_counter`


class CameraStream:
    """
    The images of one camera, in the order in which they come.

    :param name: base topic, resolved
    :param topic: the topic that is subscribed, resolved: the base topic, or its ``/compressed``
    :param compressed: whether the messages are CompressedImage instead of Image
    :param now: seconds of the node's clock
    :param max_pixels: most pixels that an image may have
    :param max_gap_s: longest time between two stamps that keeps the state, seconds
    """

    def __init__(self, name: str, topic: str, compressed: bool, now: float,
                 max_pixels: int = MAX_IMAGE_PIXELS, max_gap_s: float = MAX_GAP_S) -> None:
        """Start with an empty state, so that the first frame is read."""
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
        Keep an image message as the waiting one; return whether it replaced another.

        `start` is its time of receipt, seconds of `time.perf_counter`. `dropped` is the number of
        images lost before it. Raises FrameError for a message with contradictory fields, which
        replaces nothing.
        """
        frame = self._make_frame(message)
        self._state = self._state.arrived(stamp_ns(message), dropped, self._max_gap_s)
        replaced = self.waiting is not None
        self.waiting = Waiting(message, frame, start)
        return replaced

    def look_ahead(self, detector: Detector, settings: DetectorSettings
                   ) -> tuple[int, Detections] | None:
        """
        Forecast the detections one period after the last processed image.

        Returns the stamp of that time, nanoseconds, and the detections. Returns None if no image
        was processed or the period is unknown.
        """
        period_ns, last_ns = self._state.period.known_ns, self._state.stamp_ns
        if period_ns is None or last_ns is None:
            return None
        result = look_ahead(detector, self._state, settings, period_ns / 1e9)
        return last_ns + period_ns, result.detections

    def restart(self, reason: str = 'first_frame') -> None:
        """Forget state and period; `reason`, one of `REASONS`, is that of the next read."""
        self._state = replace(self._state.anew(reason), period=Period())


def step_waiting(streams: Sequence[CameraStream], detector: Detector, settings: DetectorSettings,
                 max_gap_s: float) -> list[tuple[CameraStream, Waiting, StepResult | Exception]]:
    """
    Process the waiting images, at most one of each camera; equal decisions form one batch.

    `max_gap_s` is the longest time between two stamps that keeps the recurrent state, seconds. An
    unusable image is returned with its FrameError, and an image on which the back-end fails with
    the exception. The state of its stream does not change.
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
    # A library or a device may raise anything. That must cost a frame and not the process.
    except Exception as error:  # noqa: B902
        if len(taken) == 1:
            return [error]
    # Each frame is tried alone, so that one camera does not cost the others their frames.
    return [outcome for item in taken
            for outcome in _outcomes([item], detector, settings, max_gap_s)]
