# SPDX-License-Identifier: Apache-2.0
"""Record cameras with their detections and decisions: annotated videos and an MCAP bag."""
from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
import os
from pathlib import Path
import sys
import time
from typing import Any, TextIO

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from .parameters import ParameterError, resolved_topic
from .program import (
    declare_fixed,
    GuardedExecutor,
    SafeParameterService,
    warn_of_unknown_parameters,
)
from .recording import BagError, Recording, RecordingError
from .stop_signal import StopSignal
from ..errors import cut
from ..recording.output_files import VideoError
from ..recording.recorded_frame import RecordedFrame

# Reliable if all cameras offer it, so that no image is missing in the video.
IMAGE_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=30,
                       reliability=ReliabilityPolicy.BEST_AVAILABLE)
DETECTIONS_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100,
                            reliability=ReliabilityPolicy.RELIABLE)
DECISION_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100,
                          reliability=ReliabilityPolicy.BEST_EFFORT)
DIAGNOSTICS_QOS = QoSProfile(depth=10)

# Images may still be queued when the camera has gone. The recording ends after this time without
# a message, or after the longer one if an image has no answer yet.
QUIET_S = 0.5
FAREWELL_S = 3.0
SIGNAL_LATENCY_S = 0.1

#: Period of flushing the bag, seconds; a killed process loses at most this time.
FLUSH_S = 1.0

#: Errors that end the recorder with one line
MISTAKES = (ParameterError, RecordingError, BagError, VideoError)


