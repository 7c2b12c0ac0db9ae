# SPDX-License-Identifier: Apache-2.0
"""Fig. 5: what is measured, compared and drawn."""
from dataclasses import replace
import json

from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.experiments.figure_files import save_figure
from forecast_detector_ros.experiments.paper_tables import Speed
from forecast_detector_ros.experiments.trade_off import (
    compare_with_fixed_rules,
    draw_trade_off,
    fixed_rules_at,
    measure_trade_off,
    trade_off_as_text,
)
import pytest

from ..helpers.networks import MOTION

SPEED = Speed(40.0, 10.0, 'hand')


@pytest.fixture
def measured(make_network, card, videos):
    """Measure a small network with two fixed rules and three thresholds."""
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
    # p = 0 forecasts as often as it may, and p = 1 never.
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


def test_detector_without_encoders_has_no_rivals(make_network, card, videos):
    result = measure_trade_off(make_network(variant='baseline'), card, videos(a=('cat', 4)),
                               DetectorSettings(max_consecutive_forecasts=1), SPEED, 'plain', ())
    assert {point['features'] for point in result['points']} == {'forecast'}
    assert result['measure'] == 'recall'


def test_a_forecast_of_motion_has_one_rival(make_network, card, videos):
    """A feature that is held and a box that stays are the same there."""
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
def test_nothing_is_known_beyond_the_fixed_rules(ratio):
    assert fixed_rules_at(ratio, POINTS) is None
    assert fixed_rules_at(ratio, {}) is None


def test_rules_without_an_accuracy_are_passed_over():
    points = {**POINTS, 'alternate(1)': (0.5, None)}
    assert fixed_rules_at(0.5, points) == pytest.approx(0.2 + 0.4 / 3)


def test_gains():
    first, second = compare_with_fixed_rules(POINTS)
    assert first['policy'] == 'threshold(0.5)'
    assert first['gain'] == pytest.approx(0.05)
    assert second == {'policy': 'threshold(0.9)', 'read_ratio': 0.1, 'accuracy': 0.1,
                      'fixed_rules': None, 'gain': None}
