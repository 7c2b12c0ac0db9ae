# SPDX-License-Identifier: Apache-2.0
"""The record of a run that an evaluation writes."""

from dataclasses import replace

from forecast_detector_ros.detector.policy import AlternatePolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation.evaluation_record import class_accuracies, record_evaluation
from forecast_detector_ros.evaluation.runs import run_video
from forecast_detector_ros.metrics.average_precision import average_precision
from forecast_detector_ros.report.run_record import RunRecord
from hypothesis import given, settings
import numpy as np
import pytest

from ..helpers.boxes import A, B, C, detections, found_rows, NOWHERE, truth, truth_rows

LABELS = ('cat', 'dog', 'train')


def test_curves_by_hand():
    boxes = truth((0, 0, A), (0, 0, B), (1, 0, A), (1, 0, C), (1, 1, B))
    found = detections((0, 0, .9, A), (0, 0, .8, NOWHERE), (0, 0, .7, B), (1, 2, .6, A))
    mean, classes = class_accuracies(found, boxes, LABELS)
    cat, dog, train = classes
    # The first of four boxes is found at precision 1, the second at 2/3, the others are not.
    assert cat.precision[0] == cat.precision[25] == 1.0
    assert cat.precision[26] == cat.precision[50] == pytest.approx(2 / 3, abs=1e-4)
    assert cat.precision[51] == cat.precision[100] == 0.0
    assert (cat.boxes, cat.detections) == (4, 3)
    assert set(dog.precision) == {0.0} and dog.ap50 == 0.0
    assert train.precision == () and train.ap50 is None
    assert mean == pytest.approx((cat.ap50 + 0) / 2)


@settings(max_examples=60)
@given(truth_rows, found_rows)
def test_the_area_below_the_curve_is_the_average_precision(boxes, found):
    table, box_table = detections(*found), truth(*boxes)
    ap = average_precision(table, box_table)
    for item in class_accuracies(table, box_table, LABELS)[1]:
        if item.boxes:
            wanted = ap.per_class[LABELS.index(item.label)]
            assert abs(np.mean(item.precision) - wanted) < 0.05
            assert np.all(np.diff(item.precision) <= 0)


@pytest.mark.parametrize('labelled', [True, False])
def test_record_of_a_run(detector, videos, labelled):
    items = videos(walk=('dog', 4), run=(['cat', 'dog'], 3))
    if labelled:
        items = [replace(item, labelled=truth((0, 1, A), (1, 1, B))) for item in items]
    options = DetectorSettings(policy=AlternatePolicy(1), score_threshold=0.3)
    runs = [run_video(detector, item, options, labelled) for item in items]
    record = record_evaluation('two', items, runs, detector.card, options, {'a': 1}, {'b': None})
    assert RunRecord.from_json(record.to_json()) == record
    other, walk = record.sequences
    assert [frame.kind for frame in walk.frames] == ['read', 'forecast'] * 2
    assert [frame.consecutive_forecasts for frame in walk.frames] == [0, 1, 0, 1]
    assert [frame.stamp_ns for frame in other.frames] == [0, 1, 2] and not other.timed
    assert walk.frames[0].confidence is None and 0 <= walk.frames[1].confidence <= 1
    assert sum(len(frame.labels) for frame in record.frames) == sum(len(r.shown) for r in runs)
    assert walk.boxes == 4 and 0 <= walk.recall <= 1
    assert (record.accuracy.ap50 is not None) == labelled == bool(record.accuracy.classes)
    assert record.model['input'] == '64x96' and record.settings['policy'] == 'alternate(1)'
