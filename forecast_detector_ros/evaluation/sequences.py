# SPDX-License-Identifier: Apache-2.0
"""Annotated video for evaluation."""
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations.findings import DataError
from ..annotations.mot import load_mot
from ..annotations.records import decode_picture, FrameRecord, PictureFolder, VideoRecord
from ..annotations.sources import meet
from ..annotations.video_json import load_video_json
from ..errors import InputError
from ..images.frame import Frame, Pixels
from ..jobs.locations import PictureStore
from ..metrics.tables import one_hot, TruthTable
from ..plain_values import PlainJsonError, read_plain_json


class EvaluationError(InputError):
    """An evaluation is not possible; the message is one line."""


@dataclass(frozen=True)
class Video:
    """Consecutive frames and their annotated boxes."""

    name: str
    frames: tuple[FrameRecord, ...]
    truth: TruthTable  #: Boxes for recall; frames are numbered from 0 on

    #: Boxes for average precision, every object of every class; None if there are none.
    labelled: TruthTable | None = None

    #: Contains the pictures, if they are not at the paths of the frames.
    pictures: PictureStore | None = None

    origin: str = ''  #: Name of the whole sequence, if this is a part; else empty

    @property
    def source_name(self) -> str:
        """Return the name of the whole sequence."""
        return self.origin or self.name


def truth_of(video: VideoRecord, classes: int) -> TruthTable:
    """Put the boxes and ignore regions of a video's records into a table."""
    records = video.frames

    def rows(name: str) -> np.ndarray:
        return np.repeat(np.arange(len(records)), [len(getattr(r, name)) for r in records])

    labels = np.concatenate([record.labels for record in records])
    return TruthTable(rows('boxes'), np.concatenate([record.boxes for record in records]),
                      one_hot(labels, classes), rows('ignore'),
                      np.concatenate([record.ignore for record in records]),
                      np.concatenate([record.tracks for record in records]))


def load_annotated(path: Path, image_root: Path | PictureFolder, labels: Sequence[str],
                   min_score: float, ignore_score: float, truth: Path | None = None
                   ) -> list[Video]:
    """
    Load a COCO-video file whose boxes are used for recall and for average precision.

    If there are true boxes, only they are used for recall. Average precision uses the boxes that
    `load_video_json` makes of both files.

    :param path, image_root: the file, and the folder that its pictures are relative to
    :param labels: the detector's classes
    :param min_score: smallest score of a box that counts as an object, in [0, 1]
    :param ignore_score: smallest score of an ignore region, in [0, 1]
    :param truth: a second file, of true boxes, for some of the sequences; None for none
    :raises DataError: one line: the file, the entry, and what is wrong with it; also if only some
        frames of a sequence are in the file of true boxes
    """
    true = {} if truth is None else {video.name: video for video in load_video_json(
        truth, image_root, labels)}
    videos = []
    for video in load_video_json(path, image_root, labels, min_score, ignore_score, truth=truth):
        labelled = truth_of(video, len(labels))
        own = true.get(video.name)
        if own is not None and len(own.frames) != len(video.frames):
            raise DataError(f'{truth}: video {video.name}: must have all {len(video.frames)} '
                            f'frames, has {len(own.frames)}')
        videos.append(Video(video.name, tuple(video.frames),
                            labelled if own is None else truth_of(own, len(labels)), labelled))
    return videos


def load_mot_videos(path: Path, labels: Sequence[str], outside: bool = False) -> list[Video]:
    """
    Load a folder of sequences in MOTChallenge's format, such as ``MOT17/train``.

    :param path: the folder, with pictures and `gt.txt` as they are distributed
    :param labels: the detector's classes
    :param outside: whether names and symbolic links may lead out of the folder
    :raises DataError: as `load_mot` does
    """
    videos = []
    for video in load_mot(path, path, labels, outside=outside):
        truth = truth_of(video, len(labels))
        videos.append(Video(video.name, tuple(video.frames), truth, truth))
    return videos


def attach_labels(videos: Sequence[Video], path: Path, image_root: Path | PictureFolder,
                  labels: Sequence[str], min_score: float, ignore_score: float
                  ) -> list[Video]:
    """
    Add boxes for average precision from a COCO-video file to videos.

    Frames are matched by their files. Parameters are those of `load_annotated`.

    :raises DataError: if the file is invalid, or lacks a frame of the videos
    """
    records = {record.path.resolve(): record
               for video in load_video_json(path, image_root, labels, min_score, ignore_score)
               for record in video.frames}
    result = []
    for item in videos:
        found = []
        for frame in item.frames:
            record = records.get(frame.path.resolve())
            if record is None:
                raise DataError(f'{path}: images: {frame.path} is not among them; every frame '
                                'needs an entry, also one without objects')
            found.append(record)
        truth = truth_of(VideoRecord(item.name, tuple(found)), len(labels))
        result.append(replace(item, labelled=truth))
    return result


