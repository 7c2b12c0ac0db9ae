# SPDX-License-Identifier: Apache-2.0
"""Run a node that must end in order: exit codes, signals, and one line for a user's mistake."""
from __future__ import annotations

from collections.abc import Callable

import rclpy
from rclpy._rclpy_pybind11 import RCLError, UnknownROSArgsError
from rclpy.exceptions import ParameterException
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from .stop_signal import StopSignal


def run_program(name: str, body: Callable[[StopSignal], int], args: list[str] | None,
                mistakes: tuple[type[Exception], ...] = (),
                prepare: Callable[[], None] | None = None) -> int:
    """
    Run `body` between rclpy's init and shutdown and return its exit code.

    A parameter that ROS refuses, an argument nobody knows and the exceptions in `mistakes` are
    logged under `name` as one line and give exit code 2. `prepare` is run before `body`, while a
    signal still does what it did before.
    """
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RCLError as error:
        return _refuse(name, error)
    try:
        unknown = remove_ros_args(args)[1:]
        if unknown:
            return _refuse(name, f'unknown arguments: {" ".join(unknown)} (parameters are given '
                                 'as --ros-args -p name:=value)')
        if prepare is not None:
            prepare()
        return body(StopSignal())
    except UnknownROSArgsError as error:
        return _refuse(name, f'unknown arguments behind --ros-args: {error}')
    except ParameterException as error:
        return _refuse(name, error)
    except mistakes as error:
        return _refuse(name, error)
    finally:
        rclpy.try_shutdown()


def _refuse(name: str, why: object) -> int:
    get_logger(name).fatal(' '.join(str(why).split()))
    return 2
