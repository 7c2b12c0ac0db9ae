# SPDX-License-Identifier: Apache-2.0
"""
Label folders of pictures by a teacher, as a COCO-video document with scores and tracks.

The tracker follows the IoU tracker (Bochinski et al. 2017): it looks at overlap alone, so it fits
video in which an object overlaps with itself from frame to frame. Two objects of a class that
cross may change their numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
import re
from time import monotonic
from typing import Any

import numpy as np

from .teacher import COCO_CLASSES, TEACHER_CLASSES, TeacherBoxes, TeacherError
from ..boxes import best_pairs, box_iou
from ..files import walk, write_json
from ..images.frame import decode_file
from ..plain_values import PlainJsonError, read_plain_json

SAVE_EVERY_S = 60.0  #: Seconds of work that a crash may cost


@dataclass(frozen=True)
class LabelledPicture:
    """The teacher's detections in one picture, as in the document."""

    image: dict[str, Any]  #: Entry of ``images``, without id
    annotations: list[dict[str, Any]]  #: Entries of ``annotations``, without ids
    ignored: list[dict[str, Any]]  #: Entries of ``ignore_annotations``, without ids


def check_teacher_classes(names: Iterable[str]) -> None:
    """Raise TeacherError, with the names that are nearest, for one that no teacher has."""
    known = dict(zip(COCO_CLASSES, TEACHER_CLASSES)) | {name: name for name in TEACHER_CLASSES}
    for name in names:
        if name not in TEACHER_CLASSES:
            near = dict.fromkeys(known[match] for match in get_close_matches(name.lower(), known))
            raise TeacherError(f'class {name!r} is unknown to the teacher; ' + (
                f'the nearest it has: {", ".join(near)}' if near else
                "its classes are COCO's, with _ for blanks"))


