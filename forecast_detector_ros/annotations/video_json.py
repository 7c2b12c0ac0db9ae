# SPDX-License-Identifier: Apache-2.0
"""
COCO-style annotation files, with or without videos.

Plain COCO detection files work: every image is then a video of one frame. Five extensions are
read: `video` and `frame_index` of an image, `score` and `track_id` of an annotation, and a list
`ignore_annotations`. See docs/data.md for the format.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import json
import logging
from pathlib import Path
from typing import Any

from .errors import DataError, Kind
from .findings import Collected, Findings, Strict
from .records import box_in_picture, FrameBoxes, FrameRecord, UNKNOWN_TRACK, VideoRecord

__all__ = ['DataError', 'FrameRecord', 'UNKNOWN_TRACK', 'VideoRecord', 'load_video_json']

_log = logging.getLogger(__name__)


def load_video_json(path: str | Path, image_root: str | Path, classes: Sequence[str],
                    min_score: float = 0.0, ignore_score: float = 0.0,
                    findings: Findings | None = None) -> list[VideoRecord]:
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
    findings:
        Who is told of mistakes; default: the first one is raised.

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
    findings = Strict() if findings is None else findings
    document = read_json(path)
    names = _categories(document, path, findings)
    if not set(names.values()) & set(classes):
        raise DataError(f'{path}: categories: none of the classes ({", ".join(classes)}) is here; '
                        f'it has {", ".join(names.values())}', Kind.SOURCE)
    for name in classes:
        if name not in names.values():
            findings.note(Kind.UNLABELLED_CLASS, f'{path}: categories: no {name}; where one is in '
                                                 'a picture, it is taught as background')
    images = _images(document, path, root, findings)
    found = {key: FrameBoxes() for key in images}
    reader = _Annotations(path, names, {name: number for number, name in enumerate(classes)},
                          images, found, min_score, ignore_score, findings)
    for key in ('annotations', 'ignore_annotations'):
        if key == 'annotations' or key in document:
            for number, entry in enumerate(_entries(document, key, path)):
                try:
                    reader.take(entry, f'{path}: {key}[{number}]', key == 'ignore_annotations')
                except DataError as error:
                    findings.fault(error)
    reader.finish()
    return _videos({key: image for key, image in images.items() if image is not None}, found,
                   path, root, findings)


class _Annotations:
    """Sorts the boxes of a file into the pictures they belong to."""

    def __init__(self, path: Path, names: dict[int, str], index: dict[str, int],
                 images: dict[int, dict[str, Any] | None], found: dict[int, FrameBoxes],
                 min_score: float, ignore_score: float, findings: Findings) -> None:
        self._path, self._names, self._index = path, names, index
        self._images, self._found = images, found
        self._min_score, self._ignore_score = min_score, ignore_score
        self._findings = findings
        self._dropped: list[str] = []
        self._not_trained: Counter[str] = Counter()

    def take(self, entry: dict[str, Any], where: str, ignored: bool) -> None:
        """Take an entry; `ignored` for those that are regions to ignore, whatever they say."""
        key = _get(entry, 'image_id', where, int)
        if key not in self._images:
            raise DataError(f'{where}: image_id {key} is not in images')
        image = self._images[key]
        if image is None:
            return
        name = None
        if not ignored:
            category = _get(entry, 'category_id', where, int)
            if category not in self._names:
                raise DataError(f'{where}: category_id {category} is not in categories',
                                Kind.UNKNOWN_CATEGORY)
            name = self._names[category]
        score = _score(entry, where)
        track = _track(entry, where)
        box = self._box(entry, image, where)
        if box is None:
            self._dropped.append(image['file_name'])
            return
        boxes = self._found[key]
        if boxes.has_track(track):
            raise DataError(f'{where}: track_id {track} is used twice in {image["file_name"]}; it '
                            'must name one object', Kind.DUPLICATE)
        label = None if name is None else self._index.get(name)
        marked = any(entry.get(mark) for mark in ('iscrowd', 'ignore', 'label_conflict'))
        if label is not None and score >= self._min_score and not marked:
            boxes.add(box, label, where, self._findings, score, track)
        elif score >= self._ignore_score:
            boxes.add_ignore(box)
            if label is None and name is not None:
                self._not_trained[name] += 1

    def _box(self, entry: dict[str, Any], image: dict[str, Any],
             where: str) -> tuple[float, ...] | None:
        values = entry.get('bbox')
        if (not isinstance(values, list) or len(values) != 4
                or not all(isinstance(v, (int, float)) and not isinstance(v, bool)
                           for v in values)):
            raise DataError(f'{where}: bbox is {values!r:.40}; it must be 4 numbers: x, y, w, h')
        x, y, width, height = values
        return box_in_picture((x, y, x + width, y + height), image['width'], image['height'],
                              where, self._findings)

    def finish(self) -> None:
        """Say what was dropped and what became ignore regions because of its category."""
        if self._dropped:
            files = sorted(set(self._dropped))
            _log.warning('%s: dropped %d boxes without area, in %d images: %s%s', self._path,
                         len(self._dropped), len(files), ', '.join(files[:5]),
                         ', ...' if len(files) > 5 else '')
        for name, count in self._not_trained.items():
            self._findings.note(Kind.NOT_TRAINED, f'{self._path}: categories: {name} is no class '
                                                  f'to train; its {count} boxes are ignored')


def read_json(path: Path) -> dict[str, Any]:
    """
    Read a file that holds one JSON object.

    Raises
    ------
    DataError
        One line that names the file.

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


