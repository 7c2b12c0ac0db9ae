# SPDX-License-Identifier: Apache-2.0
"""The entries of COCO-style JSON files, checked one by one."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import DataError, Kind
from .findings import Collected, Findings
from .records import UNKNOWN_TRACK


def read_json(path: Path) -> dict[str, Any]:
    """
    Read a file that holds one JSON object.

    :raises DataError: one line that names the file
    """
    try:
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror}',
                        Kind.SOURCE) from None
    except UnicodeDecodeError:
        raise DataError(f'{path}: not a JSON file (not UTF-8 text)', Kind.SOURCE) from None
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f'{path}: not valid JSON: line {error.lineno} column {error.colno}: '
                        f'{error.msg}', Kind.SOURCE) from None
    if not isinstance(document, dict):
        raise DataError(f'{path}: must hold a JSON object with images, annotations, categories',
                        Kind.SOURCE)
    return document


def entries(document: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """
    Return the list of objects `key` of a document.

    :raises DataError: it is missing or something else
    """
    value = document.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        state = 'missing' if key not in document else 'not a list of objects'
        raise DataError(f'{path}: {key}: {state}; a COCO file has a list of objects there',
                        Kind.SOURCE)
    return value


def get(entry: dict[str, Any], key: str, where: str, kind: type) -> Any:
    """
    Return a value that must be there, of type `kind`; `where` names file and entry.

    :raises DataError: it is missing or of another type
    """
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        state = 'missing' if key not in entry else f'{value!r:.40}'
        raise DataError(f'{where}: {key} is {state}; it must be of type {kind.__name__}')
    return value


def categories(document: dict[str, Any], path: Path, findings: Findings) -> dict[int, str]:
    """Return the names of the categories by id; `findings` is told of unusable ones."""
    names: dict[int, str] = {}
    for number, entry in enumerate(entries(document, 'categories', path)):
        where = f'{path}: categories[{number}]'
        try:
            key = get(entry, 'id', where, int)
            name = get(entry, 'name', where, str)
            if key in names:
                raise DataError(f'{where}: id {key} is used twice', Kind.DUPLICATE)
            names[key] = name
        except DataError as error:
            findings.fault(error)
    return names


def category_names(path: str | Path) -> tuple[str, ...]:
    """
    Return the names of the categories of an annotation file, in its order.

    :raises DataError: the file cannot be read, or has no categories
    """
    path = Path(path)
    names = categories(read_json(path), path, Collected(0))
    if not names:
        raise DataError(f'{path}: categories: empty', Kind.SOURCE)
    return tuple(dict.fromkeys(names.values()))


def score_of(entry: dict[str, Any], where: str) -> float:
    """
    Return `score`, 0 to 1; 1 where it is absent.

    :raises DataError: it is something else
    """
    score = entry.get('score', 1.0)
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise DataError(f'{where}: score is {score!r:.40}; it must be a number from 0 to 1')
    return float(score)


def track_of(entry: dict[str, Any], where: str) -> int:
    """
    Return `track_id`, a whole number from 0 on; `UNKNOWN_TRACK` where it is absent.

    :raises DataError: it is something else
    """
    track = entry.get('track_id')
    if track is None:
        return UNKNOWN_TRACK
    if isinstance(track, bool) or not isinstance(track, int) or track < 0:
        raise DataError(f'{where}: track_id is {track!r:.40}; it must be a whole number from 0 on')
    return track