def pick(videos: Sequence[Video], names: Sequence[str]) -> list[Video]:
    """
    Return the named sequences, in the order of the videos; all of them without names.

    :param names: names of sequences or of folders in them; patterns as in `meet`
    :raises EvaluationError: if no sequence matches a name
    """
    known = [item.name for item in videos]
    met, unmet = meet(known, names)
    for name in unmet:
        raise EvaluationError(f'sequence {name!r} is not there; there are '
                              f'{", ".join(sorted(known))}')
    return [item for item in videos if not names or item.name in met]


def thin(item: Video, stride: int) -> list[Video]:
    """
    Take every `stride`-th frame of a sequence, from each of `stride` starts.

    :param stride: 1 or more; 1 returns the sequence itself
    :returns: at most `stride` sequences, with each frame of the video in one of them; the names of
        all but the first end in ``+START``
    """
    return [Video(f'{item.name}+{start}' if start else item.name, item.frames[start::stride],
                  _thin_truth(item.truth, start, stride),
                  None if item.labelled is None else _thin_truth(item.labelled, start, stride),
                  item.pictures, item.source_name)
            for start in range(min(stride, len(item.frames)))]


def _thin_truth(truth: TruthTable, start: int, stride: int) -> TruthTable:
    boxes = truth.frames % stride == start
    regions = truth.ignore_frames % stride == start
    return TruthTable(truth.frames[boxes] // stride, truth.boxes[boxes], truth.accepted[boxes],
                      truth.ignore_frames[regions] // stride, truth.ignore_boxes[regions],
                      truth.tracks[boxes])


def whole_sequences(videos: Sequence[Video]) -> tuple[list[Video], dict[str, str]]:
    """
    Decode every picture once; return the sequences without a broken picture.

    :returns: these sequences, and the errors of the others by their names
    :raises DataError: if no sequence is left
    """
    whole, broken = [], {}
    for item in videos:
        try:
            for record in item.frames:
                decode_picture(record)
        except DataError as error:
            broken[item.name] = str(error)
        else:
            whole.append(item)
    if not whole:
        raise DataError(next(iter(broken.values())))
    return whole, broken


@contextmanager
def frames_here(video: Video) -> Iterator[Sequence[FrameRecord]]:
    """Yield the frames of a sequence with their pictures on this machine; raises LocationError."""
    if video.pictures is None:
        yield video.frames
        return
    with video.pictures.fetched([record.path for record in video.frames]) as paths:
        yield [replace(record, path=path) for record, path in zip(video.frames, paths)]


def picture(record: FrameRecord) -> Pixels:
    """
    Decode the picture of a frame.

    :raises DataError: if it is missing, broken or of another size than annotated
    """
    return Pixels(decode_picture(record), 'rgb')


def as_frame(pixels: Pixels) -> Frame:
    """Wrap decoded pixels, so that decoding is not timed."""
    return Frame(pixels.size, lambda: pixels)


BOXES = 'boxes.json'  #: Name of the annotation file in a sequence's folder


def load_davis(root: Path, labels: Sequence[str],
               also: Mapping[str, Sequence[str]] | None = None) -> list[Video]:
    """
    Load all sequences of a folder, in the order of their names.

    :param labels: the detector's classes; objects of other categories cannot be detected
    :param also: for some sequences, further classes that are accepted
    :raises DataError: one line: the file, the key, and what is wrong with it
    """
    files = sorted(root.glob(f'*/{BOXES}'))
    if not files:
        raise DataError(f'{root}: no SEQUENCE/{BOXES} in this folder')
    also = dict(also or {})
    videos = []
    for path in files:
        extra = also.pop(path.parent.name, ())
        for name in extra:
            if name not in labels:
                raise DataError(f'{name!r} is accepted in {path.parent.name}, but the detector '
                                f'has only {", ".join(labels)}')
        videos.append(_load_sequence(path, labels, extra))
    if also:
        raise DataError(f'{root}: no sequence {sorted(also)[0]!r}; there are '
                        f'{", ".join(path.parent.name for path in files)}')
    return videos


def _load_sequence(path: Path, labels: Sequence[str], extra: Sequence[str]) -> Video:
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
    return Video(path.parent.name, tuple(records), truth)


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
