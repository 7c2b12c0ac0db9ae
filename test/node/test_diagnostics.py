# SPDX-License-Identifier: Apache-2.0
"""Check the messages of /diagnostics in several situations, also under simulated time."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isnan
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from forecast_detector_ros.node.diagnostics import (
    camera_values,
    CameraStatistics,
    health,
    Situation,
    WINDOW_S,
)
import pytest
from rosgraph_msgs.msg import Clock

from .graph import Graph, picture_message, values_of


def filled(frames: int = 100, rate: float = 10.0, start: float = 100.0) -> CameraStatistics:
    """Return statistics of `frames` frames; every fourth is read, and one drop precedes each."""
    statistics = CameraStatistics(start)
    for index in range(frames):
        now = start + index / rate
        statistics.add_image(now, 1)
        statistics.add_result(now, index % 4 == 0, float(index + 1))
    return statistics


def test_rates_count_dropped_images_as_input_only() -> None:
    statistics = filled()
    window = statistics.summary(110.0)
    assert window.input_rate == pytest.approx(20.0)
    assert window.output_rate == pytest.approx(10.0)
    assert window.read_ratio == 0.25
    assert (statistics.received, statistics.processed, statistics.dropped) == (100, 100, 100)


def test_latencies_are_percentiles() -> None:
    window = filled().summary(110.0)
    assert window.latency_p50_ms == pytest.approx(50.5)
    assert window.latency_p95_ms == pytest.approx(95.05)
    assert window.latency_max_ms == 100.0


def test_window_forgets_old_frames_and_counts_keep_them() -> None:
    statistics = filled()
    window = statistics.summary(110.0 + 2 * WINDOW_S)
    assert (window.input_rate, window.output_rate) == (0.0, 0.0)
    assert isnan(window.read_ratio)
    assert isnan(window.latency_max_ms)
    assert statistics.processed == 100


def test_rate_of_a_new_camera_is_right() -> None:
    assert filled(frames=10).summary(101.0).output_rate == pytest.approx(10.0)


def test_rate_of_a_full_window_is_right() -> None:
    window = filled(frames=20000, rate=2000.0).summary(110.0)
    assert window.input_rate == pytest.approx(4000.0, rel=0.01)
    assert window.output_rate == pytest.approx(2000.0, rel=0.01)


def test_clock_set_back_empties_the_window() -> None:
    statistics = filled()
    statistics.add_image(3.0, 0)
    statistics.add_result(3.0, True, 5.0)
    window = statistics.summary(4.0)
    assert (window.input_rate, window.output_rate, window.read_ratio) == (1.0, 1.0, 1.0)


def test_silence_is_counted_from_the_start_or_the_last_image() -> None:
    statistics = CameraStatistics(10.0)
    assert statistics.silent_for(12.5) == 2.5
    statistics.add_image(20.0, 0)
    assert statistics.silent_for(21.0) == 1.0
    statistics.resume(50.0)
    assert statistics.silent_for(51.0) == 1.0


def test_error_is_remembered_and_reported_for_one_window() -> None:
    statistics = CameraStatistics(0.0)
    assert not statistics.had_error(1.0)
    statistics.add_error(1.0, 'step is 3')
    assert statistics.had_error(1.0 + WINDOW_S)
    assert not statistics.had_error(1.5 + WINDOW_S)
    assert (statistics.refused, statistics.last_error) == (1, 'step is 3')


def test_image_before_simulated_time_does_not_belong_to_the_window() -> None:
    statistics = CameraStatistics(0.0)
    statistics.add_image(0.0, 0)
    statistics.add_image(1000.0, 0)
    assert statistics.summary(1000.5).input_rate == 2.0
    assert statistics.received == 2


def test_rate_without_a_measurement_is_nan() -> None:
    assert isnan(CameraStatistics(5.0).summary(5.0).input_rate)


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


def test_values_have_counts_and_figures() -> None:
    values = dict(camera_values(busy(), 100.0))
    assert values['input_rate_hz'] == '0.40'
    assert values['output_rate_hz'] == '0.10'
    assert values['read_ratio'] == '1.000'
    assert values['latency_p95_ms'] == values['latency_max_ms'] == '12.50'
    assert (values['received_frames'], values['dropped_frames']) == ('1', '3')
    assert values['seconds_since_image'] == '0.500'
    assert values['last_error'] == ''


@pytest.mark.parametrize(('resets', 'frames', 'level'), [
    (1, 1, DiagnosticStatus.OK), (2, 2, DiagnosticStatus.WARN), (2, 4, DiagnosticStatus.OK),
    (3, 5, DiagnosticStatus.WARN), (50, 100, DiagnosticStatus.OK)])
def test_resets_of_most_frames_in_the_window_are_a_warning(
        resets: int, frames: int, level: bytes) -> None:
    statistics = CameraStatistics(80.0)
    for index in range(frames):
        statistics.add_image(99.0, 0)
        statistics.add_result(99.0, True, 1.0, 'gap' if index < resets else 'scheduler')
    assert health(NORMAL, statistics)[0] == level
    later = replace(NORMAL, now=99.5 + WINDOW_S, no_image_timeout=100.0)
    assert health(later, statistics)[0] == DiagnosticStatus.OK, 'the window has passed'
    assert dict(camera_values(statistics, 200.0))['state_resets'] == str(resets)


@pytest.mark.parametrize(('limits', 'kept', 'dropped', 'age_ms', 'words'), [
    ({'min_output_rate': 15.0}, 20, 0, 50.0, ''),
    ({'min_output_rate': 15.0}, 10, 0, 50.0, '10.0 frames per second, min_output_rate is 15: 10.0 '
     'images per second were sent, the camera sends no more'),
    ({'min_output_rate': 15.0}, 10, 1, 50.0, '20.0 images per second were sent, the detector'),
    ({'max_age_s': 0.2}, 10, 0, 150.0, ''),
    ({'max_age_s': 0.2}, 10, 0, 1500.0, 'boxes are 1.5 s old, max_age_s is 0.2'),
    ({'max_age_s': 0.2}, 10, 0, -5.0, ''),
    ({'max_age_s': 0.2}, 10, 0, -250.0, 'stamps lie 0.25 s in the future'),
    ({}, 1, 5, 1e9, '')])
def test_rate_or_age_beyond_its_limit_is_a_warning(
        limits: dict[str, float], kept: int, dropped: int, age_ms: float, words: str) -> None:
    statistics = CameraStatistics(96.0)
    for index in range(4 * kept):
        time = 96.0 + index / kept
        statistics.add_image(time, dropped)
        statistics.add_result(time, True, 1.0, 'scheduler', age_ms)
    level, text = health(replace(NORMAL, **limits), statistics)
    assert (level == DiagnosticStatus.WARN) == bool(words)
    assert (words or 'running') in text
    assert dict(camera_values(statistics, 100.0))['image_age_p50_ms'] == f'{age_ms:.2f}'
    statistics.resume(99.0)
    assert health(replace(NORMAL, **limits), statistics)[0] == DiagnosticStatus.OK, 'too early'


@pytest.mark.parametrize(('change', 'words'), [
    ({'stamp_ns': 0}, 'their stamps step back, or lie more than max_gap_s apart'),
    ({'size': (40, 60)}, 'their size changes')])
def test_camera_whose_state_is_reset_repeatedly_is_a_warning(
        active: Callable[..., Graph], change: dict[str, Any], words: str) -> None:
    graph = active(policy='always_read')
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    graph.send(graph.camera(), *(
        picture_message(index, **(change if index % 2 else {})) for index in range(6)))
    graph.spin_until(lambda: bool(heard) and values_of(heard[-1])['processed_frames'] == '6')
    status = heard[-1].status[0]
    assert (status.level, status.message) == (
        DiagnosticStatus.WARN, f'most images reset the state: {words}')
    assert values_of(heard[-1])['state_resets'] == '5'


def test_simulated_time_gives_ages(active: Callable[..., Graph]) -> None:
    graph = active(use_sim_time=True, policy='always_read')
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    graph.spin_until(lambda: bool(heard) and '/clock' in heard[-1].status[0].message)
    clock = graph.client.create_publisher(Clock, '/clock', 10)
    graph.spin_until(lambda: clock.get_subscription_count() > 0)
    image = picture_message(0)
    now = Clock()
    now.clock.sec = image.header.stamp.sec + 2
    clock.publish(now)
    graph.spin_until(lambda: graph.detector.get_clock().now().nanoseconds > 0)
    (values,) = graph.send(graph.camera(), image)
    assert float(values['image_age_ms']) == pytest.approx(2000.0)
    assert float(values['latency_ms']) > 0.0


def test_time_before_the_clock_is_not_silence(active: Callable[..., Graph]) -> None:
    graph = active(use_sim_time=True)
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    graph.spin_until(lambda: bool(heard) and '/clock' in heard[-1].status[0].message)
    clock = graph.client.create_publisher(Clock, '/clock', 10)
    graph.spin_until(lambda: clock.get_subscription_count() > 0)

    def pass_time(nanoseconds: int) -> DiagnosticArray:
        now = Clock()
        now.clock.sec, now.clock.nanosec = 1_700_000_000, nanoseconds
        clock.publish(now)
        graph.spin_until(lambda: heard[-1].header.stamp == now.clock)
        return heard[-1]

    assert pass_time(0).status[0].message == 'waiting for the first image'
    graph.send(graph.camera(), picture_message(0))
    last = pass_time(500_000_000)
    assert last.status[0].message == 'running'
    assert values_of(last)['input_rate_hz'] == values_of(last)['output_rate_hz'] == '2.00'