def _entries(document: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = document.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        state = 'missing' if key not in document else 'not a list of objects'
        raise DataError(f'{path}: {key}: {state}; a COCO file has a list of objects there',
                        Kind.SOURCE)
    return value


def _get(entry: dict[str, Any], key: str, where: str, kind: type) -> Any:
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        state = 'missing' if key not in entry else f'{value!r:.40}'
        raise DataError(f'{where}: {key} is {state}; it must be of type {kind.__name__}')
    return value


def _categories(document: dict[str, Any], path: Path, findings: Findings) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, entry in enumerate(_entries(document, 'categories', path)):
        where = f'{path}: categories[{number}]'
        try:
            key = _get(entry, 'id', where, int)
            name = _get(entry, 'name', where, str)
            if key in names:
                raise DataError(f'{where}: id {key} is used twice', Kind.DUPLICATE)
            names[key] = name
        except DataError as error:
            findings.fault(error)
    return names


def category_names(path: str | Path) -> tuple[str, ...]:
    """
    Return the names of the categories of an annotation file, in its order.

    Raises
    ------
    DataError
        The file cannot be read, or has no categories.

    """
    path = Path(path)
    names = _categories(read_json(path), path, Collected(0))
    if not names:
        raise DataError(f'{path}: categories: empty', Kind.SOURCE)
    return tuple(dict.fromkeys(names.values()))


def _images(document: dict[str, Any], path: Path, root: Path,
            findings: Findings) -> dict[int, dict[str, Any] | None]:
    """Return the images by id; None for those whose entry is unusable."""
    images: dict[int, dict[str, Any] | None] = {}
    for number, entry in enumerate(_entries(document, 'images', path)):
        where = f'{path}: images[{number}]'
        try:
            key = _get(entry, 'id', where, int)
            if key in images:
                raise DataError(f'{where}: id {key} is used twice', Kind.DUPLICATE)
            images[key] = None
            _check_image(entry, where)
            images[key] = entry
            if not (root / entry['file_name']).is_file():
                raise DataError(f'{where}: no file {root / entry["file_name"]}',
                                Kind.MISSING_FILE)
        except DataError as error:
            findings.fault(error)
    return images


def _check_image(entry: dict[str, Any], where: str) -> None:
    _get(entry, 'file_name', where, str)
    for side in ('width', 'height'):
        if _get(entry, side, where, int) < 1:
            raise DataError(f'{where}: {side} is {entry[side]}; it must be at least 1')
    if entry.get('video') is not None:
        _get(entry, 'video', where, str)
        _get(entry, 'frame_index', where, int)


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


def _videos(images: dict[int, dict[str, Any]], found: dict[int, FrameBoxes], path: Path,
            root: Path, findings: Findings) -> list[VideoRecord]:
    groups: dict[tuple[bool, str], list[dict[str, Any]]] = {}
    files: set[str] = set()
    for image in images.values():
        video, name = image.get('video'), image['file_name']
        key = (False, name) if video is None else (True, video)
        groups.setdefault(key, []).append(image)
        if name in files and video is not None:
            findings.note(Kind.DUPLICATE, f'{path}: images: file_name {name} is used twice')
        files.add(name)
    records = []
    for (is_video, name), members in groups.items():
        members.sort(key=lambda image: image.get('frame_index', 0))
        try:
            if is_video:
                _check_sequence(name, members, path, findings)
            elif len(members) > 1:
                raise DataError(f'{path}: images: file_name {name} is used twice', Kind.DUPLICATE)
        except DataError as error:
            findings.fault(error)
        records.append(VideoRecord(name, tuple(
            found[image['id']].record(root / image['file_name'], image['width'], image['height'])
            for image in members)))
    if not records:
        raise DataError(f'{path}: images: empty', Kind.SOURCE)
    return records


def _check_sequence(name: str, members: list[dict[str, Any]], path: Path,
                    findings: Findings) -> None:
    """Check a video's images, which are in the order of their indices."""
    where = f'{path}: images: video {name}'
    steps = Counter(second['frame_index'] - first['frame_index']
                    for first, second in zip(members, members[1:]))
    usual = steps.most_common(1)[0][0] if steps else 1
    for first, second in zip(members, members[1:]):
        index, step = second['frame_index'], second['frame_index'] - first['frame_index']
        if step == 0:
            raise DataError(f'{where} has two images with frame_index {index}', Kind.DUPLICATE)
        if (first['width'], first['height']) != (second['width'], second['height']):
            raise DataError(f'{where} changes its size at frame_index {index}', Kind.WRONG_SIZE)
        if step > usual > 0:
            findings.note(Kind.MISSING_FRAME, f'{where} jumps from frame_index '
                          f'{first["frame_index"]} to {index}; else it goes in steps of {usual}')