class RecorderNode(Node):
    """Subscribes to cameras and their detector, and records their messages."""

    def __init__(self) -> None:
        """Declare the parameters, open the recording and subscribe; raises MISTAKES."""
        super().__init__('recorder', start_parameter_services=False)
        self._parameter_services = SafeParameterService(self)
        output = declare_fixed(
            self, 'output', 'recording',
            'Folder for annotated.mkv and the MCAP bag; it must not hold a recording yet')
        topics = declare_fixed(
            self, 'image_topics', ['image_raw'], 'Base topics of the cameras to record')
        transport = declare_fixed(
            self, 'image_transport', 'raw', 'What the cameras publish: raw or compressed',
            constraints='raw | compressed')
        rate = declare_fixed(
            self, 'rate', 0.0, 'Frames per second of the video; 0.0: measured from the stamps',
            (0.0, 1000.0))
        self._wait_for_detector: bool = declare_fixed(
            self, 'wait_for_detector', True,
            'Subscribe to the images only when a detector is there, so that no frame of a '
            'camera that waits for its subscribers is lost')
        self.stop_with_camera: bool = declare_fixed(
            self, 'stop_with_camera', False,
            'Finish and exit when all recorded cameras have gone')
        frame_log = declare_fixed(
            self, 'frame_log', '',
            "File for one line of JSON per frame; '-': the standard output; empty: none")
        with_diagnostics = declare_fixed(
            self, 'record_diagnostics', True, 'Also put /diagnostics into the bag')
        warn_of_unknown_parameters(self)
        if transport not in ('raw', 'compressed'):
            raise RecordingError(
                f"image_transport: '{cut(transport)}' is neither 'raw' nor 'compressed'")
        compressed = transport == 'compressed'
        self._image_class = CompressedImage if compressed else Image
        # The name of a camera is its subscribed topic after remapping.
        self._topics = {
            resolved_topic(self, 'image_topics', topic).removesuffix('/compressed'): topic
            for topic in (f'{topic}/compressed' if compressed else topic for topic in topics)}
        if not self._topics or len(self._topics) < len(topics):
            raise RecordingError(f'image_topics: {cut(topics)}: no topic, or one twice')
        self._frame_log = _open_log(frame_log)
        self.recording = Recording(output, list(self._topics), rate, self._log_frame)
        # Truncated only now, so that a refused recording keeps the log of an earlier one.
        if self._frame_log is not sys.stdout and Path(frame_log).is_file():
            os.truncate(frame_log, 0)
        for path in self.recording.remains:
            self.get_logger().warning(f'kept the unfinished file of an earlier recorder: {path}')
        self.images: list[Subscription] = []
        self._mismatched: set[str] = set()  #: Cameras whose QoS the subscription does not match
        self.arrived = 0
        self.unreadable = 0  #: Messages of the detector that cannot be deserialised
        self._seen: set[str] = set()
        self._detections = self._record(
            Detection2DArray, 'detections', DETECTIONS_QOS, self.recording.add_detections)
        self._decision = self._record(
            DiagnosticArray, 'decision', DECISION_QOS, self.recording.add_decision)
        # Few detectors publish ahead, so the bag has this topic from the first message on.
        self._record(Detection2DArray, 'detections_ahead', DETECTIONS_QOS, late=True)
        if with_diagnostics:
            self._record(DiagnosticArray, '/diagnostics', DIAGNOSTICS_QOS)
        if self._wait_for_detector:
            self.get_logger().info(f'waiting for a detector on {self._detections.topic_name} '
                                   f'and {self._decision.topic_name}')

    def watch(self) -> None:
        """Subscribe to the images once a detector is there, and again if QoS does not match."""
        if self.images:
            self._match()
            return
        if self._wait_for_detector and not (
                self._detections.get_publisher_count()
                and self._decision.get_publisher_count()):
            return
        self.images = [self._subscribe(camera) for camera in self._topics]
        names = ', '.join(images.topic_name for images in self.images)
        self.get_logger().info(f'recording {names} into {self.recording.folder}')

    def cameras_gone(self) -> bool:
        """Return whether there were cameras and all have gone."""
        there = {images.topic_name for images in self.images if images.get_publisher_count()}
        self._seen |= there
        return bool(self._seen) and not there

    def finish(self) -> None:
        """Close the recording and log a summary; raises as `Recording.close`."""
        recording = self.recording
        recording.close()
        if self._frame_log not in (None, sys.stdout):
            self._frame_log.close()
        bag = ', '.join(f'{count} {topic}' for topic, count in recording.bag.counts.items())
        self.get_logger().info(
            f'{recording.counts.frames} frames ({recording.counts.dropped} dropped) '
            f'recorded in {recording.folder}; bag: {bag}')
        for number, what in (
                (recording.counts.undecodable, 'images could not be decoded'),
                (recording.given_up, 'images were written before an answer came'),
                (recording.without_image, 'decisions belong to images that never arrived'),
                (recording.answers.ambiguous, 'detections belong to one of several cameras with '
                 'the same frame_id and stamp, it is not known which'),
                (recording.unsound, 'detections have no class, score or place'),
                (recording.foreign + self.unreadable, 'messages are not of the detector')):
            if number:
                self.get_logger().warning(f'{number} {what}')

    def _record(self, message_class: type, topic: str, qos: QoSProfile,
                forward: Callable[[Any], None] | None = None, late: bool = False
                ) -> Subscription:
        """
        Record the serialised messages of `topic`, and pass each to `forward`.

        The topic is added to the bag at once, or with `late` at the first message.
        """
        def received(data: bytes) -> None:
            if name not in self.recording.bag.counts:
                self.recording.bag.add_topic(name, message_class, qos)
            self.recording.bag.write(name, data, self.get_clock().now().nanoseconds)
            if forward is None:
                return
            self.arrived += 1
            try:
                message: Any = deserialize_message(data, message_class)
            # rclpy raises various errors of its C code: RuntimeError, UnicodeDecodeError, ...
            except Exception:  # noqa: B902
                self.unreadable += 1
            else:
                forward(message)

        try:
            subscription = self.create_subscription(message_class, topic, received, qos, raw=True)
        except RuntimeError as error:  # For example, a remapping gave two topics one name.
            raise RecordingError(f'{topic}: {cut(error, 500)}') from None
        name = subscription.topic_name
        if not late:
            self.recording.bag.add_topic(name, message_class, qos)
        return subscription

    def _subscribe(self, camera: str) -> Subscription:
        topic = self._topics[camera]
        try:
            images = self.create_subscription(
                self._image_class, topic, partial(self._add_image, camera), copy(IMAGE_QOS),
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=lambda _: self._mismatched.add(camera)),
                qos_overriding_options=QoSOverridingOptions.with_default_policies())
        except (RuntimeError, ParameterException) as error:
            raise ParameterError(f'qos_overrides: {error}') from None
        if images.qos_profile.reliability == ReliabilityPolicy.BEST_AVAILABLE and any(
                publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
                for publisher in self.get_publishers_info_by_topic(topic)):
            self.get_logger().info(f'{images.topic_name}: the camera publishes best effort, so '
                                   'images may be missing')
        return images

    def _match(self) -> None:
        """Subscribe again for a best-effort camera, unless the user asks for reliable."""
        for index, (camera, images) in enumerate(zip(self._topics, self.images, strict=True)):
            if camera not in self._mismatched:
                continue
            if images.qos_profile.reliability == ReliabilityPolicy.BEST_AVAILABLE:
                self._seen.discard(images.topic_name)
                self.destroy_subscription(images)
                self.images[index] = self._subscribe(camera)
            else:
                self.get_logger().warning(
                    f'{images.topic_name}: a camera publishes best effort, qos_overrides asks for '
                    'reliable: none of its images comes')
        self._mismatched.clear()

    def _add_image(self, camera: str, message: Image | CompressedImage) -> None:
        self.arrived += 1
        self.recording.add_image(camera, message)

    def _log_frame(self, record: RecordedFrame) -> None:
        if self._frame_log is not None:
            try:
                self._frame_log.write(record.to_line() + '\n')
                self._frame_log.flush()
            except OSError as error:
                # Without the log, closing the recording can still write the rest.
                self._frame_log = None
                raise RecordingError(f'frame_log: cannot be written: '
                                     f'{error.strerror or error}') from None


def _open_log(path: str) -> TextIO | None:
    if not path:
        return None
    if path == '-':
        return sys.stdout
    try:
        return open(path, 'a', encoding='utf-8')
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise RecordingError(f'frame_log: {cut(path)}: {reason}') from None


def run(stop: StopSignal) -> int:
    """Record until a signal or the end of the cameras; raises the errors in MISTAKES."""
    node = RecorderNode()
    executor = GuardedExecutor('recorder', MISTAKES)
    executor.add_node(node)
    try:
        _spin(node, executor, stop)
        node.finish()
    except MISTAKES:
        # Finish what is still possible, and report the first error.
        with suppress(*MISTAKES):
            node.recording.close()
        raise
    finally:
        node.destroy_node()
    return 0


def _spin(node: RecorderNode, executor: GuardedExecutor, stop: StopSignal) -> None:
    quiet_since = None
    flushed = time.monotonic()
    while not stop:
        arrived = node.arrived
        executor.spin_once(timeout_sec=SIGNAL_LATENCY_S)
        if time.monotonic() - flushed > FLUSH_S:
            node.recording.flush()
            flushed = time.monotonic()
        node.watch()
        if not node.stop_with_camera or not node.cameras_gone():
            quiet_since = None
        elif quiet_since is None or node.arrived != arrived:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > (
                FAREWELL_S if node.recording.waiting else QUIET_S):
            return
