# SPDX-License-Identifier: Apache-2.0
"""Run the detector as a managed ROS 2 node."""
from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from .stop_signal import end_at_once, StopSignal

if TYPE_CHECKING:
    from .detector_lifecycle import DetectorNode

NAME = 'forecast_detector'

_POLL_S = 0.1  #: Longest delay of a signal while no callback runs, seconds


class InstallationError(RuntimeError):
    """A library is missing, or ROS 2 is too old; the message is one line."""


def main(args: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; return the exit code."""
    end_at_once()
    from .program import run_program

    code = run_program(NAME, _run, args, mistakes=(InstallationError,), prepare=_import)
    # Python takes a moment to exit after importing PyTorch. A second Ctrl-C must not turn a clean
    # exit into a failure.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _import() -> None:
    """Import the node, which takes seconds; raises InstallationError."""
    from rclpy.node import Node

    if not hasattr(Node, 'add_post_set_parameters_callback'):
        raise InstallationError(
            f'ROS 2 {os.environ.get("ROS_DISTRO", "of this installation")} is not supported, must '
            'be Jazzy or later: its rclpy has no add_post_set_parameters_callback')
    try:
        from . import detector_lifecycle  # noqa: F401
    except ImportError as error:
        raise InstallationError(f'{error.name or "a library"} is missing: {error}') from None


def _run(stop: StopSignal) -> int:
    from .detector_lifecycle import DetectorNode
    from .program import GuardedExecutor

    node = DetectorNode(NAME)
    executor = GuardedExecutor(NAME)
    try:
        executor.add_node(node)
        if node.fixed.autostart:
            # Loading and preparing the network also takes seconds.
            with stop.ending_at_once():
                if not _start(node):
                    return 1
        else:
            node.get_logger().info('unconfigured: waits for the transitions configure and '
                                   'activate (with autostart:=true it takes them by itself)')
        while not stop:
            executor.spin_once(timeout_sec=_POLL_S)
            if node.fixed.autostart and node.given_up:
                # No manager would activate it again; a launch file can start a new process.
                node.get_logger().fatal('the node gave up, and with autostart nobody activates '
                                        'it again: the process ends with exit code 1')
                return 1
        return 0
    finally:
        executor.shutdown()
        node.close()
        node.destroy_node()


def _start(node: DetectorNode) -> bool:
    """Configure and activate the node; return whether both succeeded."""
    from rclpy.lifecycle import TransitionCallbackReturn

    return all(transition() == TransitionCallbackReturn.SUCCESS
               for transition in (node.trigger_configure, node.trigger_activate))


if __name__ == '__main__':
    sys.exit(main())
