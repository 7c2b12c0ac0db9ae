# SPDX-License-Identifier: Apache-2.0
"""Tables 1 and 2 and Fig. 5, by hand and on small networks."""

from dataclasses import replace
import json
from pathlib import Path

from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation.motion import from_tracks
from forecast_detector_ros.evaluation.runs import Latencies
from forecast_detector_ros.evaluation.sequences import EvaluationError
from forecast_detector_ros.experiments import paper_figures
from forecast_detector_ros.experiments.figure_files import save_figure
from forecast_detector_ros.experiments.paper_figures import (
    compare_with_fixed_rules,
    draw_trade_off,
    fixed_rules_at,
    measure_name,
    measure_speed,
    measure_trade_off,
    over_seeds,
    recorded_speed,
    score,
    Speed,
    table1_row,
    table2_rows,
    trade_off_as_text,
)
from forecast_detector_ros.metrics.tables import DetectionTable
import numpy as np
import pytest

from ..helpers.networks import MOTION


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


def test_table_1_has_the_network_and_policy(detector, videos):
    items = videos(a=('cat', 4))
    found = table1_row(detector, items, DetectorSettings(policy=AlternatePolicy(1)), 'plain')
    assert (found['backbone'], found['input'], found['policy']) == (
        'MobileNetV2 0.35', '64x96', 'alternate(1)')
    assert found['read_ratio'] == 0.5 and found['fps'] > 0
    assert found['accuracy'] == found['recall']


def test_table_2_has_a_row_for_each_policy(make_network, card, videos):
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
        # Boxes move by a pixel per frame, so no box is fast.
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
    real = paper_figures.run_video

    def slow(*args):
        run = real(*args)
        return replace(run, preprocess_ms=np.where(run.read, 2.0, 0.0),
                       inference_ms=np.where(run.read, 38.0, 10.0))

    monkeypatch.setattr(paper_figures, 'run_video', slow)
    items = videos(a=('cat', 3), b=('cat', 1))
    assert measure_speed(detector, items, DetectorSettings()) == Speed(
        40.0, 10.0, 'measured in fp32')
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
    # Both cats are found, with two mistakes of equal score; no dog is found.
    assert result['accuracy'] == pytest.approx(0.25)
    assert result['recall'] == pytest.approx(0.5)
    assert (result['slow'], result['medium'], result['fast']) == (
        pytest.approx(1.0), None, pytest.approx(0.0))
    with pytest.raises(EvaluationError, match='coco is not split by motion'):
        score(items, tables, LABELS, 'coco', 0.3, motion)


SPEED = Speed(40.0, 10.0, 'hand')


@pytest.fixture
def measured(make_network, card, videos):
    """Measure a small network with three fixed rules and three thresholds."""
    items = [replace(item, labelled=item.truth) for item in videos(a=('cat', 5), b=('dog', 4))]
    return measure_trade_off(make_network(), replace(card, threshold=0.6), items,
                             DetectorSettings(max_consecutive_forecasts=2), SPEED, 'plain',
                             (0.0, 1.0))


def test_points_of_all_rules_and_rivals(measured, tmp_path):
    points = {(point['features'], point['policy']): point for point in measured['points']}
    assert list(points) == [
        ('forecast', 'always_read'), ('forecast', 'alternate(1)'), ('forecast', 'alternate(2)'),
        ('forecast', 'threshold(0.0)'), ('forecast', 'threshold(0.6)'),
        ('forecast', 'threshold(1.0)'), ('held feature', 'alternate(1)'),
        ('held feature', 'alternate(2)'), ('persistence', 'alternate(1)'),
        ('persistence', 'alternate(2)')]
    # A threshold of 0 gives the most forecasts allowed, and a threshold of 1 gives none.
    first, last = points['forecast', 'always_read'], points['forecast', 'alternate(2)']
    for key in ('read_ratio', 'fps', 'accuracy'):
        assert points['forecast', 'threshold(1.0)'][key] == first[key]
        assert points['forecast', 'threshold(0.0)'][key] == last[key]
    assert first['fps'] == pytest.approx(25.0)
    assert last['read_ratio'] == pytest.approx(4 / 9)
    assert last['fps'] == pytest.approx(9000 / (4 * 40 + 5 * 10))
    assert (measured['measure'], measured['shipped']) == ('AP50', 'threshold(0.6)')
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured

    gains = {item['policy']: item['gain'] for item in measured['equal_read_ratio']}
    assert list(gains) == ['threshold(0.0)', 'threshold(0.6)', 'threshold(1.0)']
    assert gains['threshold(0.0)'] == gains['threshold(1.0)'] == pytest.approx(0.0)
    text = trade_off_as_text(measured)
    assert 'threshold(0.6) (shipped)' in text and '+0.000' in text

    figure = draw_trade_off(measured, 'title')
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert 'shipped: threshold(0.6)' in labels and 'alternate(k), persistence' in labels
    save_figure(figure, tmp_path / 'fig5.png')


def test_sequences_without_boxes_are_refused(make_network, card, videos):
    (item,) = videos(a=('cat', 4))
    none = item.truth.select(np.zeros(0, np.int64))
    for empty in (replace(item, truth=none), replace(item, labelled=none)):
        with pytest.raises(EvaluationError, match='no box is annotated'):
            measure_trade_off(make_network(), card, [empty], DetectorSettings(), SPEED, 'plain')


def test_detector_without_encoders_has_no_rivals(make_network, card, videos):
    result = measure_trade_off(make_network(variant='baseline'), card, videos(a=('cat', 4)),
                               DetectorSettings(max_consecutive_forecasts=1), SPEED, 'plain', ())
    assert {point['features'] for point in result['points']} == {'forecast'}
    assert result['measure'] == 'recall'


def test_a_forecast_of_motion_has_one_rival(make_network, card, videos):
    """With a forecast of motion, held features and repeated boxes are equal."""
    result = measure_trade_off(make_network(**MOTION), card, videos(a=('cat', 4)),
                               DetectorSettings(max_consecutive_forecasts=1), SPEED, 'plain', ())
    assert {point['features'] for point in result['points']} == {'forecast', 'persistence'}


POINTS = {'always_read': (1.0, 0.6), 'alternate(1)': (0.5, 0.5), 'alternate(3)': (0.25, 0.2),
          'threshold(0.5)': (0.75, 0.6), 'threshold(0.9)': (0.1, 0.1)}


@pytest.mark.parametrize(('ratio', 'expected'), [
    (1.0, 0.6), (0.5, 0.5), (0.75, 0.55), (0.375, 0.35), (0.25, 0.2)])
def test_fixed_rules_are_interpolated(ratio, expected):
    assert fixed_rules_at(ratio, POINTS) == pytest.approx(expected)


@pytest.mark.parametrize('ratio', [0.1, 0.249])
def test_fixed_rules_are_not_extrapolated(ratio):
    assert fixed_rules_at(ratio, POINTS) is None
    assert fixed_rules_at(ratio, {}) is None


def test_rules_without_an_accuracy_are_left_out():
    points = {**POINTS, 'alternate(1)': (0.5, None)}
    assert fixed_rules_at(0.5, points) == pytest.approx(0.2 + 0.4 / 3)


def test_gains():
    first, second = compare_with_fixed_rules(POINTS)
    assert first['policy'] == 'threshold(0.5)'
    assert first['gain'] == pytest.approx(0.05)
    assert second == {'policy': 'threshold(0.9)', 'read_ratio': 0.1, 'accuracy': 0.1,
                      'fixed_rules': None, 'gain': None}
