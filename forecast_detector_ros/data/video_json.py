# SPDX-License-Identifier: Apache-2.0
"""
COCO-style annotation files, with or without videos.

Plain COCO detection files work: every image is then a video of one frame. Five extensions are
read: `video` and `frame_index` of an image, `score` and `track_id` of an annotation, and a list
`ignore_annotations`. See docs/data.md for the format.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError

__all__ = ['DataError', 'FrameRecord', 'UNKNOWN_TRACK', 'VideoRecord', 'load_video_json']

_log = logging.getLogger(__name__)

UNKNOWN_TRACK = -1
"""Stands for the track of a box that is not known to be the same object as any other."""


@dataclass(frozen=True)
class FrameRecord:
    """
    One annotated picture.

    path: of the picture; width, height: pixels; boxes: float32 (N, 4) xyxy, pixels, within the
    picture; labels: int64 (N,), 0-based into the classes; scores: float32 (N,), 0 to 1, 1 for
    boxes without a score; ignore: float32 (K, 4) xyxy, regions that are neither object nor
    background; tracks: int64 (N,), the same number for the same object in all frames of a video,
    `UNKNOWN_TRACK` where it is not known (everywhere, if nothing is given).

    Raises ValueError when there are not as many tracks as boxes.
    """

    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    ignore: np.ndarray
    tracks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        """Fill in unknown tracks."""
        if not len(self.tracks):
            unknown = np.full(len(self.boxes), UNKNOWN_TRACK, np.int64)
            object.__setattr__(self, 'tracks', unknown)
        elif len(self.tracks) != len(self.boxes):
            raise ValueError(f'{self.path}: {len(self.tracks)} tracks for {len(self.boxes)} boxes')


@dataclass(frozen=True)
class VideoRecord:
    """Consecutive frames of one size, in order; a still is a video of one frame."""

    name: str
    frames: tuple[FrameRecord, ...]


class _Boxes:
    """What the file says about one picture, while it is being read."""

    def __init__(self) -> None:
        self.boxes: list[tuple[float, ...]] = []
        self.labels: list[int] = []
        self.scores: list[float] = []
        self.ignore: list[tuple[float, ...]] = []
        self.tracks: list[int] = []


def load_video_json(path: str | Path, image_root: str | Path, classes: Sequence[str],
                    min_score: float = 0.0, ignore_score: float = 0.0) -> list[VideoRecord]:
    """
    Read an annotation file.

    A box of one of the `classes` with score >= `min_score` is a target. An ignore region is made
    of: a box with `ignore_score` <= score < `min_score`; a box of a category that is not in
    `classes` (an object for certain, so no example of background); a box marked `iscrowd`,
    `ignore` or `label_conflict`; every entry of `ignore_annotations`; all with score >=
    `ignore_score`. Boxes are cut to their picture; those without area or with numbers that are
    not finite are dropped, and the log says how many and where.

    Parameters
    ----------
    path:
        The JSON file.
    image_root:
        Folder that `file_name` is relative to.
    classes:
        Names; a label is an index into them.
    min_score, ignore_score:
        From 0 to 1; see above.

    Returns
    -------
    list[VideoRecord]
        Videos in the order of the file, stills (images without `video`) among them.

    Raises
    ------
    DataError
        One line: the file, the entry, and what is wrong with it.

    """
    path, root = Path(path), Path(image_root)
    document = _read(path)
    names = _categories(document, path)
    if not set(names.values()) & set(classes):
        raise DataError(f'{path}: categories: none of the classes ({", ".join(classes)}) is here; '
                        f'it has {", ".join(names.values())}')
    index = {name: number for number, name in enumerate(classes)}
    images = _images(document, path, root)
    found = {key: _Boxes() for key in images}
    dropped: list[str] = []

    for number, entry in enumerate(_entries(document, 'annotations', path)):
        where = f'{path}: annotations[{number}]'
        image = _image_of(entry, images, where)
        category = _get(entry, 'category_id', where, int)
        if category not in names:
            raise DataError(f'{where}: category_id {category} is not in categories')
        score = _score(entry, where)
        track = _track(entry, where)
        box = _box(entry, image, where)
        if box is None:
            dropped.append(image['file_name'])
            continue
        label = index.get(names[category])
        marked = any(entry.get(key) for key in ('iscrowd', 'ignore', 'label_conflict'))
        boxes = found[image['id']]
        if track != UNKNOWN_TRACK and track in boxes.tracks:
            raise DataError(f'{where}: track_id {track} is used twice in {image["file_name"]}; it '
                            'must name one object')
        if label is not None and score >= min_score and not marked:
            boxes.boxes.append(box)
            boxes.labels.append(label)
            boxes.scores.append(score)
            boxes.tracks.append(track)
        elif score >= ignore_score:
            boxes.ignore.append(box)

    if 'ignore_annotations' in document:
        for number, entry in enumerate(_entries(document, 'ignore_annotations', path)):
            where = f'{path}: ignore_annotations[{number}]'
            image = _image_of(entry, images, where)
            box = _box(entry, image, where)
            if box is None:
                dropped.append(image['file_name'])
            elif _score(entry, where) >= ignore_score:
                found[image['id']].ignore.append(box)

    if dropped:
        some = ', '.join(sorted(set(dropped))[:5])
        _log.warning('%s: dropped %d boxes without area, in %d images: %s%s', path, len(dropped),
                     len(set(dropped)), some, ', ...' if len(set(dropped)) > 5 else '')
    return _videos(images, found, path, root)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror}') from None
    except UnicodeDecodeError:
        raise DataError(f'{path}: not a JSON file (not UTF-8 text)') from None
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f'{path}: not valid JSON: line {error.lineno} column {error.colno}: '
                        f'{error.msg}') from None
    if not isinstance(document, dict):
        raise DataError(f'{path}: must hold a JSON object with images, annotations, categories')
    return document


def _entries(document: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = document.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        state = 'missing' if key not in document else 'not a list of objects'
        raise DataError(f'{path}: {key}: {state}; a COCO file has a list of objects there')
    return value


def _get(entry: dict[str, Any], key: str, where: str, kind: type) -> Any:
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        state = 'missing' if key not in entry else f'{value!r:.40}'
        raise DataError(f'{where}: {key} is {state}; it must be of type {kind.__name__}')
    return value


def _categories(document: dict[str, Any], path: Path) -> dict[int, str]:
    names = {}
    for number, entry in enumerate(_entries(document, 'categories', path)):
        where = f'{path}: categories[{number}]'
        key = _get(entry, 'id', where, int)
        if key in names:
            raise DataError(f'{where}: id {key} is used twice')
        names[key] = _get(entry, 'name', where, str)
    return names


def _images(document: dict[str, Any], path: Path, root: Path) -> dict[int, dict[str, Any]]:
    images = {}
    for number, entry in enumerate(_entries(document, 'images', path)):
        where = f'{path}: images[{number}]'
        key = _get(entry, 'id', where, int)
        if key in images:
            raise DataError(f'{where}: id {key} is used twice')
        name = _get(entry, 'file_name', where, str)
        for side in ('width', 'height'):
            if _get(entry, side, where, int) < 1:
                raise DataError(f'{where}: {side} is {entry[side]}; it must be at least 1')
        if entry.get('video') is not None:
            _get(entry, 'video', where, str)
            _get(entry, 'frame_index', where, int)
        if not (root / name).is_file():
            raise DataError(f'{where}: no file {root / name}')
        images[key] = entry
    return images


def _image_of(entry: dict[str, Any], images: dict[int, dict[str, Any]],
              where: str) -> dict[str, Any]:
    key = _get(entry, 'image_id', where, int)
    if key not in images:
        raise DataError(f'{where}: image_id {key} is not in images')
    return images[key]


def _score(entry: dict[str, Any], where: str) -> float:
    score = entry.get('score', 1.0)
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise DataError(f'{where}: score is {score!r:.40}; it must be a number from 0 to 1')
    return float(score)


def _track(entry: dict[str, Any], where: str) -> int:
    track = entry.get('track_id')
    if track is None:
        return UNKNOWN_TRACK
    if isinstance(track, bool) or not isinstance(track, int) or track < 0:
        raise DataError(f'{where}: track_id is {track!r:.40}; it must be a whole number from 0 on')
    return track


def _box(entry: dict[str, Any], image: dict[str, Any], where: str) -> tuple[float, ...] | None:
    """Return the box as xyxy within the picture; None where it has no area there."""
    values = entry.get('bbox')
    if (not isinstance(values, list) or len(values) != 4
            or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)):
        raise DataError(f'{where}: bbox is {values!r:.40}; it must be 4 numbers: x, y, w, h')
    if not all(math.isfinite(value) for value in values):
        return None
    x, y, width, height = values
    x0, y0 = max(0.0, x), max(0.0, y)
    x1, y1 = min(float(image['width']), x + width), min(float(image['height']), y + height)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _videos(images: dict[int, dict[str, Any]], found: dict[int, _Boxes], path: Path,
            root: Path) -> list[VideoRecord]:
    groups: dict[tuple[bool, str], list[dict[str, Any]]] = {}
    for image in images.values():
        video = image.get('video')
        key = (False, image['file_name']) if video is None else (True, video)
        groups.setdefault(key, []).append(image)
    records = []
    for (is_video, name), members in groups.items():
        if not is_video and len(members) > 1:
            raise DataError(f'{path}: images: file_name {name} is used twice')
        members.sort(key=lambda image: image.get('frame_index', 0))
        for first, second in zip(members, members[1:]):
            if first['frame_index'] == second['frame_index']:
                raise DataError(f'{path}: images: video {name} has two images with frame_index '
                                f'{first["frame_index"]}')
            if (first['width'], first['height']) != (second['width'], second['height']):
                raise DataError(f'{path}: images: video {name} changes its size at frame_index '
                                f'{second["frame_index"]}')
        records.append(VideoRecord(name, tuple(
            _record(image, found[image['id']], root) for image in members)))
    if not records:
        raise DataError(f'{path}: images: empty')
    return records


def _record(image: dict[str, Any], found: _Boxes, root: Path) -> FrameRecord:
    return FrameRecord(
        root / image['file_name'], image['width'], image['height'],
        np.array(found.boxes, dtype=np.float32).reshape(-1, 4),
        np.array(found.labels, dtype=np.int64),
        np.array(found.scores, dtype=np.float32),
        np.array(found.ignore, dtype=np.float32).reshape(-1, 4),
        np.array(found.tracks, dtype=np.int64))
