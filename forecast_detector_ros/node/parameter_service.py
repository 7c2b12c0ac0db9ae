# SPDX-License-Identifier: Apache-2.0
"""The parameter services of a node, which answer a malformed request instead of ending it."""
from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMessage, SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_service import ParameterService

from ..errors import cut

_SAME_S = 5.0
"""Seconds between two log lines about malformed requests."""


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
