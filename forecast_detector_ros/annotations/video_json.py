# SPDX-License-Identifier: Apache-2.0
"""
COCO-style annotation files, with or without videos.

Plain COCO detection files work: every image is then a video of one frame. Five extensions are
read: `video` and `frame_index` of an image, `score` and `track_id` of an annotation, and a list
`ignore_annotations`. See docs/reference/data.md for the format.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import logging
from operator import itemgetter
from pathlib import Path
from typing import Any

from .findings import check_classes, DataError, Findings, Kind, Strict
from .json_entries import (
    boxed_classes,
    categories,
    completeness,
    entries,
    Fate,
    get,
    read_json,
    same_picture,
    score_of,
    track_of,
    TruePicture,
    video_entries,
)
from .records import (
    box_in_picture,
    FrameBoxes,
    MOST_TRACKS,
    PictureFolder,
    UNKNOWN_TRACK,
    VideoRecord,
)

_log = logging.getLogger(__name__)


def load_video_json(path: str | Path, image_root: str | Path | PictureFolder,
                    classes: Sequence[str], min_score: float = 0.0, ignore_score: float = 0.0,
                    findings: Findings | None = None,
                    truth: str | Path | None = None) -> list[VideoRecord]:
    """
    Read an annotation file.

    A box of one of the `classes` with score >= `min_score` is a target. With score >=
    `ignore_score` these are ignore regions: other boxes of the `classes`, boxes of other
    categories, boxes marked `iscrowd`, `ignore` or `label_conflict`, and `ignore_annotations`.
    Boxes are cut to their picture. Those without area or with numbers that are not finite are
    dropped and logged.

    :param image_root: folder that `file_name` is relative to; if it is a path, no `file_name` may
        lead out of it
    :param classes: names; a label is an index into them
    :param min_score, ignore_score: from 0 to 1; see above
    :param findings: receives the errors; default: the first one is raised
    :param truth: a second file, of true boxes, with the same `file_name` for the same picture.
        They replace boxes of the first file as `TruePicture.fate` says. Pictures that only the
        second file has are added.
    :returns: videos, and stills (images without `video`), in the order of the file
    :raises DataError: one line: the file, the entry, and what is wrong with it
    """
    path = Path(path)
    root = image_root if isinstance(image_root, PictureFolder) else PictureFolder(image_root)
    findings = Strict() if findings is None else findings
    document = read_json(path)
    names = categories(document, path, findings)
    check_classes(classes, names.values(), f'{path}: categories', findings)
    images = _images(document, path, root, findings)
    found = {key: FrameBoxes() for key in images}
    index = {name: number for number, name in enumerate(classes)}
    groups = _groups(document)
    known: dict[int, TruePicture] = {}
    reader = _Annotations(path, names, index, images, found, min_score, ignore_score, findings)
    if truth is not None:
        truth = Path(truth)
        true_document = read_json(truth)
        groups |= _groups(true_document)
        known = _lay_over(truth, true_document, root, reader, _above(document, 'image_id'),
                          _above(document, 'track_id'))
    reader.read(document, known)
    return _videos({key: image for key, image in images.items() if image is not None}, found,
                   groups, path, root, findings)


def _lay_over(path: Path, document: dict[str, Any], root: PictureFolder, under: _Annotations,
              first_image: int, first_track: int) -> dict[int, TruePicture]:
    """Add true boxes and further pictures to `under`; return the true boxes by picture key."""
    findings, classes = under.findings, set(under.index)
    names, images = categories(document, path, findings), _images(document, path, root, findings)
    places = {image['file_name']: (key, image) for key, image in under.images.items()
              if image is not None}
    present: dict[str, set[str]] = {
        name: set() for name, complete in completeness(document, path).items() if complete}
    keys: dict[int, int] = {}
    taken: set[int] = set()  # The values of `keys`.
    pictures: dict[int, TruePicture] = {}
    unboxed: Counter[str] = Counter()
    fresh = max(first_image, 1 + max(under.images, default=0))
    for number, image in images.items():
        if image is None:
            continue
        file_name, images[number] = image['file_name'], None
        key, same = places.get(file_name, (fresh, None))
        try:
            if key in taken:
                raise DataError(f'{path}: images: file_name {file_name} is used twice',
                                Kind.DUPLICATE)
            boxed = boxed_classes(image.get('labels'), names.values(), f'{path}: {file_name}')
            if same is not None:
                same_picture(image, same, f'{path}: {file_name}')
        except DataError as error:
            findings.fault(error)
            continue
        if same is None:
            under.images[key], under.found[key] = image | {'id': key}, FrameBoxes()
            unboxed.update(classes - boxed if boxed else ())
            places[file_name], fresh = (key, image), fresh + 1
        images[number], keys[number] = image, key
        taken.add(key)
        pictures[number] = TruePicture(boxed=boxed, present=present.get(image.get('video', '')))
    for name, count in unboxed.items():
        findings.note(Kind.UNLABELLED_CLASS, f'{path}: images: labels of {count} pictures that '
                      f'only this file has leave out {name}; where one is in such a picture, it '
                      'is taught as background')
    _Annotations(path, names, under.index, images,
                 {number: under.found[key] for number, key in keys.items()}, under.min_score,
                 under.ignore_score, findings, first_track).read(document, pictures)
    return {key: pictures[number] for number, key in keys.items()}


class _Annotations:
    """Assigns the boxes of a file to their pictures."""

    def __init__(self, path: Path, names: dict[int, str], index: dict[str, int],
                 images: dict[int, dict[str, Any] | None], found: dict[int, FrameBoxes],
                 min_score: float, ignore_score: float, findings: Findings,
                 first_track: int | None = None) -> None:
        """Store the arguments; for true boxes, `first_track` is added to the track numbers."""
        self.index, self.images, self.found = index, images, found
        self.min_score, self.ignore_score, self.findings = min_score, ignore_score, findings
        self._path, self._names, self._first_track = path, names, first_track
        self._dropped: list[str] = []
        self._not_trained: Counter[str] = Counter()

    def read(self, document: dict[str, Any], known: Mapping[int, TruePicture]) -> None:
        """Read all entries; `known` has the pictures with true boxes, by their keys."""
        for key in ('annotations', 'ignore_annotations'):
            if key == 'annotations' or key in document:
                for number, entry in enumerate(entries(document, key, self._path)):
                    try:
                        self._take(entry, f'{self._path}: {key}[{number}]',
                                   key == 'ignore_annotations', known)
                    except DataError as error:
                        self.findings.fault(error)
        self._finish()

    def _take(self, entry: dict[str, Any], where: str, ignored: bool,
              known: Mapping[int, TruePicture]) -> None:
        """Read an entry; if `ignored`, it is always an ignore region."""
        key = get(entry, 'image_id', where, int)
        if key not in self.images:
            raise DataError(f'{where}: image_id {key} is not in images')
        image = self.images[key]
        if image is None:
            return
        name = None
        if not ignored:
            category = get(entry, 'category_id', where, int)
            if category not in self._names:
                raise DataError(f'{where}: category_id {category} is not in categories',
                                Kind.UNKNOWN_CATEGORY)
            name = self._names[category]
        score = score_of(entry, where)
        track = track_of(entry, where)
        if track != UNKNOWN_TRACK:
            track += self._first_track or 0
        box = self._box(entry, image, where)
        if box is None:
            self._dropped.append(image['file_name'])
            return
        if name is not None and key in known:
            if self._first_track is not None:
                known[key].add(name, box)
            elif (fate := known[key].fate(name, box)) is Fate.DROPPED:
                return
            else:
                ignored = fate is Fate.IGNORED
        boxes = self.found[key]
        label = None if name is None else self.index.get(name)
        marked = any(entry.get(mark) for mark in ('iscrowd', 'ignore', 'label_conflict'))
        if label is not None and score >= self.min_score and not marked and not ignored:
            if boxes.has_track(track):
                raise DataError(f'{where}: track_id {track} is used twice in '
                                f'{image["file_name"]}; it must name one object', Kind.DUPLICATE)
            boxes.add(box, label, where, self.findings, score, track)
        elif score >= self.ignore_score:
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
                              where, self.findings)

    def _finish(self) -> None:
        """Report dropped boxes, and those that are ignore regions because of their category."""
        if self._dropped:
            files = sorted(set(self._dropped))
            _log.warning('%s: dropped %d boxes without area, in %d images: %s%s', self._path,
                         len(self._dropped), len(files), ', '.join(files[:5]),
                         ', ...' if len(files) > 5 else '')
        for name, count in self._not_trained.items():
            self.findings.note(Kind.NOT_TRAINED, f'{self._path}: categories: {name} is no class '
                                                 f'to train; its {count} boxes are ignored')


def _images(document: dict[str, Any], path: Path, root: PictureFolder,
            findings: Findings) -> dict[int, dict[str, Any] | None]:
    """Return the images by id; None for those whose entry is unusable."""
    images: dict[int, dict[str, Any] | None] = {}
    for number, entry in enumerate(entries(document, 'images', path)):
        where = f'{path}: images[{number}]'
        try:
            key = get(entry, 'id', where, int)
            if key in images:
                raise DataError(f'{where}: id {key} is used twice', Kind.DUPLICATE)
            images[key] = None
            _check_image(entry, where)
            place = root.place(entry['file_name'], where)
            images[key] = entry
            if not place.is_file():
                raise DataError(f'{where}: no file {place}', Kind.MISSING_FILE)
        except DataError as error:
            findings.fault(error)
    return images


def _check_image(entry: dict[str, Any], where: str) -> None:
    get(entry, 'file_name', where, str)
    for side in ('width', 'height'):
        if get(entry, side, where, int) < 1:
            raise DataError(f'{where}: {side} is {entry[side]}; it must be at least 1')
    if entry.get('video') is not None:
        get(entry, 'video', where, str)
        get(entry, 'frame_index', where, int)


def _groups(document: dict[str, Any]) -> dict[str, str]:
    """Return the group of each video that has one: the recording of which it is a part."""
    return {name: video['group'] for name, video in video_entries(document).items()
            if isinstance(video.get('group'), str)}


def _above(document: dict[str, Any], key: str) -> int:
    """Return a number above all that a document's entries have under `key`."""
    lists = (document.get(name) for name in ('annotations', 'ignore_annotations'))
    numbers = (entry.get(key) for found in lists if isinstance(found, list)
               for entry in found if isinstance(entry, dict))
    return 1 + max((number for number in numbers
                    if isinstance(number, int) and number < MOST_TRACKS), default=-1)


def _videos(images: dict[int, dict[str, Any]], found: dict[int, FrameBoxes],
            groups: Mapping[str, str], path: Path, root: PictureFolder,
            findings: Findings) -> list[VideoRecord]:
    videos: dict[tuple[bool, str], list[dict[str, Any]]] = {}
    files: set[str] = set()
    for image in images.values():
        video, name = image.get('video'), image['file_name']
        key = (False, name) if video is None else (True, video)
        videos.setdefault(key, []).append(image)
        if name in files and video is not None:
            findings.note(Kind.DUPLICATE, f'{path}: images: file_name {name} is used twice')
        files.add(name)
    records = []
    for (is_video, name), members in videos.items():
        if is_video:
            members.sort(key=itemgetter('frame_index'))
        try:
            if is_video:
                _check_sequence(name, members, path, findings)
            elif len(members) > 1:
                raise DataError(f'{path}: images: file_name {name} is used twice', Kind.DUPLICATE)
        except DataError as error:
            findings.fault(error)
        records.append(VideoRecord(name, tuple(
            found[image['id']].record(root.root / image['file_name'], image['width'],
                                      image['height'])
            for image in members), groups.get(name, '') if is_video else ''))
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
