# SPDX-License-Identifier: Apache-2.0
"""
Checks of the entries of COCO-style JSON files, and rules for true boxes over a teacher's boxes.

The file of true boxes may say which objects it contains: `complete` of a video, `labels` of an
image (see docs/reference/data.md).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import auto, Enum
from pathlib import Path
from typing import Any

import numpy as np

from .findings import Collected, DataError, Findings, Kind
from .records import MOST_TRACKS, UNKNOWN_TRACK
from ..boxes import box_iou
from ..plain_values import PlainJsonError, read_plain_json


def read_json(path: Path) -> dict[str, Any]:
    """
    Read a file that holds one JSON object.

    :raises DataError: one line that names the file
    """
    try:
        document = read_plain_json(path)
    except PlainJsonError as error:
        raise DataError(str(error), Kind.SOURCE) from None
    if not isinstance(document, dict):
        raise DataError(f'{path}: must hold a JSON object with images, annotations, categories',
                        Kind.SOURCE)
    return document


def entries(document: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """
    Return the list of objects `key` of a document.

    :raises DataError: it is missing or is not a list of objects
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
    """Return the names of the categories by id; `findings` receives unusable ones."""
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
    Return `score`, 0 to 1; 1 if it is absent.

    :raises DataError: the value is no such number
    """
    score = entry.get('score', 1.0)
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise DataError(f'{where}: score is {score!r:.40}; it must be a number from 0 to 1')
    return float(score)


def track_of(entry: dict[str, Any], where: str) -> int:
    """
    Return `track_id`, a whole number from 0 on; `UNKNOWN_TRACK` if it is absent.

    :raises DataError: the value is no such number
    """
    track = entry.get('track_id')
    if track is None:
        return UNKNOWN_TRACK
    if isinstance(track, bool) or not isinstance(track, int) or not 0 <= track < MOST_TRACKS:
        raise DataError(f'{where}: track_id is {track!r:.40}; it must be a whole number from 0 '
                        'on, below 2**62')
    return track


#: A teacher's box that overlaps a true box of its class by this IoU shows the same object.
REPLACED_IOU = 0.5
UNSURE_IOU = 0.25  #: From this IoU on it shows the same object, inexactly, or a neighbour
#: The 20 classes of PASCAL VOC 2012 under the names of this project
#: (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, "Introduction").
VOC = frozenset(('person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train',
                 'watercraft', 'bird', 'cat', 'dog', 'horse', 'sheep', 'cattle', 'bottle', 'chair',
                 'dining_table', 'potted_plant', 'sofa', 'tv'))
#: Names of sets of classes that `labels` accepts; None: all categories of the file.
SETS = {'20 VOC classes': VOC, '80 COCO classes': None}


class Fate(Enum):
    """The treatment of a teacher's box in a picture with true boxes."""

    KEPT = auto()
    IGNORED = auto()
    DROPPED = auto()


@dataclass
class TruePicture:
    """The true boxes of one picture."""

    boxed: Collection[str] = ()  #: Classes of which every object has a true box
    #: Classes with true boxes in the video, if that is complete; else None.
    present: set[str] | None = None
    #: Class and corners x0, y0, x1, y1 of each true box and marked region, pixels.
    boxes: list[tuple[str, Sequence[float]]] = field(default_factory=list)

    def add(self, name: str, box: Sequence[float]) -> None:
        """Add a true box or marked region: its class, x0, y0, x1, y1."""
        self.boxes.append((name, box))
        if self.present is not None:
            self.present.add(name)

    def fate(self, name: str, box: Sequence[float]) -> Fate:
        """
        Return the treatment of a teacher's box, after all true boxes were added.

        :param box: x0, y0, x1, y1, pixels
        :returns: DROPPED if all objects of the class have true boxes, or if the box repeats a true
            box. IGNORED if it may repeat one, or if a complete video has no true box of the class:
            perhaps that class was not annotated.
        """
        if name in self.boxed or (self.present is not None and name in self.present):
            return Fate.DROPPED
        same = [true for other, true in self.boxes if other == name]
        overlap = box_iou(np.array([box]), np.array(same)).max() if same else 0.0
        if overlap >= REPLACED_IOU:
            return Fate.DROPPED
        unsure = overlap >= UNSURE_IOU or self.present is not None
        return Fate.IGNORED if unsure else Fate.KEPT


def boxed_classes(labels: Any, names: Collection[str], where: str) -> frozenset[str]:
    """
    Return the classes in an image's `labels`.

    :param labels: a key of `SETS`, a name, or a list of names; None for no class
    :param names: the categories of the file
    :param where: file and entry, for the error
    :raises DataError: `labels` has another form, or names no category of the file
    """
    if labels is None:
        return frozenset()
    if isinstance(labels, str) and labels in SETS:
        found = SETS[labels]
        return frozenset(names) if found is None else found
    given = [labels] if isinstance(labels, str) else labels
    if not isinstance(given, list) or not all(name in names for name in given):
        raise DataError(f'{where}: labels is {labels!r:.60}; it must be a category, a list of '
                        f'categories, or {" or ".join(map(repr, SETS))}')
    return frozenset(given)


def completeness(document: dict[str, Any], path: Path) -> dict[str, bool]:
    """
    Return whether every object is annotated, for each of `videos`.

    :raises DataError: `complete` is not a boolean
    """
    found = {}
    for name, video in video_entries(document).items():
        value = video.get('complete', False)
        if not isinstance(value, bool):
            raise DataError(f'{path}: videos: complete of {name} is {value!r:.40}; it must be '
                            'true or false')
        found[name] = value
    return found


def video_entries(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the entries of `videos` by name, if they have one; none without such a list."""
    videos = document.get('videos')
    return {video['name']: video for video in (videos if isinstance(videos, list) else ())
            if isinstance(video, dict) and isinstance(video.get('name'), str)}


def same_picture(image: dict[str, Any], other: dict[str, Any], where: str) -> None:
    """
    Check that the image entries of two files describe the same picture.

    :raises DataError: sizes or indices in the video differ
    """
    for key in ('width', 'height', 'video', 'frame_index'):
        if image.get(key) != other.get(key):
            raise DataError(f'{where}: {key} is {image.get(key)}, but {other.get(key)} in the '
                            'file that it is laid over', Kind.WRONG_SIZE)
