# SPDX-License-Identifier: Apache-2.0
"""Declare a read-only parameter with its description and range in one line."""
from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node

from ..errors import cut

MOST_CHARACTERS = 4096
"""Of a parameter that is a text: Linux's longest path (PATH_MAX)."""


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
