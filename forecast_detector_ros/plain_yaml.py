# SPDX-License-Identifier: Apache-2.0
"""Read a YAML file of somebody else: plain values of bounded size, without aliases."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import InputError
from .foreign_text import cut

MOST_BYTES = 2**18  #: Of a file. PyYAML reads some 100 kB a second; the packaged card has 8 kB.
#: What an integer must stay below, either sign: others cannot even be printed (CPython).
_INTEGERS = 2**63


class PlainYamlError(InputError):
    """A file that is no plain YAML; the message is one line without the file's name."""


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases: a few lines of them stand for billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node that is not an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, 'an alias (*name), which is not allowed here',
                self.peek_event().start_mark)
        return super().compose_node(parent, index)


def read_plain_yaml(path: Path) -> Any:
    """
    Return the values in a file: mappings, lists, texts, numbers, truth values, dates and None.

    Raises FileNotFoundError, or PlainYamlError when the file cannot be read, is larger than
    MOST_BYTES, is no YAML, has an alias, or an integer that is not below 2**63.
    """
    try:
        with path.open('rb') as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise PlainYamlError(f'is larger than {MOST_BYTES} bytes')
        # Malformed dates and numbers of thousands of digits are ValueErrors of Python.
        values = yaml.load(data, _PlainLoader)
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError, RecursionError, OverflowError, yaml.YAMLError,
            ValueError) as error:
        if isinstance(error, PlainYamlError):
            raise
        raise PlainYamlError(f'cannot be read as YAML: {cut(error)}') from None
    _check(values)
    return values


def _check(values: Any) -> None:
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, (list, tuple, set)):
            waiting += value
        elif isinstance(value, int) and not -_INTEGERS < value < _INTEGERS:
            raise PlainYamlError(f'has an integer of {value.bit_length()} bits, may have 63')
