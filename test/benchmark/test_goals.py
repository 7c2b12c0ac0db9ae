# SPDX-License-Identifier: Apache-2.0
"""Targets beside figures that were reckoned by hand."""
from __future__ import annotations

from typing import Any

from forecast_detector_ros.benchmark.goals import TARGETS, verdicts
import pytest

EXPECTED = [
    14 / 2, 14 / 13, 12 / 8, 20 / 8, 80 / 8, 35 / 14, 14 / 7, 14 / 8, 0.55, 42 / 4 / 14, 8 / 4 / 2,
    0.36, 0, 19 / 18, 0.5, 3 / 24, 2.5, 3.0, 300.0]


def test_every_target_is_measured_from_the_right_figures(run: dict[str, Any]) -> None:
    found = [verdict.measured for verdict in verdicts(run)]
    assert found == pytest.approx(EXPECTED)
    missed = [verdict.target.name for verdict in verdicts(run) if not verdict.met]
    assert missed == ['batch of four / four single forecast steps',
                      'forecast frame / read frame, 1080p compressed, CPU',
                      'node from start to active, full caches']


def test_what_was_not_measured_is_said(run: dict[str, Any]) -> None:
    bare = {**run, 'timings': [], 'graph': None, 'start': None}
    assert [verdict.met for verdict in verdicts(bare)] == [None] * len(TARGETS)
    assert all(verdict.row[-1] == 'not measured' for verdict in verdicts(bare))


def test_rows_are_for_people(run: dict[str, Any]) -> None:
    assert verdicts(run)[0].row == ['read step / forecast step', '>= 6 x', '7.00 x', 'met']
    assert verdicts(run)[-3].row == [
        'node from start to active, full caches', '<= 2 s', '2.50 s', 'MISSED']
