# SPDX-License-Identifier: Apache-2.0
"""Write and read detections and decisions as messages of rclpy and of a bag library."""
from __future__ import annotations

from dataclasses import replace
from math import nan
import subprocess
import sys

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from forecast_detector_ros.detector.detector import StepResult
from forecast_detector_ros.detector.policy import Decision, FORECAST, READ
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.recording.output_files import vision_typestore
from forecast_detector_ros.recording.recorded_frame import RecordedFrame
from forecast_detector_ros.recording.result_messages import (
    decision_values,
    installed_message,
    MessageBuilder,
    read_decision,
    read_detections,
)
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

LABELS = ('cat', 'dog')


def found(boxes: list[tuple[float, float, float, float]], labels: list[int],
          scores: list[float]) -> Detections:
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64),
                      np.array(scores, np.float32))


def header() -> Header:
    made = Header(frame_id='camera')
    made.stamp.sec, made.stamp.nanosec = 12, 34
    return made


def result(decision: Decision) -> StepResult:
    return StepResult(found([], [], []), decision, 1.25, 20.5)


def test_numbers_of_objects_become_ids() -> None:
    boxes = found([(10, 20, 30, 60), (0, 0, 1, 1)], [1, 0], [0.75, 0.5])
    numbered = replace(boxes, ids=np.array([31, 4]))
    message = MessageBuilder().detections(header(), numbered, LABELS)
    message = deserialize_message(serialize_message(message), Detection2DArray)
    assert [detection.id for detection in message.detections] == ['31', '4']


def test_box_becomes_centre_and_size() -> None:
    message = MessageBuilder().detections(
        header(), found([(10, 20, 30, 60), (0, 0, 1, 1)], [1, 0], [0.75, 0.5]), LABELS)
    # Check the values that receivers get.
    message = deserialize_message(serialize_message(message), Detection2DArray)
    assert message.header == header()
    first, second = message.detections
    assert first.header == second.header == header()
    assert (first.bbox.center.position.x, first.bbox.center.position.y) == (20, 40)
    assert (first.bbox.size_x, first.bbox.size_y, first.bbox.center.theta) == (20, 40, 0)
    assert first.results[0].hypothesis.class_id == 'dog'
    assert first.results[0].hypothesis.score == 0.75
    assert second.results[0].hypothesis.class_id == 'cat'
    assert first.id == ''
    assert first.results[0].pose.pose.orientation.w == 1.0


def test_nothing_found_is_an_empty_array() -> None:
    message = MessageBuilder().detections(header(), found([], [], []), LABELS)
    assert message == Detection2DArray(header=header())


def test_fields_are_of_the_types_that_the_definitions_demand(
        monkeypatch: pytest.MonkeyPatch) -> None:
    # rclpy checks types only on request; otherwise a wrong type fails in the middleware.
    script = (
        'import numpy as np\n'
        'from std_msgs.msg import Header\n'
        'from forecast_detector_ros.recording.result_messages import decision_values\n'
        'from forecast_detector_ros.recording.result_messages import MessageBuilder\n'
        'from forecast_detector_ros.detector.processing import Detections\n'
        'from forecast_detector_ros.detector.policy import Decision\n'
        'from types import SimpleNamespace\n'
        'found = Detections(np.ones((2, 4), np.float32), np.zeros(2, np.int64),\n'
        '                   np.ones(2, np.float32))\n'
        'decision = Decision("read", "gap", 0.5, 0.5, 0)\n'
        'result = SimpleNamespace(decision=decision, preprocess_ms=1.0, inference_ms=1.0,\n'
        '                         batch=1)\n'
        'builder = MessageBuilder()\n'
        'builder.detections(Header(), found, ["cat"])\n'
        'builder.decision(Header(), "n", "s", decision, decision_values(result))\n')
    monkeypatch.setenv('ROS_PYTHON_CHECK_FIELDS', '1')
    subprocess.run([sys.executable, '-c', script], check=True, timeout=600)


def test_decision_has_all_its_keys() -> None:
    values = decision_values(result(Decision(FORECAST, 'scheduler', 0.875, 0.5, 2)), 31.5, 40.25,
                             7)
    assert dict(values) == {
        'decision': 'forecast', 'reason': 'scheduler', 'confidence': '0.875000',
        'threshold': '0.5', 'consecutive_forecasts': '2', 'latency_ms': '31.500',
        'preprocess_ms': '1.250', 'inference_ms': '20.500', 'batch': '1', 'image_age_ms': '40.250',
        'dropped_frames': '7'}
    assert len(values) == len(dict(values))


def test_missing_numbers_are_nan() -> None:
    values = dict(decision_values(result(Decision(READ, 'first_frame', nan, nan, 0))))
    assert values['confidence'] == values['threshold'] == values['latency_ms'] == 'nan'


