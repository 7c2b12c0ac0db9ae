# SPDX-License-Identifier: Apache-2.0
"""A lazy node rests while nobody listens; any other one works on."""
from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.node.idle import Idle
from vision_msgs.msg import Detection2DArray

from .graph import Graph, picture_message

Active = Callable[..., Graph]


def test_rest_begins_after_the_patience_and_ends_at_once() -> None:
    idle = Idle(5.0, now=100.0)
    assert not idle.rests(False, 104.9)
    assert idle.rests(False, 105.0)
    assert not idle.rests(True, 200.0)
    assert not idle.rests(False, 204.0)
    assert idle.rests(False, 205.0)


def test_lazy_node_rests_and_wakes(active: Active) -> None:
    graph = active(lazy=True, lazy_timeout=0.5, policy='always_read')
    camera = graph.camera()
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    graph.send(camera, picture_message(0))
    listeners = [each for each in graph.client.subscriptions
                 if each.topic_name in ('/detections', '/decision')]
    assert len(listeners) == 2
    for each in listeners:
        graph.client.destroy_subscription(each)
    graph.spin_until(lambda: camera.get_subscription_count() == 0)
    graph.spin_until(lambda: heard[-1].status[0].message == 'resting: nobody listens')
    assert heard[-1].status[0].level == heard[-1].status[0].OK
    found = graph.listen(Detection2DArray, 'detections')
    graph.spin_until(lambda: camera.get_subscription_count() == 1)
    graph.spin_for(0.3)
    camera.publish(picture_message(1))
    graph.spin_until(lambda: len(found) == 1)


def test_node_works_on_unless_it_is_lazy(active: Active) -> None:
    graph = active(lazy=False, lazy_timeout=0.1)
    camera = graph.camera()
    for each in [each for each in graph.client.subscriptions
                 if each.topic_name in ('/detections', '/decision')]:
        graph.client.destroy_subscription(each)
    graph.spin_for(1.5)
    assert camera.get_subscription_count() == 1
