# SPDX-License-Identifier: Apache-2.0
"""Check that an error inside the node costs a frame or a transition, never the process."""
from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from time import monotonic, sleep
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from forecast_detector_ros.node import camera_stream, detector_lifecycle, detector_node
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from .graph import Graph, PATIENCE_S, picture_message, values_of

Active = Callable[..., Graph]

FAILURE, SUCCESS = TransitionCallbackReturn.FAILURE, TransitionCallbackReturn.SUCCESS


class FlawError(Exception):
    """An error that the node does not expect."""


def breaking(graph: Graph, monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]
             ) -> list[int]:
    """Make reads fail whose number satisfies `fails`; return the list of all read numbers."""
    assert graph.detector._detector is not None
    backend = graph.detector._detector._backend
    read, numbers = backend.read_step, []

    def read_step(*arguments: Any) -> Any:
        numbers.append(len(numbers))
        if fails(numbers[-1]):
            raise FlawError('the device\nis on fire')
        return read(*arguments)

    monkeypatch.setattr(backend, 'read_step', read_step)
    return numbers


def state(graph: Graph) -> str:
    return str(graph.detector._state_machine.current_state[1])


def test_frame_on_which_the_back_end_fails_is_dropped_and_reported(
        active: Active, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
        ) -> None:
    graph = active(policy='always_read')
    camera = graph.camera()
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    graph.send(camera, picture_message(0))
    breaking(graph, monkeypatch, lambda number: number in (0, 1))
    for index in (1, 2):
        camera.publish(picture_message(index))
        graph.spin_until(lambda wanted=str(index): bool(heard)
                         and values_of(heard[-1])['failed_frames'] == wanted)
    status = heard[-1].status[0]
    assert status.level == status.ERROR
    assert status.message == 'frames fail: FlawError: the device is on fire'
    assert len(graph.decisions) == len(graph.detections) == 1
    (values,) = graph.send(camera, picture_message(3))
    assert values['reason'] == 'policy', 'the state is what it was'
    said = capfd.readouterr().err
    assert said.count('FlawError: the device is on fire') == 1
    assert 'read_step' in said, 'where it happened'


def test_node_deactivates_after_failures_in_a_row(
        active: Active, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = active(policy='always_read', max_failures=3)
    camera = graph.camera()
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    # Two reads fail, one succeeds, and all later ones fail.
    numbers = breaking(graph, monkeypatch, lambda number: number != 2)
    for index in range(6):
        camera.publish(picture_message(index))
        graph.spin_until(lambda wanted=index + 1: len(numbers) == wanted)
        graph.spin_for(0.05)
        assert state(graph) == ('inactive' if index == 5 else 'active')
    graph.spin_until(lambda: camera.get_subscription_count() == 0)
    graph.spin_until(lambda: heard[-1].status[0].message.startswith('deactivated itself'))
    status = heard[-1].status[0]
    assert status.level == status.ERROR
    assert '3 images in a row failed: FlawError: the device is on fire' in status.message
    monkeypatch.undo()
    assert graph.detector.trigger_activate() == SUCCESS
    graph.spin_until(lambda: camera.get_subscription_count() == 1)
    graph.spin_for(0.2)
    assert len(graph.send(camera, picture_message(9))) == 1
    graph.spin_until(lambda: heard[-1].status[0].message == 'running')


class LastingCamera:
    """A stop signal that publishes an image at each query."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._publisher = graph.client.create_publisher(Image, 'image_raw', 1)
        self._deadline = monotonic() + PATIENCE_S
        self._index = self._left = 20

    ending_at_once = nullcontext

    def __bool__(self) -> bool:
        self._index += 1
        self._publisher.publish(picture_message(self._index))
        sleep(0.02)
        # The signal comes after 20 queries with the node inactive.
        self._left -= state(self._graph) == 'inactive'
        assert monotonic() < self._deadline, 'waited in vain'
        return not self._left


@pytest.mark.parametrize('autostart', [True, False])
def test_program_ends_after_failures_only_with_autostart(
        graph: Graph, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
        autostart: bool) -> None:
    def fail(*_: Any) -> None:
        raise FlawError('the device is on fire')

    def make(name: str) -> detector_lifecycle.DetectorNode:
        node = graph.add_detector([Parameter('autostart', value=autostart),
                                   Parameter('max_failures', value=3)])
        graph.executor.remove_node(node)
        if not autostart:
            assert node.trigger_configure() == node.trigger_activate() == SUCCESS
        return node

    monkeypatch.setattr(camera_stream, 'step_stamped_many', fail)
    monkeypatch.setattr(detector_lifecycle, 'DetectorNode', make)
    assert detector_node._run(LastingCamera(graph)) == (1 if autostart else 0)
    said = capfd.readouterr().err
    assert said.count('deactivating: 3 images in a row failed') == 1
    assert said.count('the process ends with exit code 1') == int(autostart)


def test_failure_of_one_camera_does_not_affect_the_others(
        active: Active, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = active(policy='always_read', image_topics=['left', 'right'])
    left, right = graph.camera('left'), graph.camera('right')
    detector = graph.detector._detector
    assert detector is not None
    prepare = detector._prepare

    def fail_on_small(index: int, frame: Any, *others: Any) -> Any:
        if frame.size == (40, 60):
            raise FlawError('of this camera')
        return prepare(index, frame, *others)

    monkeypatch.setattr(detector, '_prepare', fail_on_small)
    for index in range(4):
        left.publish(picture_message(index, size=(40, 60)))
        right.publish(picture_message(index))
        graph.spin_until(lambda wanted=index + 1: len(graph.decisions) == wanted
                         and len(graph.detections) == wanted)
    graph.spin_for(0.2)
    assert {message.status[0].name for message in graph.decisions} == {
        'forecast_detector: /right'}
    assert state(graph) == 'active', 'failures of one camera are none in a row'


def test_failed_configure_leaves_no_publisher(graph: Graph) -> None:
    override = 'qos_overrides./decision.publisher.reliability'
    node = graph.add_detector([Parameter(override, value='eventually')])
    for _ in range(3):
        assert node.trigger_configure() == FAILURE
        graph.spin_for(0.2)
        assert graph.client.count_publishers('detections') == 0
        assert graph.client.count_publishers('/diagnostics') == 0


def test_clean_up_continues_after_a_failure(
        active: Active, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
        ) -> None:
    def fail(*_: Any) -> None:
        raise FlawError('stuck')

    with monkeypatch.context() as patch:
        patch.setattr(detector_lifecycle.DetectorNode, 'destroy_timer', fail)
        graph = active()
        assert graph.detector.trigger_deactivate() == SUCCESS
        graph.detector.trigger_cleanup()
    assert 'not everything could be released: FlawError: stuck' in capfd.readouterr().err
    graph.spin_until(lambda: graph.client.count_publishers('detections') == 0)
    assert not graph.detector.has_parameter('threshold')
