# SPDX-License-Identifier: Apache-2.0
"""The detector node under simulated time."""
from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
import pytest
from rosgraph_msgs.msg import Clock

from .graph import Graph, picture_message


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
