# SPDX-License-Identifier: Apache-2.0
"""Check that an exception in a transition is logged once and leaves a known state."""
from __future__ import annotations

from typing import Any

from forecast_detector_ros.node import detector_lifecycle
from forecast_detector_ros.node.detector_lifecycle import DetectorNode
from lifecycle_msgs.srv import ChangeState, GetState
import pytest
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from .graph import Graph, picture_message

SUCCESS = TransitionCallbackReturn.SUCCESS


class FlawError(Exception):
    """An error that the node does not expect."""


def fail_once(patch: pytest.MonkeyPatch, holder: Any, name: str) -> None:
    """Make only the next call of a function fail."""
    original, calls = getattr(holder, name), []

    def call(*arguments: Any) -> Any:
        calls.append(name)
        if len(calls) == 1:
            raise FlawError(f'unforeseen in {name}')
        return original(*arguments)

    patch.setattr(holder, name, call)


def request(graph: Graph, transition: str) -> bool:
    """Request a transition, as a life-cycle manager does; return whether it succeeded."""
    wanted = ChangeState.Request()
    wanted.transition.label = transition
    return bool(graph.call(ChangeState, 'change_state', wanted).success)


def state(graph: Graph) -> str:
    return str(graph.call(GetState, 'get_state', GetState.Request()).current_state.label)


@pytest.mark.parametrize(('way', 'holder', 'name', 'told'), [
    ('configure', LifecycleNode, 'on_configure', 'cannot configure'),
    ('configure activate', detector_lifecycle, 'CameraStatistics', 'cannot activate'),
    ('configure activate deactivate', DetectorNode, '_unsubscribe', 'cannot deactivate'),
    ('configure cleanup', LifecycleNode, 'on_cleanup', 'cannot clean up'),
    ('configure cleanup', detector_lifecycle, 'give_back_free_blocks', 'cannot clean up'),
    ('configure activate shutdown', LifecycleNode, 'on_shutdown', 'cannot shut down')])
def test_error_in_a_transition_is_logged_once_and_the_node_can_be_configured(
        graph: Graph, capfd: pytest.CaptureFixture[str], way: str, holder: Any, name: str,
        told: str) -> None:
    node = graph.add_detector([])
    *before, last = way.split()
    assert all(request(graph, transition) for transition in before)
    with pytest.MonkeyPatch.context() as patch:
        fail_once(patch, holder, name)
        assert not request(graph, last)
    said = capfd.readouterr().err
    assert said.count(f'{told}: FlawError: unforeseen in {name}\n  File "') == 1
    assert said.count('FlawError: ') == 1
    assert state(graph) == 'unconfigured'
    assert request(graph, 'configure')
    assert node.has_parameter('threshold')


def test_node_answers_images_after_an_error(
        graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    graph.add_detector([])
    fail_once(monkeypatch, LifecycleNode, 'on_activate')
    assert request(graph, 'configure') and not request(graph, 'activate')
    graph.activate()
    assert len(graph.send(graph.camera(), picture_message(0))) == 1


def test_error_after_an_error_finalises_the_node(
        graph: Graph, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
        ) -> None:
    graph.add_detector([])
    fail_once(monkeypatch, LifecycleNode, 'on_configure')
    fail_once(monkeypatch, LifecycleNode, 'on_error')
    assert not request(graph, 'configure')
    said = capfd.readouterr().err
    for told in ('cannot configure: FlawError: unforeseen in on_configure\n  File "',
                 'cannot clean up after an error: FlawError: unforeseen in on_error\n  File "'):
        assert said.count(told) == 1
    assert state(graph) == 'finalized'
    assert not request(graph, 'configure')


def test_repeated_error_is_logged_each_time(
        graph: Graph, capfd: pytest.CaptureFixture[str]) -> None:
    node = graph.add_detector([])
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            fail_once(patch, detector_lifecycle, 'read_settings')
            assert node.trigger_configure() != SUCCESS
        assert capfd.readouterr().err.count('cannot configure: FlawError') == 1
