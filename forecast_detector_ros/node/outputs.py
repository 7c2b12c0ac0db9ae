# SPDX-License-Identifier: Apache-2.0
"""The detector node's publishers: one place for its topics and their QoS."""
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
    A callback group that can be closed: then what is in it has to wait; nothing of it is lost.

    rclpy's executor collects anew, in Python, what it waits for each time it waits. Two events
    of every publisher are among it, whose only use is to warn of subscribers that do not fit.
    """

    def __init__(self) -> None:
        """Begin open."""
        super().__init__()
        self.is_open = True

    def can_execute(self, entity: Any) -> bool:
        """Tell whether something in the group may be waited for and run."""
        return self.is_open and super().can_execute(entity)


class Idle:
    """Rests once nobody has listened for some time, and works again as soon as somebody does."""

    def __init__(self, patience_s: float, now: float) -> None:
        """Begin awake at `now`, seconds of the steady clock; rest after `patience_s`."""
        self._patience_s = patience_s
        self._last_heard = now

    def rests(self, heard: bool, now: float) -> bool:
        """Tell whether to rest at `now`, when somebody listens or not."""
        if heard:
            self._last_heard = now
        return now - self._last_heard >= self._patience_s


def draw_answer(pixels: Pixels, found: Detections, labels: Sequence[str], decision: Decision
                ) -> np.ndarray:
    """
    Return a BGR copy, ``(H, W, 3)`` uint8, contiguous, with boxes, names, scores and decision.

    `found` is in pixels of this very picture; boxes that reach beyond it are clipped.
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

# Reliable, because viewers ask for that unless told otherwise; both kinds of subscribers fit. A
# slow one does not hold the node up: of a picture that it lacks the newer one takes the place.
_NEWEST_PICTURE = QoSProfile(depth=1)

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Outputs:
    """Publishes what the detector finds; the lifecycle publishers are silent until activation."""

    def __init__(self, node: LifecycleNode, detector: Detector, ahead: bool = False) -> None:
        """
        Create the publishers of `node` for the results of `detector`.

        With `ahead` there is one for what is expected, too. Raises RuntimeError when a parameter
        ``qos_overrides.*`` has a value that ROS does not know.
        """
        self._node = node
        self._detector = detector
        self._messages = MessageBuilder()
        overridable = QoSOverridingOptions.with_default_policies()
        # Subscribers that do not fit are looked for when diagnostics are due, and while there are
        # no images; not before every image.
        self._events = OccasionalGroup()
        with ExitStack() as made:
            def create(kind: type, topic: str, qos: QoSProfile, **options: Any) -> Any:
                publisher: Any = node.create_lifecycle_publisher(
                    kind, topic, qos, callback_group=self._events, **options)
                made.callback(node.destroy_lifecycle_publisher, publisher)
                return publisher

            # Overrides are written into the profile, hence the copies.
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
            # Not managed: an inactive node says so here.
            self._diagnostics = node.create_publisher(
                DiagnosticArray, '/diagnostics', 10, callback_group=self._events)
            made.callback(node.destroy_publisher, self._diagnostics)
            # Whatever failed above has destroyed what was made before it.
            self._made = made.pop_all()

    @property
    def topic(self) -> str:
        """Return the resolved name of the detections' topic."""
        return self._detections.topic_name

    def destroy(self) -> None:
        """Destroy all publishers."""
        self._made.close()

    def publish_labels(self, score_threshold: float) -> None:
        """Tell, to late joiners too, the names of the classes and where they came from."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._label_info.publish(LabelInfo(
            header=header, threshold=score_threshold,
            class_map=[VisionClass(class_id=index, class_name=name)
                       for index, name in enumerate(self._detector.labels)]))
        self._vision_info.publish(VisionInfo(
            header=header, method=f'forecast_detector_ros: {self._detector.card.name}',
            database_location=self._label_info.topic_name, database_version=0))

    def publish_detections(self, header: Header, result: StepResult) -> None:
        """Publish the detections of an image under its own header, if anybody listens."""
        self._events.is_open = False
        if self._detections.get_subscription_count():
            self._detections.publish(self._messages.detections(
                header, result.detections, self._detector.labels))

    def publish_decision(self, header: Header, stream: CameraStream, result: StepResult,
                         latency_ms: float, image_age_ms: float, dropped_frames: int) -> None:
        """Publish how the detections of an image came about, if anybody listens."""
        if self._decision.get_subscription_count():
            self._decision.publish(self._messages.decision(
                header, self._name(stream), stream.topic, result.decision,
                decision_values(result, latency_ms, image_age_ms, dropped_frames)))

    def publish_ahead(self, header: Header, stream: CameraStream, settings: DetectorSettings
                      ) -> None:
        """
        Publish what is expected one period after the image with this header, if anybody listens.

        Nothing is published while the camera's period is not known.
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
        """Tell whether anybody subscribes to a result."""
        results = (self._detections, self._decision, self._ahead)
        return self.is_watched() or any(
            publisher is not None and publisher.get_subscription_count() for publisher in results)

    def is_watched(self) -> bool:
        """Tell whether anybody subscribes to the annotated picture."""
        return (self._picture.get_subscription_count() > 0
                or self._jpeg.get_subscription_count() > 0)

    def publish_picture(self, header: Header, pixels: Pixels, result: StepResult) -> None:
        """Draw the detections and publish the picture to those who subscribe."""
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
        """Publish the state of a camera, and of the model that works for it."""
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
