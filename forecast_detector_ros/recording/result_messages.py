# SPDX-License-Identifier: Apache-2.0
"""Write and read Detection2DArray and decisions; no other module names their fields."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
import importlib
from math import isfinite, nan
from typing import Any, TYPE_CHECKING

import numpy as np

from ..detector.policy import Decision, FORECAST, READ
from ..errors import cut

if TYPE_CHECKING:  # The recorder needs no detector.
    from ..detector.detector import StepResult
    from ..detector.processing import Detections

#: Largest `sec` of a builtin_interfaces/Time, in the year 2038.
LAST_SECOND = 2**31 - 1
#: Reasons of a read with an unrequested reset of the state.
_SURPRISES = ('size_changed', 'gap')


def stamp_ns(message: Any) -> int:
    """Return the stamp of a message's header in nanoseconds."""
    stamp = message.header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def installed_message(name: str) -> type:
    """Return rclpy's class of a message such as ``vision_msgs/msg/Detection2D``."""
    package, _, message = name.split('/')
    return getattr(importlib.import_module(f'{package}.msg'), message)


def _maker(kind: Any) -> Callable[[], Any]:
    """
    Return a function that creates messages of a class without setting any field.

    The constructors of rclpy's classes create a default message for each field, even for a given
    one. A Detection2D would have ten unused objects.
    """
    new = partial(kind.__new__, kind)
    # The setters of rclpy's classes read this slot; classes of a bag library lack it.
    if '_check_fields' not in getattr(kind, '__slots__', ()):
        return new
    checks = kind()._check_fields

    def make() -> Any:
        message = new()
        message._check_fields = checks
        return message
    return make


def decision_values(result: StepResult, latency_ms: float = nan, image_age_ms: float = nan,
                    dropped_frames: int = 0) -> list[tuple[str, str]]:
    """
    Return the (key, value) pairs that describe the decision on one frame.

    :param latency_ms: from receipt of the image to publication of its detections
    :param image_age_ms: node clock minus the image's stamp at the publication
    :param dropped_frames: frames of this camera that were not processed, since activation
    """
    decision = result.decision
    return [
        ('decision', decision.kind),
        ('reason', decision.reason),
        ('confidence', f'{decision.confidence:.6f}'),
        ('threshold', f'{decision.threshold:g}'),
        ('consecutive_forecasts', str(decision.consecutive_forecasts)),
        ('latency_ms', f'{latency_ms:.3f}'),
        ('preprocess_ms', f'{result.preprocess_ms:.3f}'),
        ('inference_ms', f'{result.inference_ms:.3f}'),
        ('batch', str(result.batch)),
        ('image_age_ms', f'{image_age_ms:.3f}'),
        ('dropped_frames', str(dropped_frames)),
    ]


class MessageBuilder:
    """
    Builds messages of results.

    :param find: returns the class of a message by its full name: `installed_message`, or a lookup
        in the type store of a bag library
    """

    def __init__(self, find: Callable[[str], type] = installed_message) -> None:
        """Look up the classes; raises as `find`."""
        self._array: Any = find('vision_msgs/msg/Detection2DArray')
        # Each detection has one of each of these, so their creation must be fast.
        self._new_detection = _maker(find('vision_msgs/msg/Detection2D'))
        self._new_result = _maker(find('vision_msgs/msg/ObjectHypothesisWithPose'))
        self._new_box = _maker(find('vision_msgs/msg/BoundingBox2D'))
        self._new_pose2d = _maker(find('vision_msgs/msg/Pose2D'))
        self._hypothesis: Any = find('vision_msgs/msg/ObjectHypothesis')
        self._point2d: Any = find('vision_msgs/msg/Point2D')
        self._diagnostics: Any = find('diagnostic_msgs/msg/DiagnosticArray')
        self._status: Any = find('diagnostic_msgs/msg/DiagnosticStatus')
        self._key_value: Any = find('diagnostic_msgs/msg/KeyValue')
        pose = find('geometry_msgs/msg/Pose')(
            position=find('geometry_msgs/msg/Point')(x=0.0, y=0.0, z=0.0),
            orientation=find('geometry_msgs/msg/Quaternion')(x=0.0, y=0.0, z=0.0, w=1.0))
        # Detections have no pose. All share one message, which is never changed.
        self._no_pose = find('geometry_msgs/msg/PoseWithCovariance')(
            pose=pose, covariance=np.zeros(36))

    def detections(self, header: Any, found: Detections, labels: Sequence[str]) -> Any:
        """
        Return a Detection2DArray in the order of `found`.

        :param header: header of the image, used for the array and each detection
        :param found: boxes in pixels of the incoming image. Its `ids` become the `id` of each
            detection; `id` is empty for a negative number or without `ids`
        :param labels: names of the classes, used as `class_id`
        """
        ids = [''] * len(found) if found.ids is None else [
            str(number) if number >= 0 else '' for number in found.ids.tolist()]
        return self._array(header=header, detections=[
            self._one(header, box, labels[label], score, number)
            for box, label, score, number in zip(
                found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), ids,
                strict=True)])

    def _one(self, header: Any, box: Sequence[float], label: str, score: float, number: str
             ) -> Any:
        left, top, right, bottom = box
        centre = self._new_pose2d()
        centre.position = self._point2d(x=(left + right) / 2, y=(top + bottom) / 2)
        centre.theta = 0.0
        bounds = self._new_box()
        bounds.center, bounds.size_x, bounds.size_y = centre, right - left, bottom - top
        result = self._new_result()
        result.hypothesis = self._hypothesis(class_id=label, score=score)
        result.pose = self._no_pose
        detection = self._new_detection()
        detection.header, detection.results = header, [result]
        detection.bbox, detection.id = bounds, number
        return detection

    def decision(self, header: Any, name: str, source: str, decision: Decision,
                 values: Sequence[tuple[str, str]]) -> Any:
        """
        Return the decision on one frame as a DiagnosticArray with one status.

        The status has the name `name`, the hardware id `source` (the camera's topic) and the kind
        of the decision as message. The level is WARN if a gap in the stamps or another image size
        reset the state, else OK.
        """
        level = self._status.WARN if decision.reason in _SURPRISES else self._status.OK
        return self.diagnostics(header, [self.status(level, name, decision.kind, source, values)])

    def diagnostics(self, header: Any, statuses: Sequence[Any]) -> Any:
        """Return a DiagnosticArray of `statuses`."""
        return self._diagnostics(header=header, status=list(statuses))

    def status(self, level: Any, name: str, message: str, source: str,
               values: Sequence[tuple[str, str]]) -> Any:
        """Return a DiagnosticStatus; `level` is a constant of its class."""
        return self._status(
            level=level, name=name, message=message, hardware_id=source,
            values=[self._key_value(key=key, value=value) for key, value in values])


