# SPDX-License-Identifier: Apache-2.0
"""Check that detections and decisions are read back as the node writes them."""
from math import nan

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from forecast_detector_ros.detector.detector import StepResult
from forecast_detector_ros.detector.policy import Decision
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.recording.recorded_frame import RecordedFrame
from forecast_detector_ros.recording.result_messages import (
    decision_values,
    MessageBuilder,
    read_decision,
    read_detections,
)
import numpy as np
import pytest
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

LABELS = ('person', 'bicycle')


def found(number: int) -> Detections:
    """Return `number` detections."""
    boxes = np.array([[10.5, 20.0, 110.5, 80.25], [0.0, 0.0, 5.0, 7.0]], np.float32)
    return Detections(boxes=boxes[:number], labels=np.array([1, 0])[:number],
                      scores=np.array([0.75, 0.5], np.float32)[:number])


@pytest.mark.parametrize('number', [0, 1, 2])
def test_detections_are_read_as_built(number: int) -> None:
    message = MessageBuilder().detections(Header(), found(number), LABELS)
    boxes, labels, scores = read_detections(message)
    np.testing.assert_allclose(boxes, found(number).boxes)
    assert boxes.shape == (number, 4)
    assert labels == ['bicycle', 'person'][:number]
    assert scores == [0.75, 0.5][:number]


def test_best_hypothesis_counts_and_none_is_left_out() -> None:
    message = Detection2DArray(detections=[Detection2D(), Detection2D()])
    for label, score in (('cat', 0.2), ('dog', 0.7), ('cow', 0.4)):
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = label, score
        message.detections[1].results.append(result)
    boxes, labels, scores = read_detections(message)
    assert (len(boxes), labels, scores) == (1, ['dog'], [0.7])


@pytest.mark.parametrize('confidence', [0.25, nan])
def test_decision_is_read_as_built(confidence: float) -> None:
    decision = Decision('forecast', 'scheduler', confidence, 0.5, 2)
    values = decision_values(StepResult(found(0), decision, 1.5, 20.25), 22.0, 30.5, 4)
    message = MessageBuilder().decision(Header(), 'node: camera', '/image_raw', decision, values)
    record = RecordedFrame(stamp_ns=0, **read_decision(message))
    assert (record.kind, record.reason) == ('forecast', 'scheduler')
    assert record.confidence == (None if confidence != confidence else confidence)
    assert (record.threshold, record.consecutive_forecasts) == (0.5, 2)
    assert (record.preprocess_ms, record.inference_ms) == (1.5, 20.25)
    assert (record.latency_ms, record.image_age_ms) == (22.0, 30.5)


@pytest.mark.parametrize('message', [
    DiagnosticArray(),
    DiagnosticArray(status=[DiagnosticStatus()]),
    DiagnosticArray(status=[DiagnosticStatus(values=[KeyValue(key='decision', value='read')])]),
])
def test_other_diagnostics_are_no_decision(message: DiagnosticArray) -> None:
    with pytest.raises(ValueError, match='a decision without'):
        read_decision(message)
