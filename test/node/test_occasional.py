# SPDX-License-Identifier: Apache-2.0
"""A closed group keeps the executor from what is in it, and loses nothing."""
from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.node.occasional import OccasionalGroup
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy

from .graph import Graph, picture_message


def test_event_waits_for_the_group_to_open(graph: Graph) -> None:
    node, group, calls = graph.client, OccasionalGroup(), []
    guard = node.create_guard_condition(lambda: calls.append(1), callback_group=group)
    executor = graph.executor
    group.is_open = False
    guard.trigger()
    for _ in range(5):
        executor.spin_once(timeout_sec=0.02)
    assert calls == []
    group.is_open = True
    graph.spin_until(lambda: calls == [1])
    node.destroy_guard_condition(guard)


def test_images_close_the_publishers_events_and_diagnostics_open_them(
        active: Callable[..., Graph]) -> None:
    graph = active(diagnostics_period=60.0)
    assert graph.detector._outputs is not None
    events = graph.detector._outputs._events

    def waited_for() -> int:
        return sum(SingleThreadedExecutor.can_execute(graph.executor, item)
                   for item in graph.detector.waitables if events.has_entity(item))

    # Every publisher of ours has some.
    assert waited_for() >= 7
    graph.send(graph.camera(), picture_message())
    assert waited_for() == 0
    graph.detector._on_diagnostics()
    assert waited_for() >= 7


def test_subscriber_that_does_not_fit_is_warned_of_while_images_come(
        active: Callable[..., Graph], capfd: pytest.CaptureFixture[str]) -> None:
    graph = active()
    camera = graph.camera()
    graph.send(camera, picture_message(0))
    # The decisions are published best effort.
    graph.listen(DiagnosticArray, 'decision',
                 QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE))
    for index in range(1, 6):
        graph.send(camera, picture_message(index))
        graph.spin_for(0.1)
    assert 'requesting incompatible QoS' in capfd.readouterr().err
