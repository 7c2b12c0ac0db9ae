# SPDX-License-Identifier: Apache-2.0
"""Parameters of any node: declared in one line, and services that outlive malformed requests."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_service import ParameterService

from ..errors import cut

MOST_CHARACTERS = 4096  #: Of a parameter that is a text: Linux's longest path (PATH_MAX)


def declare_fixed(node: Node, name: str, default: bool | int | float | str | list[str],
                  description: str, span: tuple[float, float] | None = None,
                  constraints: str = '') -> Any:
    """
    Declare the parameter `name`, which can be given at start-up only, and return its value.

    `span` is the allowed (lowest, highest) of a number. Raises rclpy's ParameterException when
    the value given at start-up has another type or lies outside, or is a text of more than
    MOST_CHARACTERS.
    """
    descriptor = ParameterDescriptor(
        description=description, additional_constraints=constraints, read_only=True)
    if span is not None and isinstance(default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(span[0]), to_value=float(span[1]))]
    elif span is not None:
        descriptor.integer_range = [
            IntegerRange(from_value=int(span[0]), to_value=int(span[1]), step=1)]
    value: Any = node.declare_parameter(name, default, descriptor).value
    for text in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
        if len(text) > MOST_CHARACTERS:
            raise InvalidParameterValueException(
                name, cut(text), f'text is longer than {MOST_CHARACTERS} characters')
    return value


_SAME_S = 5.0  #: Seconds between two log lines about malformed requests


class SafeParameterService(ParameterService):
    """
    Refuses with a reason what rclpy's own service raises an exception for.

    rclpy makes an enumeration of the type's number before it looks at anything else, so a request
    with a number that it does not know ends a node. The node is to be made with
    ``start_parameter_services=False``.
    """

    def __init__(self, node: Node) -> None:
        """Offer the services of `node`."""
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
        """Set some parameters, all or none."""
        node = self._get_node()
        try:
            return node.set_parameters_atomically([_parameter(item) for item in items])
        # rclpy raises for what is not declared; whatever else it raises, nobody is to die of it.
        except Exception as error:  # noqa: B902
            reason = cut(error, 300)
            self._log.warning(f'parameters refused: {reason}', throttle_duration_sec=_SAME_S)
            return SetParametersResult(successful=False, reason=reason)


def _parameter(message: ParameterMessage) -> Parameter:
    try:
        return Parameter.from_parameter_msg(message)
    except ValueError:
        raise ValueError(f'{cut(message.name)}: there is no parameter type '
                         f'{message.value.type}') from None
