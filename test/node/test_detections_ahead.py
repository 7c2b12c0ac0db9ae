# SPDX-License-Identifier: Apache-2.0
"""Check /detections_ahead: the detections that are expected one period after an image."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from forecast_detector_ros.detector.checkpoint import load_checkpoint, save_checkpoint
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
import torch
from vision_msgs.msg import Detection2DArray

from .graph import Graph, picture_message

Active = Callable[..., Graph]

START = 1_000_000_000_000
MS = 1_000_000


def listen(graph: Graph) -> list[Detection2DArray]:
    """Subscribe to /detections_ahead; return the list that receives the messages."""
    heard = graph.listen(Detection2DArray, 'detections_ahead')
    graph.spin_until(lambda: graph.detector.count_subscribers('detections_ahead') == 1
                     and graph.client.count_publishers('detections_ahead') == 1)
    graph.spin_for(0.2)
    return heard


def stamp_of(message: Detection2DArray) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def at(*stamps_ms: int) -> list[Any]:
    return [picture_message(number, stamp_ns=START + stamp * MS)
            for number, stamp in enumerate(stamps_ms)]


def told(message: Detection2DArray) -> list[Any]:
    return [(item.bbox, item.results, item.id) for item in message.detections]


def test_expected_detections_are_those_of_the_next_forecast_frame(active: Active) -> None:
    graph = active(publish_ahead=True, policy='alternate(1)', score_threshold=0.2,
                   max_detections=10)
    heard = listen(graph)
    images = [picture_message(number) for number in range(8)]
    decided = graph.send(graph.camera(), *images)
    graph.spin_until(lambda: len(heard) == 5)
    # Three gaps must be known, so the first message is for the fifth image.
    assert [stamp_of(message) for message in heard] == [
        START + number * 100 * MS for number in range(4, 9)]
    assert [message.header.frame_id for message in heard] == [
        f'camera_{number}' for number in range(3, 8)]
    assert all(item.header == message.header for message in heard for item in message.detections)
    forecast = 0
    for expected, shown, decision in zip(heard, graph.detections[4:], decided[4:]):
        assert stamp_of(expected) == stamp_of(shown)
        if decision['decision'] == 'forecast':
            forecast += 1
            known = [row for row in told(expected) if row[-1]]
            assert known and known == [row for row in told(shown) if row in known]
            assert [row[:2] for row in told(expected)] == [row[:2] for row in told(shown)]
    assert forecast == 2


def test_drop_keeps_the_period_and_a_jump_back_forgets_it(active: Active) -> None:
    graph = active(publish_ahead=True, policy='always_read')
    heard = listen(graph)
    graph.send(graph.camera(), *at(0, 50, 100, 150, 250, 300, 20, 120, 220, 320))
    graph.spin_until(lambda: len(heard) == 4)
    graph.spin_for(0.2)
    assert [(stamp_of(message) - START) // MS for message in heard] == [200, 300, 350, 420]


@pytest.mark.parametrize('ahead', [True, False])
def test_topic_exists_on_request_and_costs_nothing_without_listeners(
        active: Active, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from forecast_detector_ros.node.camera_stream import CameraStream
    asked: list[bool] = []
    original = CameraStream.look_ahead
    monkeypatch.setattr(CameraStream, 'look_ahead',
                        lambda *given: asked.append(True) or original(*given))
    graph = active(publish_ahead=ahead, policy='always_read')
    topics = [name for name, _ in graph.detector.get_publisher_names_and_types_by_node(
        'forecast_detector', '/')]
    assert ('/detections_ahead' in topics) == ahead
    graph.send(graph.camera(), *map(picture_message, range(5)))
    assert not asked
    if ahead:
        heard = listen(graph)
        graph.send(graph.camera(), picture_message(5))
        graph.spin_until(lambda: len(heard) == 1)


def test_listener_of_detections_ahead_keeps_a_lazy_node_awake(active: Active) -> None:
    graph = active(publish_ahead=True, lazy=True, lazy_timeout=0.5, policy='always_read')
    heard = listen(graph)
    camera = graph.camera()
    for each in list(graph.client.subscriptions):
        if each.topic_name in ('/detections', '/decision'):
            graph.client.destroy_subscription(each)
    graph.spin_for(2.0)
    assert camera.get_subscription_count() == 1
    for number in range(4):
        camera.publish(picture_message(number))
        graph.spin_for(0.3)
    graph.spin_until(lambda: len(heard) == 1)


@pytest.mark.parametrize('variant', ['baseline', 'persistence'])
def test_detector_without_forecasts_is_refused_in_one_line(
        graph: Graph, tmp_path: Path, capfd: pytest.CaptureFixture[str], variant: str) -> None:
    network, card = load_checkpoint(graph.checkpoint)
    plain = network.with_variant(variant)
    path = tmp_path / 'plain.safetensors'
    save_checkpoint(path, plain, replace(card, network=plain.config, weights_sha256=''),
                    torch.float32)
    graph.checkpoint = path
    node = graph.add_detector([Parameter('publish_ahead', value=True)])
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    lines = [line for line in capfd.readouterr().err.splitlines() if 'cannot configure' in line]
    assert len(lines) == 1 and 'publish_ahead is true, but small forecasts nothing' in lines[0]
    assert variant in lines[0]
    other = graph.add_detector([])
    assert other.trigger_configure() == TransitionCallbackReturn.SUCCESS
