# SPDX-License-Identifier: Apache-2.0
"""Tables 1 and 2 by hand and on small networks."""

from dataclasses import replace
from pathlib import Path

from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation.motion import from_tracks
from forecast_detector_ros.evaluation.runs import Latencies
from forecast_detector_ros.evaluation.sequences import EvaluationError
from forecast_detector_ros.experiments import paper_tables
from forecast_detector_ros.experiments.paper_tables import (
    measure_name,
    measure_speed,
    over_seeds,
    recorded_speed,
    score,
    Speed,
    table1_row,
    table2_rows,
)
from forecast_detector_ros.metrics.tables import DetectionTable
import numpy as np
import pytest


def row(model, accuracy, fast=0.5):
    return {'model': model, 'policy': 'always_read', 'accuracy': accuracy, 'slow': 0.25,
            'medium': None, 'fast': fast}


def test_trainings_of_one_name_are_joined():
    first, second = over_seeds([row('complete', 0.5), row('baseline', 0.25),
                                row('complete', 0.75, None)])
    assert (first['model'], first['trainings'], first['accuracy']) == ('complete', 2, 0.625)
    assert first['accuracy_sd'] == pytest.approx(0.125 * 2 ** 0.5)
    assert (first['slow'], first['slow_sd']) == (0.25, 0.0)
    assert first['medium'] is None and first['fast'] is None
    assert (second['accuracy'], second['accuracy_sd']) == (0.25, None)


def test_table_1_says_what_ran(detector, videos):
    items = videos(a=('cat', 4))
    found = table1_row(detector, items, DetectorSettings(policy=AlternatePolicy(1)), 'plain')
    assert (found['backbone'], found['input'], found['policy']) == (
        'MobileNetV2 0.35', '64x96', 'alternate(1)')
    assert found['read_ratio'] == 0.5 and found['fps'] > 0
    assert found['accuracy'] == found['recall']


def test_table_2_has_a_row_a_policy(make_network, card, videos):
    items = [replace(item, truth=replace(item.truth, tracks=np.zeros(len(item.truth), np.int64)))
             for item in videos(a=('cat', 4))]
    items = [replace(item, labelled=item.truth) for item in items]
    rows = table2_rows(make_network(variant='without_combination'), card, items,
                       DetectorSettings(), [AlwaysReadPolicy(), AlternatePolicy(3)], 'devkit',
                       from_tracks(items))
    assert [(found['policy'], found['read_ratio']) for found in rows] == [
        ('always_read', 1.0), ('alternate(3)', 0.25)]
    for found in rows:
        assert (found['variant'], found['forecast_mode']) == ('without_combination', 'residual')
        # Its boxes move by a pixel a frame: slow or medium, never fast.
        assert found['fast'] is None and found['medium'] is not None


LABELS = ('cat', 'dog', 'train')


@pytest.mark.parametrize(('ratio', 'fps'), [(1.0, 25.0), (0.0, 100.0), (0.5, 40.0)])
def test_frames_per_second_by_hand(ratio, fps):
    assert Speed(40.0, 10.0, 'hand').fps(ratio) == pytest.approx(fps)


def test_recorded_latencies_give_their_means():
    path = Path('run.json')
    speed = recorded_speed(Latencies(path, {'read': np.array([30.0, 50.0]),
                                            'forecast': np.array([10.0])}))
    assert speed == Speed(40.0, 10.0, 'run.json')
    with pytest.raises(EvaluationError, match='run.json: has no latency of a forecast frame'):
        recorded_speed(Latencies(path, {'read': np.array([30.0]), 'forecast': np.zeros(0)}))


def test_both_decisions_are_timed(detector, videos, monkeypatch):
    real = paper_tables.run_video

    def slow(*args):
        run = real(*args)
        return replace(run, preprocess_ms=np.where(run.read, 2.0, 0.0),
                       inference_ms=np.where(run.read, 38.0, 10.0))

    monkeypatch.setattr(paper_tables, 'run_video', slow)
    items = videos(a=('cat', 3), b=('cat', 1))
    assert measure_speed(detector, items, DetectorSettings()) == Speed(40.0, 10.0, 'measured')
    with pytest.raises(EvaluationError, match='two frames'):
        measure_speed(detector, items[1:], DetectorSettings())


def found(item, label, score):
    count = len(item.truth)
    return DetectionTable(item.truth.frames, item.truth.boxes, np.full(count, label),
                          np.full(count, score, np.float32))


def test_without_boxes_of_all_objects_recall_is_the_accuracy(videos):
    items = videos(a=('cat', 2), b=('cat', 2))
    tables = [found(items[0], 0, 0.5), found(items[1], 0, 0.2)]
    assert measure_name(items, 'plain') == 'recall'
    assert score(items, tables, LABELS, 'plain', 0.3) == {'accuracy': 0.5, 'recall': 0.5}
    with pytest.raises(EvaluationError, match='no boxes of all objects'):
        score(items, tables, LABELS, 'plain', 0.3, [np.zeros(2)] * 2)


def test_average_precision_and_motion(videos):
    items = [replace(item, labelled=item.truth) for item in videos(a=('cat', 2), b=('dog', 2))]
    tables = [found(items[0], 0, 0.5), found(items[1], 0, 0.5)]
    motion = [np.full(2, 0.95), np.full(2, 0.1)]
    assert measure_name(items, 'devkit') == 'AP50 devkit'
    result = score(items, tables, LABELS, 'plain', 0.3, motion)
    # Cats: two of two found, and two mistakes of the same score; dogs: none.
    assert result['accuracy'] == pytest.approx(0.25)
    assert result['recall'] == pytest.approx(0.5)
    assert (result['slow'], result['medium'], result['fast']) == (
        pytest.approx(1.0), None, pytest.approx(0.0))
    with pytest.raises(EvaluationError, match='coco is not split by motion'):
        score(items, tables, LABELS, 'coco', 0.3, motion)
