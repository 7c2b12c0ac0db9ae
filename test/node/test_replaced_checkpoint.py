# SPDX-License-Identifier: Apache-2.0
"""Check that an overwritten checkpoint takes effect when the node is configured again."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import shutil

from forecast_detector_ros.detector.checkpoint import card_path
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from std_srvs.srv import Trigger

from .conftest import CLASSES, write_checkpoint
from .graph import Graph, picture_message

OTHERS = ('bird', 'boat', 'bus')

FAILURE, SUCCESS = TransitionCallbackReturn.FAILURE, TransitionCallbackReturn.SUCCESS

#: Name, score and box of each detection of each picture.
Answers = list[list[tuple[object, ...]]]


def overwrite(weights: Path, new_weights: bytes, new_card: bytes) -> None:
    """Write into the existing files, so that open or mapped files change."""
    for path, data in ((weights, new_weights), (card_path(weights), new_card)):
        with path.open('r+b') as file:
            file.write(data)
            file.truncate()


def ask(graph: Graph, camera: object) -> Answers:
    """Reset the node, send the same pictures and return the answers."""
    graph.call(Trigger, 'reset', Trigger.Request())
    before = len(graph.detections)
    graph.send(camera, *map(picture_message, range(4)))
    return [[(item.results[0].hypothesis.class_id, item.results[0].hypothesis.score,
              item.bbox.center.position.x, item.bbox.center.position.y, item.bbox.size_x,
              item.bbox.size_y) for item in message.detections]
            for message in graph.detections[before:]]


def names(answers: Answers) -> set[object]:
    return {item[0] for each in answers for item in each}


def test_overwritten_checkpoint_takes_effect_at_the_next_configure(
        active: Callable[..., Graph], small_checkpoint: Path, tmp_path: Path,
        capfd: pytest.CaptureFixture[str]) -> None:
    live, other = tmp_path / 'live.safetensors', tmp_path / 'other.safetensors'
    for source, target in ((small_checkpoint, live),
                           (card_path(small_checkpoint), card_path(live))):
        shutil.copyfile(source, target)
    write_checkpoint(other, OTHERS, seed=1)
    anew = other.read_bytes(), card_path(other).read_bytes()

    # Most installations use this back-end. It could keep the weights mapped from their file.
    graph = active(checkpoint=str(live), backend='openvino', policy='alternate(1)')
    node, camera = graph.detector, graph.camera()
    first = ask(graph, camera)
    assert names(first) <= set(CLASSES) and all(first)
    for data in (anew, (b'garbage' * 20_000, b'\x00garbage: [')):
        overwrite(live, *data)
        assert ask(graph, camera) == first

    assert node.trigger_deactivate() == node.trigger_cleanup() == SUCCESS
    capfd.readouterr()
    assert node.trigger_configure() == FAILURE
    (line,) = capfd.readouterr().err.splitlines()
    assert f'cannot configure: {tmp_path}/live.' in line

    overwrite(live, *anew)
    assert node.trigger_configure() == node.trigger_activate() == SUCCESS
    graph.spin_until(lambda: camera.get_subscription_count() == 1 and all(
        graph.client.count_publishers(topic) == 1 and node.count_subscribers(topic) == 1
        for topic in ('detections', 'decision')))
    graph.spin_for(0.2)
    second = ask(graph, camera)
    assert names(second) <= set(OTHERS) and all(second)
