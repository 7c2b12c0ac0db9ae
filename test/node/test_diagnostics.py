# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says in which situation."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from forecast_detector_ros.node.camera_statistics import CameraStatistics
from forecast_detector_ros.node.diagnostics import camera_values, health, Situation
import pytest

NORMAL = Situation('/image_raw', now=100.0, active=True, enabled=True, publishers=1,
                   no_image_timeout=5.0)


def busy(last_image: float = 99.5) -> CameraStatistics:
    statistics = CameraStatistics(90.0)
    statistics.add_image(last_image, 3)
    statistics.add_result(last_image, True, 12.5)
    return statistics


@pytest.mark.parametrize(('changes', 'level', 'words'), [
    ({}, DiagnosticStatus.OK, ['running']),
    ({'active': False}, DiagnosticStatus.OK, ['inactive']),
    ({'enabled': False}, DiagnosticStatus.OK, ['paused']),
    ({'now': 0.0}, DiagnosticStatus.WARN, ['use_sim_time', '/clock']),
    ({'now': 110.0, 'publishers': 0}, DiagnosticStatus.WARN,
     ['10.5 s', '/image_raw', 'topic name', 'image_transport']),
    ({'now': 110.0}, DiagnosticStatus.WARN, ['1 publisher', 'QoS', 'transport'])])
def test_situation_gives_level_and_advice(changes: dict[str, Any], level: bytes,
                                          words: list[str]) -> None:
    found, text = health(replace(NORMAL, **changes), busy())
    assert found == level
    assert all(word in text for word in words), text


def test_refused_image_is_a_warning_with_its_reason() -> None:
    statistics = busy()
    statistics.add_error(99.0, 'step is 3, too small')
    level, text = health(NORMAL, statistics)
    assert level == DiagnosticStatus.WARN
    assert 'step is 3, too small' in text


def test_before_the_first_image_it_waits() -> None:
    assert health(NORMAL, CameraStatistics(98.0)) == (
        DiagnosticStatus.OK, 'waiting for the first image')


def test_values_tell_counts_and_figures() -> None:
    values = dict(camera_values(busy(), 100.0))
    assert values['input_rate_hz'] == '0.40'
    assert values['output_rate_hz'] == '0.10'
    assert values['read_ratio'] == '1.000'
    assert values['latency_p95_ms'] == values['latency_max_ms'] == '12.50'
    assert (values['received_frames'], values['dropped_frames']) == ('1', '3')
    assert values['seconds_since_image'] == '0.500'
    assert values['last_error'] == ''
