# SPDX-License-Identifier: Apache-2.0
"""Policies at an equal share of frames read."""

from forecast_detector_ros.experiments.equal_ratio import compare, fixed_rules_at
import pytest

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
    first, second = compare(POINTS)
    assert first['policy'] == 'threshold(0.5)'
    assert first['gain'] == pytest.approx(0.05)
    assert second == {'policy': 'threshold(0.9)', 'read_ratio': 0.1, 'accuracy': 0.1,
                      'fixed_rules': None, 'gain': None}
