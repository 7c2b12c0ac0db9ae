# SPDX-License-Identifier: Apache-2.0
"""Check that an error in a callback does not end the process, and that a fatal error does."""
from collections.abc import Iterator

from forecast_detector_ros.node import program
from forecast_detector_ros.node.program import GuardedExecutor, MOST_IN_A_ROW, run_program
import pytest
import rclpy
from rclpy.node import Node


@pytest.fixture
def node(ros_domain: int) -> Iterator[Node]:
    rclpy.init(args=[])
    made = Node('guarded')
    yield made
    made.destroy_node()
    rclpy.try_shutdown()


def fail() -> None:
    raise ValueError('of the callback\n' * 100)


def test_node_continues_after_a_callback_fails(
        node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    executor = GuardedExecutor('guarded')
    executor.add_node(node)
    ticks: list[str] = []

    def tick_and_fail() -> None:
        ticks.append('bad')
        fail()

    bad = node.create_timer(0.01, tick_and_fail)
    node.create_timer(0.01, lambda: ticks.append('good'))
    for _ in range(100):
        executor.spin_once(timeout_sec=1.0)
        if min(map(ticks.count, ('bad', 'good'))) >= 3:
            break
    assert min(map(ticks.count, ('bad', 'good'))) >= 3
    node.destroy_timer(bad)
    executor.shutdown()
    said = capfd.readouterr().err
    assert 'a callback failed, the node goes on: ValueError' in said
    assert __file__ in said
    # The traceback is printed only once.
    assert said.count('in tick_and_fail') == 1


def test_executor_that_only_fails_gives_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = GuardedExecutor('guarded')

    def broken(*_: object) -> None:
        raise OSError('no more files')

    monkeypatch.setattr(program.SingleThreadedExecutor, 'spin_once', broken)
    for _ in range(MOST_IN_A_ROW):
        executor.spin_once()
    with pytest.raises(OSError, match='no more files'):
        executor.spin_once()


def test_fatal_errors_pass(node: Node) -> None:
    executor = GuardedExecutor('guarded', (ValueError,))
    executor.add_node(node)
    node.create_timer(0.01, fail)
    with pytest.raises(ValueError, match='of the callback'):
        executor.spin_once(timeout_sec=10.0)
    executor.shutdown()


@pytest.mark.parametrize(('argument', 'complaint'), [
    ('--unknown', "unknown arguments after --ros-args: ['--unknown']"),
    ('--log-level', 'failed to initialize rcl: '),
    ('caf\udce9', 'caf: arguments must be UTF-8')])
def test_invalid_ros_argument_is_one_line(
        capfd: pytest.CaptureFixture[str], argument: str, complaint: str) -> None:
    assert run_program('guarded', lambda stop: 0, ['program', '--ros-args', argument]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if '[guarded]' in line]
    assert complaint in line
