# SPDX-License-Identifier: Apache-2.0
"""Check the node's publishers: their events, the annotated picture, and a lazy node."""
from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.detector.policy import Decision, FORECAST, READ
from forecast_detector_ros.detector.processing import Detections
from forecast_detector_ros.images.frame import Pixels
from forecast_detector_ros.node.outputs import draw_answer, Idle, OccasionalGroup
from forecast_detector_ros.recording.drawing import RED
import numpy as np
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

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

    # Every publisher of the node has events.
    assert waited_for() >= 7
    graph.send(graph.camera(), picture_message())
    assert waited_for() == 0
    graph.detector._on_diagnostics()
    assert waited_for() >= 7


def test_incompatible_subscriber_is_warned_of_while_images_come(
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


Active = Callable[..., Graph]

PICTURES = {'image_annotated': Image, 'image_annotated/compressed': CompressedImage}


@pytest.mark.parametrize('topic', PICTURES)
def test_picture_reaches_both_kinds_of_viewers_without_waiting(
        active: Active, topic: str) -> None:
    graph = active(policy='always_read')
    camera = graph.camera()
    reliable = QoSProfile(depth=1)
    heard = [graph.listen(PICTURES[topic], topic, qos) for qos in (
        reliable, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))]
    sleeper = Node('sleeper')
    sleeper.create_subscription(PICTURES[topic], topic, print, reliable)
    assert graph.detector._outputs is not None
    publisher = {'image_annotated': graph.detector._outputs._picture,
                 'image_annotated/compressed': graph.detector._outputs._jpeg}[topic]
    graph.spin_until(lambda: publisher.get_subscription_count() == 3)
    graph.send(camera, *(picture_message(index, size=(480, 640)) for index in range(8)))
    graph.spin_until(lambda: all(pictures and pictures[-1].header.frame_id == 'camera_7'
                                 for pictures in heard))
    sleeper.destroy_node()


def test_reliability_of_the_picture_can_be_overridden(active: Active) -> None:
    name = 'qos_overrides./image_annotated.publisher.reliability'
    graph = active(**{name: 'best_effort'})
    (offered,) = graph.client.get_publishers_info_by_topic('/image_annotated')
    assert offered.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_rest_begins_after_the_timeout_and_ends_at_once() -> None:
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


def test_node_does_not_rest_unless_it_is_lazy(active: Active) -> None:
    graph = active(lazy=False, lazy_timeout=0.1)
    camera = graph.camera()
    for each in [each for each in graph.client.subscriptions
                 if each.topic_name in ('/detections', '/decision')]:
        graph.client.destroy_subscription(each)
    graph.spin_for(1.5)
    assert camera.get_subscription_count() == 1


HEIGHT, WIDTH = 120, 160
FORECAST_FRAME = Decision(FORECAST, 'scheduler', 0.9, 0.5, 1)
READ_FRAME = Decision(READ, 'scheduler', 0.1, 0.5, 0)


def one(box: tuple[float, float, float, float]) -> Detections:
    return Detections(np.array([box], np.float32), np.array([0]), np.array([0.5], np.float32))


@pytest.mark.parametrize(('order', 'channels'), [
    ('bgr', 3), ('rgb', 3), ('bgra', 4), ('rgba', 4), ('mono', 1)])
def test_every_channel_order_becomes_bgr_and_the_picture_stays(order: str, channels: int) -> None:
    array = np.full((HEIGHT, WIDTH, channels), 10, np.uint8)
    array[..., 0] = 200
    array = array[..., 0] if order == 'mono' else array
    before = array.copy()
    drawn = draw_answer(Pixels(array, order), one((40, 40, 80, 80)), ('cat',), FORECAST_FRAME)
    np.testing.assert_array_equal(array, before)
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    expected = {'mono': [200, 200, 200], 'rgb': [10, 10, 200], 'rgba': [10, 10, 200]}
    assert drawn[60, 120].tolist() == expected.get(order, [200, 10, 10])


def test_border_is_red_on_forecast_frames_only() -> None:
    pixels = Pixels(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 'bgr')
    for decision, bordered in ((FORECAST_FRAME, True), (READ_FRAME, False)):
        drawn = draw_answer(pixels, one((40, 40, 80, 80)), ('cat',), decision)
        edges = (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1])
        assert [bool((edge == RED).all()) for edge in edges] == [bordered] * 4


def test_box_is_drawn_where_it_is_and_clipped() -> None:
    pixels = Pixels(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 'bgr')
    drawn = draw_answer(pixels, one((40, 50, 90, 95)), ('cat',), READ_FRAME)
    assert drawn[70, 40].any() and drawn[70, 90].any() and drawn[95, 60].any()
    assert not drawn[70, 60].any()
    draw_answer(pixels, one((-500, -500, 5000, 5000)), ('cat',), READ_FRAME)
