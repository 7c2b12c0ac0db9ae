# SPDX-License-Identifier: Apache-2.0
"""The detector node under simulated time."""
from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
import pytest
from rosgraph_msgs.msg import Clock

from .graph import Graph, picture_message, values_of


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


def test_time_before_the_clock_is_no_silence(active: Callable[..., Graph]) -> None:
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
