# SPDX-License-Identifier: Apache-2.0
"""Check the names of the cameras' topics: invalid names and two names of one topic."""
from __future__ import annotations

import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from .graph import Graph, picture_message


def refusal(graph: Graph, capfd: pytest.CaptureFixture[str], topics: list[str],
            *remappings: str, transport: str = 'raw') -> str:
    """Return the one line that tells why the detector cannot be configured."""
    node = graph.add_detector([Parameter('image_topics', value=topics),
                               Parameter('image_transport', value=transport)], *remappings)
    for _ in range(2):
        capfd.readouterr()
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    (line,) = capfd.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(('topic', 'reason'), [
    ('/camera/image-raw', 'must not contain characters other than alphanumerics'),
    ('camera/', 'must not end with a forward slash'),
    ('camera//image', "must not contain repeated '/'"),
    ('2nd_camera', 'must not start with a number'),
    ('{camera}/image', 'unknown substitution: {camera}'),
    ('a' * 256, 'length')])
def test_invalid_topic_name_is_refused_with_its_reason(
        graph: Graph, capfd: pytest.CaptureFixture[str], topic: str, reason: str) -> None:
    line = refusal(graph, capfd, ['image_raw', topic])
    said = line.split('cannot configure: image_topics: ')[1]
    name, _, told = said.partition(' is no topic name: ')
    assert name.strip("'").startswith(topic[:40])
    assert reason in told and '.c:' not in told


def test_name_that_is_too_long_only_with_its_suffix_is_refused(
        graph: Graph, capfd: pytest.CaptureFixture[str]) -> None:
    assert 'is no topic name' in refusal(graph, capfd, ['a' * 240], transport='compressed')


@pytest.mark.parametrize(('topics', 'remapping', 'transport', 'resolved'), [
    (['cam', '/cam'], 'a:=b', 'raw', '/cam'),
    (['left', 'right', 'front'], 'left:=front', 'raw', '/front'),
    (['left', 'right'], 'left:=right', 'compressed', '/right/compressed'),
    (['left', 'right'], 'left/compressed:=right/compressed', 'compressed', '/right/compressed')])
def test_two_names_of_one_topic_are_refused(
        graph: Graph, capfd: pytest.CaptureFixture[str], topics: list[str], remapping: str,
        transport: str, resolved: str) -> None:
    line = refusal(graph, capfd, topics, remapping, transport=transport)
    assert line.endswith(
        f'cannot configure: image_topics names {resolved} twice: {topics}')


def test_cameras_whose_names_are_swapped_keep_them(graph: Graph) -> None:
    graph.add_detector([Parameter('image_topics', value=['left', 'right'])],
                       'left:=right', 'right:=left')
    graph.activate()
    for topic in ('left', 'right'):
        graph.send(graph.camera(topic), picture_message(0))
        status = graph.decisions[-1].status[0]
        assert (status.name, status.hardware_id) == (f'forecast_detector: /{topic}', f'/{topic}')


def test_remapped_compressed_topic_is_subscribed(graph: Graph) -> None:
    node = graph.add_detector([Parameter('image_transport', value='compressed')],
                              'image_raw/compressed:=jpeg')
    graph.activate()
    assert node.count_subscribers('/jpeg') == 1
    (stream,) = node._streams
    assert (stream.name, stream.topic) == ('/image_raw', '/jpeg')