class Labelling:
    """
    A labelling in the making: which pictures there are, and what is known of them.

    :param root, folders: as for `picture_folders`, and its result
    :param classes: names that become annotations, of `TEACHER_CLASSES`; ids are 1, 2, ... in this
        order.
    :param ignore: names that become `ignore_annotations`: objects, but of no class that is wanted
    :param videos: whether the pictures of a folder are the frames of one video; then annotations
        have a ``track_id``, see `track_boxes`
    :param description: says how the labels are made; goes into the document's info
    :param more: whether there are folders that are not known yet; then it is never complete
    :raises TeacherError: if a class is not one of the teacher's
    """

    def __init__(self, root: Path, folders: dict[str, list[Path]], classes: Sequence[str],
                 ignore: Sequence[str], videos: bool, description: str = '',
                 more: bool = False) -> None:
        check_teacher_classes((*classes, *ignore))
        self._classes, self._ignore = list(classes), ignore
        self._videos, self._description, self._more = videos, description, more
        self._folders = folders
        self._paths: dict[str, Path] = {}
        self._images: dict[str, dict[str, Any]] = {}
        for name, paths in folders.items():
            for index, path in enumerate(paths):
                file_name = path.relative_to(root).as_posix()
                self._paths[file_name] = path
                self._images[file_name] = {'file_name': file_name} | (
                    {'video': name, 'frame_index': index} if videos else {})
        self._done: dict[str, LabelledPicture] = {}

    @property
    def total(self) -> int:
        """Count the pictures."""
        return len(self._paths)

    @property
    def labelled(self) -> int:
        """Count the pictures that are labelled."""
        return len(self._done)

    @property
    def boxes(self) -> int:
        """Count the annotations."""
        return sum(len(picture.annotations) for picture in self._done.values())

    @property
    def pictures(self) -> list[LabelledPicture]:
        """Return what is labelled, in order."""
        return [self._done[name] for name in self._paths if name in self._done]

    def resume(self, path: Path) -> None:
        """
        Take over what an earlier labelling wrote.

        :raises TeacherError: if the file cannot be read, or was made with other settings or from
            other pictures
        """
        self.take(self.written(path), path)

    def take(self, pictures: Iterable[LabelledPicture], path: Path) -> None:
        """Take over pictures that were labelled, as `path` says; raises TeacherError."""
        for picture in pictures:
            mine = self._images.get(picture.image['file_name'])
            if mine is None or not mine.items() <= picture.image.items():
                raise TeacherError(f'{path}: {picture.image["file_name"]} is not, or no longer in '
                                   'this place, among the pictures to label; delete the file to '
                                   'label anew')
            self._done[picture.image['file_name']] = picture

    def written(self, path: Path) -> list[LabelledPicture]:
        """Return the pictures of an earlier labelling, made in the same way; TeacherError."""
        try:
            document = read_plain_json(path)
            empty = self.document()
            for key, mine, its in (
                    ('settings', self._description, document['info']['description']),
                    ('classes', empty['categories'], document['categories']),
                    ('kind of source (videos or stills)', self._videos,
                     all('video' in image for image in document['images']) if document['images']
                     else self._videos)):
                if mine != its:
                    raise TeacherError(f'{path}: was made with other {key} ({its}); delete it to '
                                       'label anew, or name another --output')
            return _pictures(document)
        except PlainJsonError as error:
            raise TeacherError(f'{error}; it is no file that this program wrote') from None
        except TeacherError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise TeacherError(f'{path}: is no file that this program wrote '
                               f'({type(error).__name__}: {error})') from None

    def run(self, detect: Callable[[np.ndarray], TeacherBoxes]) -> Iterator[str]:
        """
        Label the pictures that are not labelled yet, in order; yields each one's file name.

        :param detect: the teacher: ``(H, W, 3)`` uint8 BGR to boxes
        :raises TeacherError: if a picture cannot be decoded, or the pictures of a video differ in
            size
        """
        sizes = {picture.image.get('video'): (picture.image['height'], picture.image['width'])
                 for picture in self._done.values()}
        for file_name, path in self._paths.items():
            if file_name in self._done:
                continue
            pixels = _read(path)
            height, width = pixels.shape[:2]
            entry = {**self._images[file_name], 'width': width, 'height': height}
            if self._videos and sizes.setdefault(entry['video'], (height, width)) != (height,
                                                                                      width):
                raise TeacherError(f'{path}: is {width}x{height} pixels, the frames of a video '
                                   'must be of one size; for stills use --stills')
            # One assignment, so that an interruption leaves the picture wholly in or out.
            self._done[file_name] = self._describe(entry, detect(pixels))
            yield file_name

    def document(self) -> dict[str, Any]:
        """
        Give the COCO-style document of the pictures that are labelled; boxes xywh in pixels.

        ``info.labelled`` of ``info.pictures`` are, and ``info.complete`` says whether that is
        all; the pictures themselves stand in ``images``.
        """
        document: dict[str, Any] = {
            'info': {'description': self._description, 'pictures': self.total,
                     'labelled': self.labelled,
                     'complete': self.labelled == self.total and not self._more},
            'videos': [{'name': name, 'fps': None, 'frames': len(paths)}
                       for name, paths in self._folders.items() if self._videos],
            'images': [], 'annotations': [],
            'categories': [{'id': i, 'name': name} for i, name in enumerate(self._classes, 1)],
            'ignore_annotations': []}
        done = self.pictures
        tracks = self._tracks(done) if self._videos else {}
        for number, picture in enumerate(done, 1):
            document['images'].append({'id': number, **picture.image})
            ids = tracks.get(picture.image['file_name'], [None] * len(picture.annotations))
            for annotation, track in zip(picture.annotations, ids):
                entry = {'id': len(document['annotations']) + 1, 'image_id': number, **annotation}
                document['annotations'].append(
                    entry if track is None else {**entry, 'track_id': int(track)})
            document['ignore_annotations'] += [{'image_id': number, **ignored}
                                               for ignored in picture.ignored]
        return document

    def _tracks(self, done: list[LabelledPicture]) -> dict[str, np.ndarray]:
        """Give the objects of every video numbers, none twice in the document."""
        videos: dict[str, list[LabelledPicture]] = {}
        for picture in done:
            videos.setdefault(picture.image['video'], []).append(picture)
        result: dict[str, np.ndarray] = {}
        first = 1
        for pictures in videos.values():
            numbers = track_boxes([_geometry(picture) for picture in pictures], first)
            first = max([first, *(int(ids.max()) + 1 for ids in numbers if len(ids))])
            result.update((picture.image['file_name'], ids)
                          for picture, ids in zip(pictures, numbers))
        return result

    def _describe(self, entry: dict[str, Any], found: TeacherBoxes) -> LabelledPicture:
        picture = LabelledPicture(entry, [], [])
        for box, label, score in zip(found.boxes.tolist(), found.labels, found.scores):
            name = TEACHER_CLASSES[label]
            width, height = box[2] - box[0], box[3] - box[1]
            rounded = [round(value, 2) for value in (*box[:2], width, height)]
            if min(rounded[2:]) <= 0:
                continue  # Wholly in the padding.
            common = {'bbox': rounded, 'score': round(float(score), 4)}
            if name in self._classes:
                picture.annotations.append({
                    **common, 'category_id': self._classes.index(name) + 1,
                    'area': round(width * height, 1), 'iscrowd': 0})
            elif name in self._ignore:
                picture.ignored.append({**common, 'coco_class': name})
        return picture


