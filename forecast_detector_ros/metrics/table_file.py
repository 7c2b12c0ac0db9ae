# SPDX-License-Identifier: Apache-2.0
"""Tables of detections and boxes in a file, exactly as they were, to be merged later."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import Any
import zipfile

import numpy as np

from .tables import DetectionTable, TruthTable
from ..annotations.errors import DataError
from ..files import write_atomically

_KINDS = {'detections': DetectionTable, 'boxes': TruthTable}
_SEPARATOR = '|'


def save_tables(path: Path, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """
    Write a compressed NumPy archive, whole or not at all.

    `groups` holds, by name and name, a DetectionTable, a TruthTable or an array; no name has a
    ``|`` in it.
    """
    arrays: dict[str, Any] = {}
    for group, members in groups.items():
        for name, value in members.items():
            kind = next((key for key, table in _KINDS.items() if isinstance(value, table)),
                        'array')
            prefix = _SEPARATOR.join((group, name, kind))
            if kind == 'array':
                arrays[prefix] = value
                continue
            for part in fields(value):
                arrays[f'{prefix}{_SEPARATOR}{part.name}'] = getattr(value, part.name)
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def load_tables(path: Path) -> dict[str, dict[str, Any]]:
    """Read what `save_tables` wrote; raises DataError when it is not that."""
    parts: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                group, name, kind, *field = key.split(_SEPARATOR)
                parts.setdefault((group, name, kind), {})[''.join(field)] = archive[key]
        groups: dict[str, dict[str, Any]] = {}
        for (group, name, kind), values in parts.items():
            groups.setdefault(group, {})[name] = (
                values[''] if kind == 'array' else _KINDS[kind](**values))
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror or error}') from None
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f'{path}: is no file of tables: {error}') from None
    return groups
