# SPDX-License-Identifier: Apache-2.0
"""Read JSON of somebody else: whatever is wrong with it is one line."""
from __future__ import annotations

import json
from pathlib import Path
import re
from typing import Any

from .errors import InputError

_LIMIT = 2**63
"""What an integer must stay below, either sign: others are no float, and no index either."""

_LONG_NUMBER = re.compile(r'\d{19}')
"""An integer from 2**63 on has at least so many digits."""


class PlainJsonError(InputError):
    """A text or a file that is no JSON; the message is one line."""


def parse_plain_json(text: str) -> Any:
    """
    Return the values in a text.

    Raises PlainJsonError when it is no JSON, nested more deeply than Python allows, or has an
    integer that is not below 2**63.
    """
    # A hook takes time for every number; few files have one that is so long.
    hooks: dict[str, Any] = {'parse_int': _integer} if _LONG_NUMBER.search(text) else {}
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        raise PlainJsonError(f'not valid JSON: line {error.lineno} column {error.colno}: '
                             f'{error.msg}') from None
    except RecursionError:
        raise PlainJsonError('not valid JSON: it is nested too deeply') from None


def read_plain_json(path: Path) -> Any:
    """Return the values in a file; raises PlainJsonError, which names it."""
    try:
        return parse_plain_json(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise PlainJsonError(f'{path}: cannot be read: {error.strerror}') from None
    except UnicodeDecodeError:
        raise PlainJsonError(f'{path}: not valid JSON: not UTF-8 text') from None
    except PlainJsonError as error:
        raise PlainJsonError(f'{path}: {error}') from None


def _integer(text: str) -> int:
    # Python itself converts no more than some thousand digits.
    if len(text) > 20 or not -_LIMIT < int(text) < _LIMIT:
        raise PlainJsonError(f'an integer of {len(text.lstrip("-"))} digits, {text:.20}...; it '
                             'must be below 2**63')
    return int(text)