_MOST_FORECASTS = 2**31  #: Forecasts in a row
_MOST_DETECTIONS = 1000  #: Detections in a message, as the detector limits them
#: Largest magnitude of a box's coordinates and sides, pixels: no picture is larger.
_MOST_PIXELS = 1e6
_NUMBERS = ('confidence', 'threshold', 'latency_ms', 'preprocess_ms', 'inference_ms',
            'image_age_ms')


def read_detections(message: Any) -> tuple[np.ndarray, list[str], list[float]]:
    """
    Return boxes, class names and scores of a Detection2DArray, in its order.

    Boxes are (N, 4) float32, xyxy in pixels of the image. A box has its best hypothesis. A
    detection without a hypothesis is left out.
    """
    boxes, labels, scores = [], [], []
    for detection in message.detections:
        if not detection.results:
            continue
        best = max((result.hypothesis for result in detection.results),
                   key=lambda hypothesis: hypothesis.score)
        x, y = detection.bbox.center.position.x, detection.bbox.center.position.y
        width, height = detection.bbox.size_x, detection.bbox.size_y
        boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        labels.append(best.class_id)
        scores.append(best.score)
    return np.array(boxes, np.float32).reshape(-1, 4), labels, scores


def read_ids(message: Any) -> tuple[str, ...]:
    """
    Return the object's number for each box of `read_detections`, '' for a box without one.

    Returns an empty tuple if no box has a number.
    """
    ids = tuple(detection.id for detection in message.detections if detection.results)
    return ids if any(ids) else ()


def sound_detections(message: Any) -> int:
    """
    Remove unusable detections from a Detection2DArray, and return their number.

    These have no hypothesis, a number that is not finite, a coordinate or side above a million
    pixels, or come after the first thousand. Long names of classes and objects are shortened.
    """
    kept = [detection for detection in message.detections[:_MOST_DETECTIONS]
            if _is_sound(detection)]
    for detection in kept:
        detection.id = cut(detection.id)
        for result in detection.results:
            result.hypothesis.class_id = cut(result.hypothesis.class_id)
    left_out = len(message.detections) - len(kept)
    message.detections = kept
    return left_out


def _is_sound(detection: Any) -> bool:
    centre, box = detection.bbox.center.position, detection.bbox
    # A comparison with NaN is false.
    return (bool(detection.results)
            and all(isfinite(result.hypothesis.score) for result in detection.results)
            and all(abs(number) <= _MOST_PIXELS
                    for number in (centre.x, centre.y, box.size_x, box.size_y)))


def read_decision(message: Any) -> dict[str, Any]:
    """
    Return the decision in a DiagnosticArray as fields of a RecordedFrame.

    A number that is missing or not finite becomes None. Raises ValueError if the message is not a
    decision.
    """
    if not message.status:
        raise ValueError('a decision without a status')
    values = {pair.key: pair.value for pair in message.status[0].values}
    try:
        kind, reason = values['decision'], cut(values['reason'])
        forecasts = int(values['consecutive_forecasts'])
    except KeyError as error:
        raise ValueError(f'a decision without the value {error}') from None
    if kind not in (READ, FORECAST) or not 0 <= forecasts < _MOST_FORECASTS:
        raise ValueError(f'the decision {cut(kind)!r}, {forecasts} in a row, is none')
    numbers = {key: float(values.get(key, 'nan')) for key in _NUMBERS}
    return {'kind': kind, 'reason': reason, 'consecutive_forecasts': forecasts,
            **{key: value if isfinite(value) else None
               for key, value in numbers.items()}}
