# SPDX-License-Identifier: Apache-2.0
"""Requests to a running detector, also invalid ones: parameters, life cycle, services."""
from __future__ import annotations

from random import Random
from typing import Any

from forecast_detector_ros.node.parameters import LIVE_PARAMETERS
from lifecycle_msgs.srv import ChangeState, GetAvailableStates
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters, GetParameters, GetParameterTypes, ListParameters, SetParameters,
    SetParametersAtomically)
from std_srvs.srv import SetBool, Trigger

_TEXTS = ('', ' ', 'always_read', 'alternate(3)', 'alternate(0)', 'alternate(999999999999)',
          'budget(10)', 'budget(-1)', 'budget(nan)', 'threshold(0.5)', 'threshold(1e999)',
          'threshold(' + ' ' * 10_000, '(' * 5000, 'person', '$x^$', 'x' * 100_000, 'ü\n\t',
          '../../etc/passwd', '{}[]:&*')
_NUMBERS = (0.0, 1.0, 0.5, -1.0, 1e308, -1e308, 5e-324, float('nan'), float('inf'),
            float('-inf'))
_INTEGERS = (0, 1, 3, -1, 1000, 1001, 2**31, 2**63 - 1, -2**63)
_NAMES = (*LIVE_PARAMETERS, 'image_topics', 'checkpoint', 'max_image_pixels', 'use_sim_time',
          'start_type_description_service', '', 'nobody', 'a.b.c', 'x' * 10_000, 'qos_overrides')

#: All but the three that finalise a node (lifecycle_msgs/msg/Transition), which end a trial.
UNHARMFUL_TRANSITIONS = tuple(number for number in range(256) if number not in (5, 6, 7))


class HostileRequests:
    """Makes requests from a seed, as (service type, name below the node, request)."""

    def __init__(self, rng: Random) -> None:
        """Use random numbers of `rng`."""
        self._rng = rng

    def parameters(self) -> tuple[type, str, Any]:
        """Return a request that sets some parameters, known or unknown, to any values."""
        items = [Parameter(name=self._rng.choice(_NAMES), value=self._value())
                 for _ in range(self._rng.randrange(4))]
        if self._rng.random() < 0.5:
            return SetParameters, 'set_parameters', SetParameters.Request(parameters=items)
        return (SetParametersAtomically, 'set_parameters_atomically',
                SetParametersAtomically.Request(parameters=items))

    def service(self) -> tuple[type, str, Any]:
        """Return a request that has no lasting effect."""
        names = [self._rng.choice(_NAMES) for _ in range(self._rng.randrange(5))]
        return self._rng.choice((
            (Trigger, 'reset', Trigger.Request()),
            (SetBool, 'enable', SetBool.Request(data=True)),
            (GetParameters, 'get_parameters', GetParameters.Request(names=names)),
            (GetParameterTypes, 'get_parameter_types', GetParameterTypes.Request(names=names)),
            (DescribeParameters, 'describe_parameters', DescribeParameters.Request(names=names)),
            (ListParameters, 'list_parameters', ListParameters.Request(
                prefixes=names, depth=self._rng.choice((0, 1, 2**63 - 1)))),
            (GetAvailableStates, 'get_available_states', GetAvailableStates.Request()),
        ))

    def transition(self) -> ChangeState.Request:
        """Return a request for a transition, which may not exist."""
        request = ChangeState.Request()
        request.transition.id = self._rng.choice(
            (*(1, 2, 3, 4) * 16, *UNHARMFUL_TRANSITIONS))
        request.transition.label = self._rng.choice(('', '', 'nonsense', 'x' * 10_000))
        return request

    def _value(self) -> ParameterValue:
        rng = self._rng
        several = range(rng.choice((0, 1, 3, 1000)))
        return ParameterValue(
            type=rng.choice((*range(10), 10, 200, 255)),
            bool_value=rng.random() < 0.5, integer_value=rng.choice(_INTEGERS),
            double_value=rng.choice((*_NUMBERS, rng.random())), string_value=rng.choice(_TEXTS),
            byte_array_value=[bytes([rng.randrange(256)]) for _ in several],
            bool_array_value=[rng.random() < 0.5 for _ in several],
            integer_array_value=[rng.choice(_INTEGERS) for _ in several],
            double_array_value=[rng.choice(_NUMBERS) for _ in several],
            string_array_value=[rng.choice(_TEXTS[:10]) for _ in several])