@pytest.mark.parametrize(('reason', 'level'), [
    ('first_frame', DiagnosticStatus.OK), ('reset', DiagnosticStatus.OK),
    ('gap', DiagnosticStatus.WARN), ('size_changed', DiagnosticStatus.WARN)])
def test_lost_state_is_a_warning(reason: str, level: bytes) -> None:
    decision = Decision(READ, reason, nan, 0.5, 0)
    message = MessageBuilder().decision(
        header(), 'detector: /image', '/image', decision, decision_values(result(decision)))
    message = deserialize_message(serialize_message(message), DiagnosticArray)
    (status,) = message.status
    assert message.header == header()
    assert (status.level, status.name, status.message, status.hardware_id) == (
        level, 'detector: /image', 'read', '/image')
    assert [(item.key, item.value) for item in status.values] == decision_values(result(decision))


def test_classes_of_a_bag_library_give_the_same_bytes() -> None:
    store = vision_typestore()
    find = store.types.__getitem__
    theirs = find('std_msgs/msg/Header')(
        stamp=find('builtin_interfaces/msg/Time')(sec=12, nanosec=34), frame_id='camera')
    detections = found([(10, 20, 30, 60)], [1], [0.75])
    decision = Decision(READ, 'gap', 0.25, 0.5, 0)
    values = decision_values(result(decision))
    for name, build in (
            ('vision_msgs/msg/Detection2DArray',
             lambda builder, head: builder.detections(head, detections, LABELS)),
            ('diagnostic_msgs/msg/DiagnosticArray',
             lambda builder, head: builder.decision(head, 'n', 's', decision, values))):
        offline = bytes(store.serialize_cdr(build(MessageBuilder(find), theirs), name))
        online = build(MessageBuilder(), header())
        assert deserialize_message(offline, installed_message(name)) == online


def test_importing_needs_neither_ros_nor_pytorch() -> None:
    code = ('import sys, forecast_detector_ros.recording.result_messages\n'
            'loaded = {name.split(".")[0] for name in sys.modules}\n'
            'assert not loaded & {"rclpy", "vision_msgs", "diagnostic_msgs", "torch"}, loaded')
    subprocess.run([sys.executable, '-c', code], check=True, timeout=600)


@pytest.mark.parametrize('number', [0, 1, 2])
def test_detections_are_read_as_built(number: int) -> None:
    corners = [(10.5, 20.0, 110.5, 80.25), (0.0, 0.0, 5.0, 7.0)][:number]
    message = MessageBuilder().detections(
        header(), found(corners, [1, 0][:number], [0.75, 0.5][:number]), LABELS)
    boxes, labels, scores = read_detections(message)
    np.testing.assert_allclose(boxes, np.array(corners).reshape(-1, 4))
    assert boxes.shape == (number, 4)
    assert labels == ['dog', 'cat'][:number]
    assert scores == [0.75, 0.5][:number]


def test_best_hypothesis_counts_and_none_is_left_out() -> None:
    message = Detection2DArray(detections=[Detection2D(), Detection2D()])
    for label, score in (('cat', 0.2), ('dog', 0.7), ('cow', 0.4)):
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = label, score
        message.detections[1].results.append(hypothesis)
    boxes, labels, scores = read_detections(message)
    assert (len(boxes), labels, scores) == (1, ['dog'], [0.7])


@pytest.mark.parametrize('confidence', [0.25, nan])
def test_decision_is_read_as_built(confidence: float) -> None:
    decision = Decision('forecast', 'scheduler', confidence, 0.5, 2)
    values = decision_values(result(decision), 22.0, 30.5, 4)
    message = MessageBuilder().decision(header(), 'node: camera', '/image_raw', decision, values)
    record = RecordedFrame(stamp_ns=0, **read_decision(message))
    assert (record.kind, record.reason) == ('forecast', 'scheduler')
    assert record.confidence == (None if confidence != confidence else confidence)
    assert (record.threshold, record.consecutive_forecasts) == (0.5, 2)
    assert (record.preprocess_ms, record.inference_ms) == (1.25, 20.5)
    assert (record.latency_ms, record.image_age_ms) == (22.0, 30.5)


@pytest.mark.parametrize('message', [
    DiagnosticArray(),
    DiagnosticArray(status=[DiagnosticStatus()]),
    DiagnosticArray(status=[DiagnosticStatus(values=[KeyValue(key='decision', value='read')])]),
])
def test_other_diagnostics_are_not_a_decision(message: DiagnosticArray) -> None:
    with pytest.raises(ValueError, match='a decision without'):
        read_decision(message)
