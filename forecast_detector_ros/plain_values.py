# SPDX-License-Identifier: Apache-2.0
"""
Read plain values from untrusted YAML and JSON, and build dataclasses from them.

Every error has a message of one line. The size of YAML is limited, also with aliases expanded.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, MISSING
from functools import cache
import json
import math
from pathlib import Path
import re
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints, NoReturn, TypeVar, Union

import yaml

from .errors import cut, InputError

#: Integers must have a smaller magnitude. Larger ones may not fit a float or an index, and CPython
#: cannot print the longest.
_LIMIT = 2**63

_LONG_NUMBER = re.compile(r'\d{19}')  #: An integer of 2**63 or more has at least 19 digits


class PlainJsonError(InputError):
    """A text or file is not valid JSON; the message is one line."""


def parse_plain_json(text: str) -> Any:
    """
    Return the values in a text.

    Raises PlainJsonError if the text is not JSON, is nested too deeply for Python, or has an
    integer with a magnitude of 2**63 or more.
    """
    # The hook slows the reading of every number, and few files have such long ones.
    hooks: dict[str, Any] = {'parse_int': _integer} if _LONG_NUMBER.search(text) else {}
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        raise PlainJsonError(f'not valid JSON: line {error.lineno} column {error.colno}: '
                             f'{error.msg}') from None
    except RecursionError:
        raise PlainJsonError('not valid JSON: it is nested too deeply') from None


def read_plain_json(path: Path) -> Any:
    """Return the values in a file; raises PlainJsonError, whose message names the file."""
    try:
        return parse_plain_json(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise PlainJsonError(f'{path}: cannot be read: {error.strerror}') from None
    except UnicodeDecodeError:
        raise PlainJsonError(f'{path}: not valid JSON: not UTF-8 text') from None
    except PlainJsonError as error:
        raise PlainJsonError(f'{path}: {error}') from None


def _integer(text: str) -> int:
    # int() refuses texts of some thousand digits.
    if len(text) > 20 or not -_LIMIT < int(text) < _LIMIT:
        raise PlainJsonError(f'an integer of {len(text.lstrip("-"))} digits, {text:.20}...; it '
                             'must be below 2**63')
    return int(text)


T = TypeVar('T')


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


class PlainValueError(InputError):
    """A value does not fit its field; the message is one line that names the field."""


def build(kind: type[T], value: Any, where: str = '') -> T:
    """
    Build a dataclass from a mapping, as ``dataclasses.asdict`` or a file gives it.

    A nested dataclass may be an instance already.

    :param kind: a dataclass whose fields are of the types bool, int, float, str, Any,
        ``dict[str, X]``, ``tuple[X, ...]``, ``tuple[X, Y]``, dataclasses, and unions of one of
        these with None
    :param where: place of the value, for the message
    :raises PlainValueError: if a key is missing or unknown, a value has another type, or a
        dataclass refuses its values by an `InputError`
    """
    if not isinstance(value, dict):
        raise PlainValueError(f'{where or "the document"} is {value!r:.40}, must be a mapping')
    hints = _hints(kind)  # type: ignore[arg-type]
    for key in value:
        if key not in hints:
            raise PlainValueError(f'unknown key {cut(_join(where, key))}')
    arguments = {}
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name in value:
            arguments[item.name] = _fit(hints[item.name], value[item.name],
                                        _join(where, item.name))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise PlainValueError(f'{_join(where, item.name)} is missing')
    try:
        return kind(**arguments)
    except InputError as error:
        raise PlainValueError(f'{where}: {error}' if where else str(error)) from None


def _fit(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        if value is None and type(None) in inner:
            return None
        (kind,) = (option for option in inner if option is not type(None))
        return _fit(kind, value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        return value if isinstance(value, kind) else build(kind, value, where)
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
        name = {str: 'a text', float: 'a number', int: 'an integer', dict: 'a mapping'}
        raise PlainValueError(f'{where} is {value!r:.40}, must be {name.get(wanted, wanted)}')
    if origin is dict:
        return {key: _fit(inner[1], item, _join(where, key)) for key, item in value.items()}
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _join(where: str, key: Any) -> str:
    return f'{where}.{key}' if where else key


MOST_BYTES = 2**18  #: Size of a file; PyYAML reads some 100 kB per second, a card has 8 kB
MOST_VALUES = 100_000  #: Values in a file, with aliases expanded
MOST_LEVELS = 100  #: Nested lists and mappings; the parser nests aliases without recursion


class PlainYamlError(InputError):
    """A file is not plain YAML; the message is one line without the file's name."""


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases, because a few lines of them can expand to billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node that is not an alias."""
        if self.check_event(yaml.AliasEvent):
            self.refuse('an alias (*name), which is not allowed here')
        return super().compose_node(parent, index)

    def refuse(self, reason: str) -> NoReturn:
        """Raise a ComposerError with the current line and column."""
        raise yaml.composer.ComposerError(None, None, reason, self.peek_event().start_mark)


class _AliasLoader(_PlainLoader):
    """Permits aliases if the file has at most `MOST_VALUES` values with aliases expanded."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._values = 0  #: Values so far, with aliases expanded
        self._within: dict[int, int] = {}  #: Values of each finished node, by its identity

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, and count the values in it."""
        alias = self.check_event(yaml.AliasEvent)
        before = self._values
        # The method of SafeLoader, because that of _PlainLoader refuses aliases.
        node = yaml.SafeLoader.compose_node(self, parent, index)
        if not alias:
            self._values += 1
            self._within[id(node)] = self._values - before
        elif id(node) not in self._within:
            self.refuse('an alias (*name) within what it stands for')
        else:
            self._values += self._within[id(node)]
            if self._values > MOST_VALUES:
                self.refuse(f'aliases (*name) that stand for more than {MOST_VALUES} values')
        return node


def read_plain_yaml(path: Path, aliases: bool = False) -> Any:
    """
    Return the values in a file: mappings, lists, texts, numbers, truth values, dates and None.

    Raises FileNotFoundError. Raises PlainYamlError if the file cannot be read, is not YAML, has
    more than MOST_BYTES or MOST_LEVELS, an integer with a magnitude of 2**63 or more, or an alias.
    `aliases` permits aliases, up to MOST_VALUES values.
    """
    try:
        with path.open('rb') as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise PlainYamlError(f'is larger than {MOST_BYTES} bytes')
        values = yaml.load(data, _AliasLoader if aliases else _PlainLoader)
    except FileNotFoundError:
        raise
    # PyYAML raises errors of Python for malformed dates, numbers of thousands of digits, and
    # values that do not fit their tag. UnicodeDecodeError and PlainYamlError are ValueErrors.
    except (OSError, RecursionError, OverflowError, yaml.YAMLError, ValueError, LookupError,
            AttributeError) as error:
        if isinstance(error, PlainYamlError):
            raise
        raise PlainYamlError(f'cannot be read as YAML: {cut(error)}') from None
    _check(values)
    return values


def _check(values: Any) -> None:
    waiting = [(values, 0)]
    while waiting:
        value, level = waiting.pop()
        if isinstance(value, (dict, list, tuple, set)):
            if level == MOST_LEVELS:
                raise PlainYamlError(f'is nested more deeply than {MOST_LEVELS} levels')
            waiting += [(item, level + 1) for item in value]
            if isinstance(value, dict):
                waiting += [(item, level + 1) for item in value.values()]
        elif isinstance(value, int) and not -_LIMIT < value < _LIMIT:
            raise PlainYamlError(f'has an integer of {value.bit_length()} bits, may have 63')
