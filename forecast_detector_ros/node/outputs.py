# SPDX-License-Identifier: Apache-2.0
"""The detector node's publishers, with their topics and QoS."""
from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from copy import copy
from math import isnan
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionClass, VisionInfo

from .camera_stream import CameraStream
from ..detector.detector import Detector, StepResult
from ..detector.policy import Decision
from ..detector.processing import Detections
from ..detector.settings import DetectorSettings
from ..images.frame import as_bgr, encode_jpeg, Pixels
from ..recording.drawing import annotate as draw
from ..recording.recorded_frame import RecordedFrame
from ..recording.result_messages import decision_values, LAST_SECOND, MessageBuilder


class OccasionalGroup(MutuallyExclusiveCallbackGroup):
    """
    A callback group that can be closed; its events then wait until it is open again.

    Before every wait, rclpy's executor collects all entities in Python. Among them are two events
    of each publisher, which only warn of subscribers with incompatible QoS.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_open = True

    def can_execute(self, entity: Any) -> bool:
        """Return whether the executor may wait for `entity` and run it."""
        return self.is_open and super().can_execute(entity)


class Idle:
    """Decides that a node rests after some time without subscribers."""

    def __init__(self, patience_s: float, now: float) -> None:
        """Begin awake at `now`, seconds of the steady clock; rest after `patience_s` seconds."""
        self._patience_s = patience_s
        self._last_heard = now

    def rests(self, heard: bool, now: float) -> bool:
        """Return whether to rest at `now`; `heard`: whether there are subscribers."""
        if heard:
            self._last_heard = now
        return now - self._last_heard >= self._patience_s


def draw_answer(pixels: Pixels, found: Detections, labels: Sequence[str], decision: Decision
                ) -> np.ndarray:
    """
    Return a BGR copy, ``(H, W, 3)`` uint8, contiguous, with boxes, names, scores and decision.

    The boxes of `found` are in pixels of this picture and are clipped to it.
    """
    picture = (np.array(pixels.array, order='C') if pixels.order == 'bgr'
               else as_bgr(pixels.array, pixels.order))
    record = RecordedFrame(
        stamp_ns=0, kind=decision.kind, reason=decision.reason,
        labels=tuple(labels[label] for label in found.labels.tolist()),
        scores=tuple(found.scores.tolist()))
    confidence = '' if isnan(decision.confidence) else f' {decision.confidence:.2f}'
    return draw(picture, found.boxes, record,
                f'{decision.kind} ({decision.reason}){confidence}')


_RELIABLE = QoSProfile(depth=10)

_BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)

# Reliable, because viewers ask for it by default; best-effort subscribers match, too. With depth 1
# a slow viewer does not delay the node: a newer picture replaces an unsent one.
_NEWEST_PICTURE = QoSProfile(depth=1)

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Outputs:
    """Publishes the detector's results; lifecycle publishers are silent until activation."""

    def __init__(self, node: LifecycleNode, detector: Detector, ahead: bool = False) -> None:
        """
        Create the publishers of `node` for the results of `detector`.

        `ahead` adds the publisher of detections_ahead. Raises RuntimeError if a parameter
        ``qos_overrides.*`` has an invalid value.
        """
        self._node = node
        self._detector = detector
        self._messages = MessageBuilder()
        overridable = QoSOverridingOptions.with_default_policies()
        # QoS events are checked only with the diagnostics and while there are no images, because
        # checking them before every image costs CPU time.
        self._events = OccasionalGroup()
        with ExitStack() as made:
            def create(kind: type, topic: str, qos: QoSProfile, **options: Any) -> Any:
                publisher: Any = node.create_lifecycle_publisher(
                    kind, topic, qos, callback_group=self._events, **options)
                made.callback(node.destroy_lifecycle_publisher, publisher)
                return publisher

            # rclpy writes overrides into the profile, so each publisher gets a copy.
            self._detections = create(
                Detection2DArray, 'detections', copy(_RELIABLE),
                qos_overriding_options=overridable)
            self._decision = create(
                DiagnosticArray, 'decision', copy(_BEST_EFFORT),
                qos_overriding_options=overridable)
            self._ahead = create(
                Detection2DArray, 'detections_ahead', copy(_RELIABLE),
                qos_overriding_options=overridable) if ahead else None
            self._label_info = create(LabelInfo, 'label_info', _LATCHED)
            self._vision_info = create(VisionInfo, 'vision_info', _LATCHED)
            self._picture = create(
                Image, 'image_annotated', copy(_NEWEST_PICTURE),
                qos_overriding_options=overridable)
            self._jpeg = create(
                CompressedImage, 'image_annotated/compressed', copy(_NEWEST_PICTURE),
                qos_overriding_options=overridable)
            # Not a lifecycle publisher, because an inactive node reports its state here.
            self._diagnostics = node.create_publisher(
                DiagnosticArray, '/diagnostics', 10, callback_group=self._events)
            made.callback(node.destroy_publisher, self._diagnostics)
            # After an error above, the stack has destroyed the publishers made so far.
            self._made = made.pop_all()

    @property
    def topic(self) -> str:
        """Return the resolved name of the detections' topic."""
        return self._detections.topic_name

    def destroy(self) -> None:
        """Destroy all publishers."""
        self._made.close()

    def publish_labels(self, score_threshold: float) -> None:
        """Publish the names of the classes and their origin, latched for late subscribers."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._label_info.publish(LabelInfo(
            header=header, threshold=score_threshold,
            class_map=[VisionClass(class_id=index, class_name=name)
                       for index, name in enumerate(self._detector.labels)]))
        self._vision_info.publish(VisionInfo(
            header=header, method=f'forecast_detector_ros: {self._detector.card.name}',
            database_location=self._label_info.topic_name, database_version=0))

    def publish_detections(self, header: Header, result: StepResult) -> None:
        """Publish the detections of an image with its header, if there are subscribers."""
        self._events.is_open = False
        if self._detections.get_subscription_count():
            self._detections.publish(self._messages.detections(
                header, result.detections, self._detector.labels))

    def publish_decision(self, header: Header, stream: CameraStream, result: StepResult,
                         latency_ms: float, image_age_ms: float, dropped_frames: int) -> None:
        """Publish the decision on an image, if there are subscribers; times are in ms."""
        if self._decision.get_subscription_count():
            self._decision.publish(self._messages.decision(
                header, self._name(stream), stream.topic, result.decision,
                decision_values(result, latency_ms, image_age_ms, dropped_frames)))

    def publish_ahead(self, header: Header, stream: CameraStream, settings: DetectorSettings
                      ) -> None:
        """
        Publish the detections expected one period after an image, if there are subscribers.

        Nothing is published while the camera's period is unknown.
        """
        if self._ahead is None or not self._ahead.get_subscription_count():
            return
        expected = stream.look_ahead(self._detector, settings)
        if expected is None:
            return
        stamp_ns, found = expected
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        if seconds <= LAST_SECOND:
            later = Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=header.frame_id)
            self._ahead.publish(self._messages.detections(later, found, self._detector.labels))

    def is_heard(self) -> bool:
        """Return whether a result has subscribers."""
        results = (self._detections, self._decision, self._ahead)
        return self.is_watched() or any(
            publisher is not None and publisher.get_subscription_count() for publisher in results)

    def is_watched(self) -> bool:
        """Return whether the annotated picture has subscribers."""
        return (self._picture.get_subscription_count() > 0
                or self._jpeg.get_subscription_count() > 0)

    def publish_picture(self, header: Header, pixels: Pixels, result: StepResult) -> None:
        """Draw the detections and publish the picture on the topics with subscribers."""
        picture = draw_answer(pixels, result.detections, self._detector.labels, result.decision)
        if self._picture.get_subscription_count():
            height, width = picture.shape[:2]
            self._picture.publish(Image(
                header=header, height=height, width=width, encoding='bgr8', step=3 * width,
                data=array('B', picture.tobytes())))
        if self._jpeg.get_subscription_count():
            self._jpeg.publish(CompressedImage(
                header=header, format='bgr8; jpeg compressed bgr8',
                data=array('B', encode_jpeg(picture).tobytes())))

    def publish_diagnostics(self, stream: CameraStream, level: bytes, text: str,
                            values: Sequence[tuple[str, str]], settings: DetectorSettings
                            ) -> None:
        """Publish the state of a camera and a description of the model."""
        self._events.is_open = True
        model = [
            ('model', self._detector.card.name), ('device', self._detector.device),
            ('precision', self._detector.precision), ('backend', self._detector.backend),
            ('policy', str(settings.policy))]
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._diagnostics.publish(self._messages.diagnostics(header, [self._messages.status(
            level, self._name(stream), text, stream.topic, [*values, *model])]))

    def _name(self, stream: CameraStream) -> str:
        return f'{self._node.get_name()}: {stream.name}'
