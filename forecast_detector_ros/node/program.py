# SPDX-License-Identifier: Apache-2.0
"""
The common part of all nodes: start and orderly end, parameters, and logs of failures.

A user's error gives one line in the log. A node survives malformed requests, and failures of
callbacks and transitions.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from time import monotonic
import traceback
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
import rclpy
from rclpy._rclpy_pybind11 import RCLError, UnknownROSArgsError
from rclpy.exceptions import InvalidParameterValueException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_service import ParameterService
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from .stop_signal import StopSignal
from ..errors import cut

_MOST_KINDS = 20  #: Kinds of failure that are distinguished; the traceback of each is logged once

_SAME_S = 5.0  #: Least seconds between two lines about a failure or request that was logged before


class FailureLog:
    """Logs failures, and limits how often the same one is logged."""

    def __init__(self, name: str) -> None:
        """Log under `name`."""
        self._name = name
        #: Time of the last line about each kind, seconds of the steady clock.
        self._told: dict[str, float] = {}

    def tell(self, what: str, error: BaseException, anew: bool = False) -> str:
        """
        Log that `what` happened because of `error`; return the reason as one line.

        The traceback is logged once for each kind of failure, or again with `anew`. A kind that
        was logged within the last 5 s is not logged. The traceback is removed from `error`: it
        would keep objects of its frames, such as images, until the next garbage collection.
        """
        frames = traceback.extract_tb(error.__traceback__)
        error.with_traceback(None)
        reason = f'{type(error).__name__}: {cut(error)}'
        place = f'{frames[-1].filename}:{frames[-1].lineno}' if frames else ''
        kind = f'{type(error).__name__} {place}'
        logger = get_logger(self._name)
        now = monotonic()
        if len(self._told) >= _MOST_KINDS and kind not in self._told:
            kind = ''  # All further kinds count as one.
        if anew or kind not in self._told:
            logger.error(f'{what}: {reason}\n{"".join(traceback.format_list(frames))}'.rstrip())
        elif now - self._told[kind] > _SAME_S:
            logger.error(f'{what}: {reason}')
        else:
            return reason
        self._told[kind] = now
        return reason


#: Most consecutive failures; after more, the executor itself is taken to be broken.
MOST_IN_A_ROW = 100


class GuardedExecutor(SingleThreadedExecutor):
    """
    Logs an exception of a callback and continues; rclpy would end the process.

    A message that cannot be deserialised, or a request on which rclpy itself fails, raises in code
    of rclpy, where no node can catch it.
    """

    def __init__(self, name: str, fatal: tuple[type[BaseException], ...] = ()) -> None:
        """Log under `name`; exceptions of the types `fatal` are raised."""
        super().__init__()
        self._log = FailureLog(name)
        self._fatal = fatal
        self._in_a_row = 0

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run one callback; raises the `fatal` types, and any after MOST_IN_A_ROW failures."""
        try:
            super().spin_once(timeout_sec)
        except self._fatal:
            raise
        except Exception as error:
            self._in_a_row += 1
            if self._in_a_row > MOST_IN_A_ROW:
                raise
            self._log.tell('a callback failed, the node goes on', error)
        else:
            self._in_a_row = 0


