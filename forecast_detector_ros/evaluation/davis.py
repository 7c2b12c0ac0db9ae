# SPDX-License-Identifier: Apache-2.0
"""
Folders of sequences with one annotated object each, made from DAVIS's masks.

``ROOT/SEQUENCE/boxes.json`` holds `category` (a name, or a list of names that all count),
`width`, `height` and `frames`, a list of ``{"file": ..., "box_xywh": [x, y, w, h] or null}``
with files relative to the sequence's folder.  Other objects in view have no box, so recall can
be measured on such sequences and precision cannot.
"""

from collections.abc import Mapping, Sequence
import math
from pathlib import Path
from typing import Any

import numpy as np

from .sequences import Footage
from ..annotations.findings import DataError
from ..annotations.records import FrameRecord
from ..metrics.tables import TruthTable
from ..plain_values import PlainJsonError, read_plain_json

BOXES = 'boxes.json'
"""Name of the annotation file in a sequence's folder."""


def load_davis(root: Path, labels: Sequence[str],
               also: Mapping[str, Sequence[str]] | None = None) -> list[Footage]:
    """
    Load all sequences of a folder, in the order of their names.

    Parameters
    ----------
    root:
        The folder.
    labels:
        The detector's classes.  A category that is not among them can never be detected.
    also:
        For some sequences, classes that count besides the annotated category.

    Raises
    ------
    DataError
        One line: the file, the key, and what is wrong with it.

    """
    files = sorted(root.glob(f'*/{BOXES}'))
    if not files:
        raise DataError(f'{root}: no SEQUENCE/{BOXES} in this folder')
    also = dict(also or {})
    footage = []
    for path in files:
        extra = also.pop(path.parent.name, ())
        for name in extra:
            if name not in labels:
                raise DataError(f'{name!r} is accepted in {path.parent.name}, but the detector '
                                f'knows only {", ".join(labels)}')
        footage.append(_load_sequence(path, labels, extra))
    if also:
        raise DataError(f'{root}: no sequence {sorted(also)[0]!r}; there are '
                        f'{", ".join(path.parent.name for path in files)}')
    return footage


def _load_sequence(path: Path, labels: Sequence[str], extra: Sequence[str]) -> Footage:
    document = _read(path)
    category = document.get('category')
    names = [category] if isinstance(category, str) else category
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise DataError(f'{path}: category is {category!r:.40}; it must be a name or a list of '
                        'names')
    width, height = (_side(document, key, path) for key in ('width', 'height'))
    entries = document.get('frames')
    if not isinstance(entries, list) or not entries:
        raise DataError(f'{path}: frames must be a list of at least one frame')
    none, no_labels = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    records, numbers, boxes = [], [], []
    for number, entry in enumerate(entries):
        where = f'{path}: frames[{number}]'
        if not isinstance(entry, dict) or not isinstance(entry.get('file'), str):
            raise DataError(f'{where}: must have file, a name relative to the folder')
        picture = path.parent / entry['file']
        if not picture.is_file():
            raise DataError(f'{where}: no file {picture}')
        records.append(FrameRecord(none, no_labels, np.zeros(0, np.float32), none,
                                   path=picture, width=width, height=height))
        if entry.get('box_xywh') is not None:
            boxes.append(_box(entry['box_xywh'], where))
            numbers.append(number)
    accepted = np.isin(np.array(labels), [*names, *extra])
    truth = TruthTable(np.array(numbers, np.int64),
                       np.array(boxes, np.float32).reshape(-1, 4),
                       np.tile(accepted, (len(boxes), 1)), np.zeros(0, np.int64), none,
                       np.zeros(len(boxes), np.int64))
    return Footage(path.parent.name, tuple(records), truth)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = read_plain_json(path)
    except PlainJsonError as error:
        raise DataError(str(error)) from None
    if not isinstance(document, dict):
        raise DataError(f'{path}: must hold a JSON object with category, width, height, frames')
    return document


def _side(document: dict[str, Any], key: str, path: Path) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f'{path}: {key} is {value!r:.40}; it must be a number of pixels')
    return value


def _box(values: object, where: str) -> tuple[float, float, float, float]:
    if (not isinstance(values, list) or len(values) != 4
            or not all(isinstance(v, (int, float)) and not isinstance(v, bool)
                       and math.isfinite(v) for v in values)
            or values[2] <= 0 or values[3] <= 0):
        raise DataError(f'{where}: box_xywh is {values!r:.60}; it must be null or x, y, and a '
                        'positive width and height')
    x, y, width, height = values
    return x, y, x + width, y + height
