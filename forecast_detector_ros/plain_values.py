# SPDX-License-Identifier: Apache-2.0
"""Turn plain values, as JSON gives them, into dataclasses, and say what does not fit."""
from __future__ import annotations

from dataclasses import fields, is_dataclass, MISSING
import math
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints, TypeVar, Union

T = TypeVar('T')


class PlainValueError(ValueError):
    """A value that does not fit; one line that names its place."""


def build(kind: type[T], value: Any, where: str = '') -> T:
    """
    Build a dataclass from a dictionary.

    Parameters
    ----------
    kind:
        A dataclass whose fields are of the types bool, int, float, str, ``dict[str, Any]``,
        ``tuple[X, ...]``, ``tuple[X, Y]``, dataclasses, and unions of these with None.
    value:
        What ``dataclasses.asdict`` gave, after a way through JSON.
    where:
        Place of the value, for the message.

    Raises
    ------
    PlainValueError
        If a key is missing or unknown, or a value has another type.  Numbers must be finite.

    """
    if not isinstance(value, dict):
        raise PlainValueError(f'{where or "the document"} is {value!r:.40}, must be an object')
    hints = get_type_hints(kind)
    known = fields(kind)  # type: ignore[arg-type]
    for key in value:
        if key not in hints:
            raise PlainValueError(f'{_join(where, key)} is unknown')
    arguments = {}
    for item in known:
        if item.name in value:
            arguments[item.name] = _fit(hints[item.name], value[item.name],
                                        _join(where, item.name))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise PlainValueError(f'{_join(where, item.name)} is missing')
    return kind(**arguments)


def _fit(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and type(None) in inner:
            return None
        (kind,) = (option for option in inner if option is not type(None))
        return _fit(kind, value, where)
    if is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) and _is_list(value) else inner
        if not _is_list(value) or len(value) != len(kinds):
            raise PlainValueError(f'{where} is {value!r:.40}, must be a list'
                                  + ('' if inner[1:] == (...,) else f' of {len(inner)}'))
        return tuple(_fit(part, item, f'{where}[{number}]')
                     for number, (part, item) in enumerate(zip(kinds, value)))
    wanted = origin or kind
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
        name = {str: 'a text', float: 'a number', int: 'an integer', dict: 'an object'}
        raise PlainValueError(f'{where} is {value!r:.40}, must be {name.get(wanted, wanted)}')
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _join(where: str, key: str) -> str:
    return f'{where}.{key}' if where else key
