# SPDX-License-Identifier: Apache-2.0
"""
Label folders of pictures by a teacher, as a COCO-video document with scores and tracks.

The tracker is a variant of the IoU tracker (Bochinski et al. 2017). It compares only overlap, so
an object's boxes in successive frames must overlap. Two objects of a class whose paths cross may
exchange their numbers.
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

SAVE_EVERY_S = 60.0  #: Seconds between savings; a crash loses at most this work


@dataclass(frozen=True)
class LabelledPicture:
    """The teacher's detections in one picture, as entries of the document."""

    image: dict[str, Any]  #: Entry of ``images``, without id
    annotations: list[dict[str, Any]]  #: Entries of ``annotations``, without ids
    ignored: list[dict[str, Any]]  #: Entries of ``ignore_annotations``, without ids


def check_teacher_classes(names: Iterable[str]) -> None:
    """Raise TeacherError, with similar names, for a name that no teacher has."""
    known = dict(zip(COCO_CLASSES, TEACHER_CLASSES)) | {name: name for name in TEACHER_CLASSES}
    for name in names:
        if name not in TEACHER_CLASSES:
            near = dict.fromkeys(known[match] for match in get_close_matches(name.lower(), known))
            raise TeacherError(f'class {name!r} is unknown to the teacher; ' + (
                f'the nearest it has: {", ".join(near)}' if near else
                "its classes are COCO's, with _ for blanks"))


class Labelling:
    """
    An unfinished labelling: its pictures, and the labels so far.

    :param root, folders: as for `picture_folders`, and its result
    :param classes: names that become annotations, of `TEACHER_CLASSES`; ids are 1, 2, ... in this
        order
    :param ignore: names of other classes, whose objects become `ignore_annotations`
    :param videos: whether the pictures of a folder are the frames of one video; then annotations
        have a ``track_id``, see `track_boxes`
    :param description: text on the origin of the labels for the document's info
    :param more: whether there are further, unknown folders; then the document is never complete
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
        """Return the number of pictures."""
        return len(self._paths)

    @property
    def labelled(self) -> int:
        """Return the number of labelled pictures."""
        return len(self._done)

    @property
    def boxes(self) -> int:
        """Return the number of annotations."""
        return sum(len(picture.annotations) for picture in self._done.values())

    @property
    def pictures(self) -> list[LabelledPicture]:
        """Return the labelled pictures, in order."""
        return [self._done[name] for name in self._paths if name in self._done]

    def resume(self, path: Path) -> None:
        """
        Add the labels that an earlier labelling wrote.

        :raises TeacherError: if the file cannot be read, or was made with other settings or from
            other pictures
        """
        self.take(self.written(path), path)

    def take(self, pictures: Iterable[LabelledPicture], path: Path) -> None:
        """Add pictures that the file `path` has labelled; raises TeacherError."""
        for picture in pictures:
            mine = self._images.get(picture.image['file_name'])
            if mine is None or not mine.items() <= picture.image.items():
                raise TeacherError(f'{path}: {picture.image["file_name"]} is not, or no longer in '
                                   'this place, among the pictures to label; delete the file to '
                                   'label anew')
            self._done[picture.image['file_name']] = picture

    def written(self, path: Path) -> list[LabelledPicture]:
        """Return an earlier labelling's pictures; raises TeacherError if the settings differ."""
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
        Label the remaining pictures in order, and yield each one's file name.

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
            # One assignment, so that an interruption cannot leave half of a picture's labels.
            self._done[file_name] = self._describe(entry, detect(pixels))
            yield file_name

    def document(self) -> dict[str, Any]:
        """
        Return the COCO-style document of the labelled pictures; boxes xywh in pixels.

        ``info.labelled`` and ``info.pictures`` are the numbers of labelled and of all pictures.
        ``info.complete`` is true if all are labelled. ``images`` lists the labelled ones.
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
        """Return the track numbers of every video's boxes, unique in the document."""
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
                continue  # The box is in the padding.
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
    Label the remaining pictures and write the document, also after an error or interrupt.

    `progress` is called after each picture. Raises TeacherError as `Labelling.run` does, and
    OSError if the file cannot be written.
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
    """Return whether a file is the document of an incomplete labelling."""
    try:
        return not read_plain_json(path)['info']['complete']
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _save(output: Path, labelling: Labelling) -> None:
    write_json(output, labelling.document(), indent=None, nan=True)


def _geometry(picture: LabelledPicture) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes ``(N, 4)`` xyxy, and category ids ``(N,)``."""
    boxes = np.array([item['bbox'] for item in picture.annotations], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.array([item['category_id'] for item in picture.annotations], np.int64)


def _pictures(document: dict[str, Any]) -> list[LabelledPicture]:
    """Return the pictures of a document; raises KeyError and others if it has another form."""
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
    :returns: pictures by folder relative to `root`, sorted by name, with numbers in names by
        value. A last part ``frames`` is left out of a folder's name.
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
    """Return a sort key: frame10 comes after frame9, and frame9 after frame09."""
    parts = re.split(r'(\d+)', path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


#: Smallest IoU of two boxes of one object; SORT's limit (Bewley et al. 2016).
MIN_IOU = 0.3
#: Successive frames in which the teacher may miss an object.
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
    Assign track numbers to the boxes of a video.

    In every frame, boxes are matched with the last boxes of the tracks of their class, the pair
    with the largest IoU first, down to `min_iou`. Other boxes start new tracks. A track without a
    box for more than `patience` frames ends.

    :param frames: boxes ``(N, 4)`` xyxy and labels ``(N,)`` of each frame, in order
    :param first: number of the first track, at least 1
    :param min_iou: in (0, 1]
    :param patience: most successive frames without a box
    :returns: track numbers of the boxes of each frame, ``(N,)`` int64
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