#: A transition of a node that has the attribute `failures`.
Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def guarded(what: str) -> Callable[[Transition], Transition]:
    """
    Log an exception of the decorated transition with its traceback, and return ERROR.

    rclpy does not log it. The line starts with `what`. After ERROR the node runs its error
    transition: the node is unconfigured if that succeeds, and finalised otherwise.
    """
    def decorate(transition: Transition) -> Transition:
        @wraps(transition)
        def run(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                return transition(node, state)
            except Exception as error:  # noqa: B902
                failures: FailureLog = node.failures
                failures.tell(what, error, anew=True)
                return TransitionCallbackReturn.ERROR
        return run
    return decorate


def run_program(name: str, body: Callable[[StopSignal], int], args: list[str] | None,
                mistakes: tuple[type[Exception], ...] = (),
                prepare: Callable[[], None] | None = None) -> int:
    """
    Run `body` between rclpy's init and shutdown and return its exit code.

    A parameter that ROS refuses, an unknown argument and the exceptions in `mistakes` are logged
    under `name` as one line and give exit code 2. `prepare` runs before `body`, before the signal
    handlers are installed.
    """
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except UnknownROSArgsError as error:
        return _refuse(name, f'unknown arguments after --ros-args: {error}')
    except UnicodeEncodeError as error:
        return _refuse(name, f'{cut(error.object)}: arguments must be UTF-8')
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
    except ParameterException as error:
        return _refuse(name, error)
    except mistakes as error:
        return _refuse(name, error)
    finally:
        rclpy.try_shutdown()


def _refuse(name: str, why: object) -> int:
    get_logger(name).fatal(' '.join(str(why).split()))
    return 2


MOST_CHARACTERS = 4096  #: Characters of a text parameter: Linux's longest path (PATH_MAX)


def declare_fixed(node: Node, name: str, default: bool | int | float | str | list[str],
                  description: str, span: tuple[float, float] | None = None,
                  constraints: str = '') -> Any:
    """
    Declare a read-only parameter as `declare` does, and return its value.

    Also raises rclpy's ParameterException for a text of more than MOST_CHARACTERS.
    """
    value = declare(node, name, default, description, span, constraints, read_only=True)
    for text in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
        if len(text) > MOST_CHARACTERS:
            raise InvalidParameterValueException(
                name, cut(text), f'text is longer than {MOST_CHARACTERS} characters')
    return value


def declare(node: Node, name: str, default: bool | int | float | str | list[str],
            description: str, span: tuple[float, float] | None = None, constraints: str = '',
            read_only: bool = False) -> Any:
    """
    Declare the parameter `name` and return its value.

    `span` is the allowed (lowest, highest) value of a number. A float parameter accepts an integer
    at start-up. Raises rclpy's ParameterException if the value given at start-up has another type
    or is out of range.
    """
    descriptor = ParameterDescriptor(
        description=description, additional_constraints=constraints, read_only=read_only)
    if span is not None and isinstance(default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(span[0]), to_value=float(span[1]))]
    elif span is not None:
        descriptor.integer_range = [
            IntegerRange(from_value=int(span[0]), to_value=int(span[1]), step=1)]
    given = _given(node)
    if name in given:
        # For an empty list, rclpy would declare the parameter without a value.
        if given[name].type_ == Parameter.Type.NOT_SET:
            raise InvalidParameterValueException(
                name, '[]', "an empty list has no type in ROS; write ['']")
        if isinstance(default, float):
            given[name] = _as_fraction(given[name])
    return node.declare_parameter(name, default, descriptor).value


def warn_of_unknown_parameters(node: Node) -> None:
    """Log a line for each parameter that was given at start-up and is not declared."""
    declared = node.get_parameters_by_prefix('')
    for name in sorted(_given(node).keys() - declared.keys()):
        if not name.startswith('qos_overrides.'):
            node.get_logger().warning(f'{_no_parameter(name, declared)}; its value is not used')


def _given(node: Node) -> dict[str, Parameter[Any]]:
    """Return the values given on the command line and in parameter files."""
    # rclpy has no public access to them before they are declared.
    return getattr(node, '_parameter_overrides', {})


def _no_parameter(name: str, declared: Iterable[str]) -> str:
    near = get_close_matches(name[:100], declared, 1)
    return (f'there is no parameter {cut(name, 100)!r}'
            + (f', perhaps {near[0]!r} is meant' if near else ''))


def _as_fraction(parameter: Parameter[Any]) -> Parameter[Any]:
    if parameter.type_ != Parameter.Type.INTEGER:
        return parameter
    return Parameter(parameter.name, Parameter.Type.DOUBLE, float(parameter.value))


class SafeParameterService(ParameterService):
    """
    Parameter services that refuse a bad request with a reason.

    rclpy's own services raise an exception for it, such as for an unknown parameter type, and this
    ends the node. A float parameter accepts an integer. The node must be created with
    ``start_parameter_services=False``.
    """

    def __init__(self, node: Node) -> None:
        self._log = node.get_logger()
        super().__init__(node)

    def _set_parameters_callback(self, request: SetParameters.Request,
                                 response: SetParameters.Response) -> SetParameters.Response:
        for item in request.parameters:
            response.results.append(self._set([item]))
        return response

    def _set_parameters_atomically_callback(
            self, request: SetParametersAtomically.Request,
            response: SetParametersAtomically.Response) -> SetParametersAtomically.Response:
        response.result = self._set(request.parameters)
        return response

    def _set(self, items: Any) -> SetParametersResult:
        node = self._get_node()
        try:
            return node.set_parameters_atomically([_wanted(node, item) for item in items])
        # No exception of rclpy on a bad request may end the node.
        except Exception as error:  # noqa: B902
            reason = cut(error, 300)
            self._log.warning(f'parameters refused: {reason}', throttle_duration_sec=_SAME_S)
            return SetParametersResult(successful=False, reason=reason)


def _wanted(node: Node, message: ParameterMessage) -> Parameter[Any]:
    """Return the parameter of a message in its declared type; raises ValueError."""
    try:
        parameter = Parameter.from_parameter_msg(message)
    except ValueError:
        raise ValueError(f'{cut(message.name)}: there is no parameter type '
                         f'{message.value.type}') from None
    if not node.has_parameter(parameter.name):
        raise ValueError(_no_parameter(parameter.name, node.get_parameters_by_prefix('')))
    if node.get_parameter(parameter.name).type_ == Parameter.Type.DOUBLE:
        return _as_fraction(parameter)
    return parameter