def label_into(output: Path, labelling: Labelling, detect: Callable[[np.ndarray], TeacherBoxes],
               progress: Callable[[], None] = lambda: None) -> None:
    """
    Label what is not labelled and write the document, also when something comes in between.

    `progress` is called after each picture.  Raises TeacherError as `Labelling.run` does, and
    OSError when the file cannot be written.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    saved = monotonic()
    try:
        for _ in labelling.run(detect):
            progress()
            if monotonic() - saved > SAVE_EVERY_S:
                _save(output, labelling)
                saved = monotonic()
    finally:
        if labelling.labelled:
            _save(output, labelling)


def is_partial(path: Path) -> bool:
    """Say whether a file is a document whose labelling did not come to its end."""
    try:
        return not read_plain_json(path)['info']['complete']
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _save(output: Path, labelling: Labelling) -> None:
    write_json(output, labelling.document(), indent=None, nan=True)


def _geometry(picture: LabelledPicture) -> tuple[np.ndarray, np.ndarray]:
    """Give boxes ``(N, 4)`` xyxy, and category ids ``(N,)``."""
    boxes = np.array([item['bbox'] for item in picture.annotations], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.array([item['category_id'] for item in picture.annotations], np.int64)


def _pictures(document: dict[str, Any]) -> list[LabelledPicture]:
    """Take a document apart; raises KeyError and the like when it is none."""
    def without(entry: dict[str, Any], *keys: str) -> dict[str, Any]:
        return {key: value for key, value in entry.items() if key not in keys}

    pictures = {image['id']: LabelledPicture(
        {'file_name': image['file_name'], **without(image, 'id')}, [], [])
                for image in document['images']}
    for item in document['annotations']:
        pictures[item['image_id']].annotations.append(without(item, 'id', 'image_id', 'track_id'))
    for item in document['ignore_annotations']:
        pictures[item['image_id']].ignored.append(without(item, 'image_id'))
    for picture in pictures.values():
        name, sides = picture.image['file_name'], (picture.image['height'], picture.image['width'])
        if not isinstance(name, str) or not all(isinstance(side, int) for side in sides):
            raise ValueError(f'file_name {name!r:.40} of {sides!r:.40} pixels')
        boxes, labels = _geometry(picture)
        if labels.shape != (len(boxes),):
            raise ValueError(f'{name} has a bbox that is not of 4 numbers, or an odd category_id')
    return list(pictures.values())


def _read(path: Path) -> np.ndarray:
    try:
        image = decode_file(path)
    except OSError as error:
        raise TeacherError(f'{path}: cannot be read: {error.strerror}') from None
    if image is None:
        raise TeacherError(f'{path}: not a picture that OpenCV can decode')
    return image


#: Pictures are the files with these endings, upper or lower case.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def picture_folders(root: Path, names: Sequence[str] = ()) -> dict[str, list[Path]]:
    """
    Find the folders with pictures in them.

    :param root: searched with all folders below it
    :param names: only these folders, relative to `root`, with those below them; empty for all
    :returns: pictures in the order of their names, numbers in them by value; by folder relative to
        `root`. A last part ``frames`` is left out of a folder's name.
    :raises TeacherError: if a folder does not exist or there are no pictures
    """
    found: dict[Path, set[Path]] = {}
    for name in names:
        if Path(name).is_absolute() or '..' in Path(name).parts:
            raise TeacherError(f'{name}: must be a folder below {root}, named relative to it')
    for start in ([root / name for name in names] or [root]):
        if not start.is_dir():
            raise TeacherError(f'{start}: no such {"folder" if names else "file or folder"}')
        pictures = [path for folder, _, files in walk(start)
                    for path in (Path(folder, file) for file in files)
                    if path.suffix.lower() in SUFFIXES and path.is_file()]
        if not pictures:
            raise TeacherError(f'{start}: no pictures ({", ".join(SUFFIXES)}) here')
        for path in pictures:
            found.setdefault(path.parent, set()).add(path)
    folders = {}
    for folder in sorted(found):
        named = folder
        if folder.name == 'frames' and folder != root and folder.parent not in found:
            named = folder.parent
        name = named.relative_to(root).as_posix() if named != root else root.resolve().name
        if name in folders:
            raise TeacherError(f'{folder}: another folder is called {name}, too; rename one')
        folders[name] = sorted(found[folder], key=_natural)
    return folders


def _natural(path: Path) -> tuple[list[Any], str]:
    """Order frame10 behind frame9, and frame9 behind frame09."""
    parts = re.split(r'(\d+)', path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


#: Overlap from which on two boxes may show one object; SORT's (Bewley et al. 2016) limit.
MIN_IOU = 0.3
#: Frames that an object may be missed, because a teacher does not find it in every one.
PATIENCE = 5


@dataclass
class _Track:
    number: int
    label: int
    box: np.ndarray
    frame: int


def track_boxes(frames: Sequence[tuple[np.ndarray, np.ndarray]], first: int = 1,
                min_iou: float = MIN_IOU, patience: int = PATIENCE) -> list[np.ndarray]:
    """
    Give each object of a video a number of its own.

    In every frame, boxes join the last boxes of the tracks of their class, the pair with the
    largest IoU first, from `min_iou` on. Other boxes start new tracks. A track without a box for
    more than `patience` frames ends.

    :param frames: of each frame in their order: boxes ``(N, 4)`` xyxy, and labels ``(N,)``
    :param first: number of the first track, at least 1
    :param min_iou: in (0, 1]
    :param patience: frames without a box that a track survives
    :returns: of each frame: ``(N,)`` int64, the number of the track of each box
    """
    alive: list[_Track] = []
    result = []
    number = first
    for index, (boxes, labels) in enumerate(frames):
        alive = [track for track in alive if index - track.frame <= patience + 1]
        ids = np.zeros(len(boxes), np.int64)
        overlap = box_iou(boxes, np.array([track.box for track in alive]).reshape(-1, 4))
        overlap[labels[:, None] != np.array([track.label for track in alive])] = 0
        for at, place in zip(*best_pairs(overlap, min_iou)):
            track = alive[place]
            ids[at] = track.number
            track.box, track.frame = boxes[at], index
        for new in np.flatnonzero(ids == 0):
            ids[new] = number
            alive.append(_Track(number, int(labels[new]), boxes[new], index))
            number += 1
        result.append(ids)
    return result
