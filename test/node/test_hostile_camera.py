# SPDX-License-Identifier: Apache-2.0
"""Check that bad messages of one camera do not affect others, and give only short lines."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import isnan
from random import Random

from dev.fuzz_node.pictures import HostileMessages
from dev.fuzz_node.trial import Answer, answer_of, same_answer
from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.detector.detector import Detector, StepResult
from forecast_detector_ros.node.program import GuardedExecutor
import numpy as np
import pytest
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from .graph import Graph, picture_message, values_of

TOPICS = tuple(f'camera_{number}' for number in range(8))
ROUNDS = 5


def picture(topic: str, index: int) -> Image:
    """Return image `index` of a camera; its frame_id names both."""
    message = picture_message(index, seed=100 * TOPICS.index(topic) + index)
    message.header.frame_id = f'{topic} {index}'
    return message


def answer(result: StepResult, labels: tuple[str, ...]) -> Answer:
    """Return the answer of a clean run, in the form of `answer_of`."""
    decision, found = result.decision, result.detections
    confidence = -1.0 if isnan(decision.confidence) else decision.confidence
    return ((decision.kind, decision.reason, *(labels[label] for label in found.labels)),
            np.array([confidence, *found.scores]), found.boxes)


def clean_run(detector: Detector, topic: str) -> dict[str, Answer]:
    """Return the answers to the images of a single camera, by frame_id."""
    stream, answers = detector.stream(policy='alternate(1)'), {}
    for index in range(ROUNDS):
        message = picture(topic, index)
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        stamp = message.header.stamp
        result = stream(pixels, stamp.sec + stamp.nanosec * 1e-9)
        answers[message.header.frame_id] = answer(result, detector.labels)
    return answers


def test_hostile_camera_does_not_affect_seven_others(graph: Graph) -> None:
    graph.executor.remove_node(graph.client)
    # The program uses this executor, too. Some of the messages cannot be deserialised.
    graph.executor = GuardedExecutor('hostile')
    graph.executor.add_node(graph.client)
    random = Random(1)
    hostile = HostileMessages('raw', random)
    graph.add_detector([Parameter('image_topics', value=list(TOPICS)),
                        Parameter('policy', value='alternate(1)')])
    graph.activate()
    *sound, bad = [graph.camera(topic) for topic in TOPICS]

    def trouble(garbage: bool) -> None:
        while ((made := hostile.refused()).kind == 'garbage') != garbage:
            pass
        bad.publish(made.message)

    def refused() -> int:
        return graph.detector._streams[7].statistics.refused

    for index in range(ROUNDS):
        for camera, topic in zip(sound, TOPICS):
            for _ in range(random.randrange(3)):
                trouble(random.random() < 0.5)
            camera.publish(picture(topic, index))
        # The middleware may drop bytes that are not a message. Bad images are always counted.
        trouble(garbage=True)
        graph.spin_for(0.02)
        before = refused()
        trouble(garbage=False)
        graph.spin_until(lambda before=before: refused() > before)
        graph.spin_until(lambda wanted=7 * (index + 1): len(graph.decisions) >= wanted
                         and len(graph.detections) >= wanted)
    graph.spin_for(0.2)

    expected: dict[str, Answer] = {}
    detector = Detector.load(graph.checkpoint, backend='torch')
    for topic in TOPICS[:7]:
        expected |= clean_run(detector, topic)
    for heard in (graph.detections, graph.decisions):
        assert Counter(message.header.frame_id for message in heard) == dict.fromkeys(expected, 1)
    found = {message.header.frame_id: message for message in graph.detections}
    decided = {message.header.frame_id: message for message in graph.decisions}
    assert [name for name, clean in expected.items()
            if not same_answer(answer_of(found[name], decided[name]), clean)] == []
    assert sum(len(boxes) for _, _, boxes in expected.values()) > 100


def test_refusals_of_one_camera_do_not_hide_those_of_another(
        active: Callable[..., Graph], capfd: pytest.CaptureFixture[str]) -> None:
    graph = active(image_topics=['left', 'right'])
    broken = picture_message(0)
    broken.step = 1
    cameras = [graph.camera(topic) for topic in ('left', 'right')]
    for wanted in (1, 2):
        for camera, stream in zip(cameras, graph.detector._streams):
            camera.publish(broken)
            graph.spin_until(lambda stream=stream, wanted=wanted:
                             stream.statistics.refused == wanted)
    lines = [line for line in capfd.readouterr().err.splitlines() if 'refused' in line]
    assert [line.split('/')[1].split(':')[0] for line in lines] == ['left', 'right']


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_text_of_any_length_becomes_a_short_line(
        active: Callable[..., Graph], capfd: pytest.CaptureFixture[str], transport: str) -> None:
    graph = active(image_transport=transport)
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    if transport == 'raw':
        message = picture_message(0)
        message.encoding = 'x' * 100_000
        graph.camera().publish(message)
    else:
        graph.camera('image_raw/compressed').publish(
            CompressedImage(format='x' * 100_000, data=b'GIF89a' + bytes(20)))
    graph.spin_until(lambda: bool(heard) and values_of(heard[-1])['decode_errors'] == '1')
    error = values_of(heard[-1])['last_error']
    assert 'of 100000 characters' in error and len(error) < 500
    assert heard[-1].status[0].message == f'images are refused: {error}'
    (line,) = [line for line in capfd.readouterr().err.splitlines() if 'refused' in line]
    assert error in line and len(line) < 600
