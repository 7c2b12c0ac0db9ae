# SPDX-License-Identifier: Apache-2.0
"""Annotated boxes for the images of a bag, from a COCO-video file or a topic of the bag."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations.findings import DataError, Kind, Strict
from ..annotations.json_entries import read_json
from ..annotations.records import PictureFolder, UNKNOWN_TRACK, VideoRecord
from ..annotations.video_json import load_video_json
from ..images.bag_images import BagImage, ImageBag
from ..images.video_images import VideoImages
from ..metrics.tables import one_hot, TruthTable
from ..recording.output_files import DETECTIONS
from ..recording.result_messages import read_detections, read_ids, sound_detections

ORDER = 'order'
STAMP = 'stamp'
MATCHES = (ORDER, STAMP)


@dataclass(frozen=True)
class FrameKey:
    """The key that joins an image and its annotation."""

    number: int  #: Number of the image in its topic, from 0 on
    stamp_ns: int  #: Stamp of its header, nanoseconds
    frame_id: str

    @staticmethod
    def of(image: BagImage, number: int) -> FrameKey:
        """Return the key of an image of a bag."""
        return FrameKey(number, image.header_stamp_ns, image.frame_id)


@dataclass(frozen=True)
class CameraTruth:
    """Annotations of one camera of one bag."""

    #: ``(F,)`` int64: numbers of the annotated images, with boxes or without.
    frames: np.ndarray
    table: TruthTable  #: Boxes, by the number of the image
    unmatched: int  #: Annotated frames without an image
    #: One line on possibly wrong or incomplete annotations; empty without doubt.
    doubt: str = ''


class _WithoutFiles(Strict):
    """Raises faults, but accepts missing picture files, because pictures are in the bag."""

    def fault(self, error: DataError) -> None:
        if error.kind != Kind.MISSING_FILE:
            raise error


@dataclass(frozen=True)
class Annotated:
    """The annotated frames of one camera, and the keys of their images."""

    path: Path
    record: VideoRecord
    wanted: str  #: Name of the camera; with several cameras also that of the video
    match: str  #: One of `MATCHES`
    #: Number or header stamp of each frame's image, by `match`.
    values: tuple[int, ...]

    def truth(self, classes: int, keys: Sequence[FrameKey]) -> CameraTruth:
        """
        Assign the annotations to the images of a bag.

        :param keys: keys of all images of the camera
        :raises DataError: if no annotated frame has an image
        """
        numbers = {(item.number if self.match == ORDER else item.stamp_ns): item.number
                   for item in keys}
        frames = self.record.frames
        found = [(numbers[value], frame) for value, frame in zip(self.values, frames)
                 if value in numbers]
        if not found:
            raise DataError(f'{self.path}: video {self.record.name}: none of its {len(frames)} '
                            f'frames is in the bag by {self.match}')
        boxes = [(number, box, label, track) for number, frame in found
                 for box, label, track in zip(frame.boxes, frame.labels.tolist(),
                                              frame.tracks.tolist())]
        ignore = [(number, box) for number, frame in found for box in frame.ignore]
        return CameraTruth(np.array(sorted(number for number, _ in found), np.int64),
                           _table(boxes, ignore, classes), len(frames) - len(found),
                           self._doubt(len(found), len(keys)))

    def _doubt(self, found: int, images: int) -> str:
        frames, odd = len(self.values), []
        if self.record.name != self.wanted:
            odd.append(f'is taken for {self.wanted}, as the only one there is')
        if found < frames:
            odd.append(f'{frames - found} of its {frames} frames have no image')
        elif self.match == ORDER and frames < images and max(self.values) == frames - 1:
            odd.append(f'its {frames} frames are taken for the first of {images} images')
        return f'{self.path}: video {self.record.name}: {", and ".join(odd)}' if odd else ''


def load_annotated_camera(path: Path, video: str, only: bool, match: str, labels: Sequence[str],
                          min_score: float) -> Annotated:
    """
    Load the boxes of one camera from a COCO-video file.

    :param path: the file; the pictures that it names need not exist
    :param video: name of the video in the file
    :param only: whether there is only one camera; then the only video of the file is used under
        any name
    :param match: `ORDER`: ``frame_index`` k is the image number k of the topic, counted from 0.
        `STAMP`: ``stamp_ns`` of an image entry is the stamp of the image's header.
    :param labels: the detector's classes
    :param min_score: boxes with a lower score are not used, in [0, 1]
    :raises DataError: the message names the file, the entry and the fault
    """
    videos = load_video_json(path, PictureFolder(path.parent, True), labels, min_score,
                             min_score, _WithoutFiles())
    record = _pick(videos, video, only, path)
    key = 'frame_index' if match == ORDER else 'stamp_ns'
    values: dict[Path, int] = {}
    taken: set[int] = set()
    for number, entry in enumerate(read_json(path)['images']):
        # A still is a video with the name of its file.
        if record.name != (entry['file_name'] if entry.get('video') is None else entry['video']):
            continue
        value, file = entry.get(key), path.parent / entry['file_name']
        if not isinstance(value, int) or isinstance(value, bool):
            raise DataError(f'{path}: images[{number}]: {key} is {value!r:.40}; to match by '
                            f'{match} it must be a whole number')
        for name, known in (('file_name', file in values), (key, value in taken)):
            if known:
                raise DataError(f'{path}: images[{number}]: {name} {entry[name]} is used twice')
        values[file] = value
        taken.add(value)
    return Annotated(path, record, video, match,
                     tuple(values[frame.path] for frame in record.frames))


def recorded_truth(bag: ImageBag | VideoImages, topic: str, labels: Sequence[str],
                   keys: Sequence[FrameKey], only: bool) -> CameraTruth:
    """
    Load the boxes of one camera from a topic with vision_msgs/Detection2DArray in the bag.

    A message belongs to the image with the same stamp and frame_id. Boxes of classes that the
    detector does not have are ignore regions. Boxes with the same `id` show the same object.
    Unusable boxes, such as those with numbers that are not finite, are left out.

    :param bag: a bag with a typestore that has vision_msgs
    :param topic: full name
    :param labels: the detector's classes
    :param keys: keys of all images of the camera
    :param only: whether there is only one camera; then a topic without a matching message is an
        error
    :raises DataError: if the bag has no such topic, or no message belongs to an image
    """
    numbers = {(key.stamp_ns, key.frame_id): key.number for key in keys}
    boxes: list[tuple[int, Any, int, int]] = []
    tracks: dict[str, int] = {'': UNKNOWN_TRACK}
    ignore: list[tuple[int, Any]] = []
    frames, unmatched, unsound = set(), 0, 0
    index = {name: number for number, name in enumerate(labels)}
    for message in bag.messages(topic, DETECTIONS):
        stamp = message.header.stamp
        number = numbers.get((stamp.sec * 10**9 + stamp.nanosec, message.header.frame_id))
        if number is None:
            unmatched += 1
            continue
        if number in frames:
            raise DataError(f'{bag.path}: {topic} has two messages for one image, with stamp '
                            f'{stamp.sec}.{stamp.nanosec:09d}')
        frames.add(number)
        unsound += sound_detections(message)
        corners, names, _ = read_detections(message)
        ids = read_ids(message) or [''] * len(names)
        for box, name, track in zip(corners, names, ids, strict=True):
            if name in index:
                boxes.append((number, box, index[name], tracks.setdefault(track, len(tracks))))
            else:
                ignore.append((number, box))
    if not frames and only:
        raise DataError(f'{bag.path}: no message on {topic} has the header of an image')
    doubt = (f'{bag.path}: {topic}: {unsound} boxes are left out: they have no class, or numbers '
             'that no picture has' if unsound else '')
    return CameraTruth(np.array(sorted(frames), np.int64), _table(boxes, ignore, len(labels)),
                       unmatched, doubt)


def _pick(videos: Sequence[VideoRecord], name: str, only: bool, path: Path) -> VideoRecord:
    for video in videos:
        if video.name == name:
            return video
    if only and len(videos) == 1:
        return videos[0]
    raise DataError(f'{path}: no video {name!r}; there is '
                    f'{", ".join(video.name for video in videos[:9])}')


def _table(boxes: Sequence[tuple[int, Any, int, int]], ignore: Sequence[tuple[int, Any]],
           classes: int) -> TruthTable:
    return TruthTable(
        np.array([number for number, *_ in boxes], np.int64),
        np.array([box for _, box, *_ in boxes], np.float32).reshape(-1, 4),
        one_hot(np.array([label for *_, label, _ in boxes], np.int64), classes),
        np.array([number for number, _ in ignore], np.int64),
        np.array([box for _, box in ignore], np.float32).reshape(-1, 4),
        np.array([track for *_, track in boxes], np.int64))
