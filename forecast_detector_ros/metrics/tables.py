# SPDX-License-Identifier: Apache-2.0
"""Boxes of many frames in flat arrays: detections, annotated boxes, and their matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any
import zipfile
import zlib

import numpy as np

from ..annotations.findings import DataError
from ..annotations.records import UNKNOWN_TRACK
from ..boxes import pair_iou
from ..detector.processing import Detections
from ..files import write_atomically


@dataclass(frozen=True)
class DetectionTable:
    """Detections of many frames, one row per box."""

    frames: np.ndarray  #: ``(N,)`` int64: number of the frame
    boxes: np.ndarray  #: ``(N, 4)`` float32, xyxy, pixels
    labels: np.ndarray  #: ``(N,)`` int64, index of the class
    scores: np.ndarray  #: ``(N,)`` float32, in [0, 1]

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.frames)

    def select(self, rows: np.ndarray) -> DetectionTable:
        """Return some rows, by a bool ``(N,)`` mask or by indices."""
        return DetectionTable(self.frames[rows], self.boxes[rows], self.labels[rows],
                              self.scores[rows])

    def shift(self, frames: int) -> DetectionTable:
        """Add a number to every frame's number."""
        return DetectionTable(self.frames + frames, self.boxes, self.labels, self.scores)

    @staticmethod
    def join(tables: Sequence[DetectionTable]) -> DetectionTable:
        """Concatenate tables; without any, return an empty table."""
        return DetectionTable(
            *(np.concatenate([empty, *(getattr(table, name) for table in tables)])
              for name, empty in (('frames', np.zeros(0, np.int64)),
                                  ('boxes', np.zeros((0, 4), np.float32)),
                                  ('labels', np.zeros(0, np.int64)),
                                  ('scores', np.zeros(0, np.float32)))))

    @staticmethod
    def of_frame(frame: int, detections: Detections) -> DetectionTable:
        """Turn the detections of one frame into rows."""
        return DetectionTable(np.full(len(detections), frame, np.int64), detections.boxes,
                              detections.labels, detections.scores)


@dataclass(frozen=True)
class TruthTable:
    """Annotated boxes of many frames, one row per box, and ignore regions."""

    frames: np.ndarray  #: ``(M,)`` int64: number of the frame
    boxes: np.ndarray  #: ``(M, 4)`` float32, xyxy, pixels
    #: ``(M, C)`` bool: the classes that a detection of this box may have; mostly one.
    accepted: np.ndarray
    ignore_frames: np.ndarray  #: ``(K,)`` int64: number of the frame of each region
    #: ``(K, 4)`` float32, xyxy: a detection inside is neither right nor wrong.
    ignore_boxes: np.ndarray
    #: ``(M,)`` int64: number of the box's object in its video, `UNKNOWN_TRACK` if unknown.
    tracks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        """Fill in unknown tracks."""
        if not len(self.tracks):
            object.__setattr__(self, 'tracks', np.full(len(self), UNKNOWN_TRACK, np.int64))

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.frames)

    @property
    def labels(self) -> np.ndarray:
        """
        Return the class of every box, ``(M,)`` int64.

        :raises ValueError: if a box does not accept exactly one class
        """
        if not np.all(self.accepted.sum(1) == 1):
            raise ValueError('a box does not have exactly one class')
        return self.accepted.argmax(1) if len(self) else np.zeros(0, np.int64)

    def select(self, rows: np.ndarray) -> TruthTable:
        """Return some boxes, by a bool ``(M,)`` mask or by indices, and all regions."""
        return TruthTable(self.frames[rows], self.boxes[rows], self.accepted[rows],
                          self.ignore_frames, self.ignore_boxes, self.tracks[rows])

    def shift(self, frames: int) -> TruthTable:
        """Add a number to every frame's number."""
        return TruthTable(self.frames + frames, self.boxes, self.accepted,
                          self.ignore_frames + frames, self.ignore_boxes, self.tracks)

    @staticmethod
    def join(tables: Sequence[TruthTable]) -> TruthTable:
        """
        Concatenate one or more tables of the same classes.

        The same track number in two tables may mean different objects.
        """
        return TruthTable(*(np.concatenate([getattr(table, name) for table in tables])
                            for name in ('frames', 'boxes', 'accepted', 'ignore_frames',
                                         'ignore_boxes', 'tracks')))


def join_sequences(lengths: Sequence[int], found: Sequence[DetectionTable],
                   truths: Sequence[TruthTable]) -> tuple[DetectionTable, TruthTable]:
    """
    Join the detections of one or more sequences, and their boxes.

    :param lengths: number of frames of each sequence
    :param found, truths: one table per sequence; frames are numbered through all sequences
    """
    starts = np.cumsum([0, *lengths]).tolist()
    return (DetectionTable.join([table.shift(start) for table, start in zip(found, starts)]),
            TruthTable.join([table.shift(start) for table, start in zip(truths, starts)]))


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Turn ``(M,)`` labels into ``(M, classes)`` bool; a negative label accepts no class."""
    return labels[:, None] == np.arange(classes)


_KINDS = {'detections': DetectionTable, 'boxes': TruthTable}
_SEPARATOR = '|'


def save_tables(path: Path, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """
    Write a compressed NumPy archive atomically.

    :param groups: by two names, a DetectionTable, a TruthTable or an array; a name must not
        contain ``|``
    """
    arrays: dict[str, Any] = {}
    for group, members in groups.items():
        for name, value in members.items():
            kind = next((key for key, table in _KINDS.items() if isinstance(value, table)),
                        'array')
            prefix = _SEPARATOR.join((group, name, kind))
            if kind == 'array':
                arrays[prefix] = value
                continue
            for part in fields(value):
                arrays[f'{prefix}{_SEPARATOR}{part.name}'] = getattr(value, part.name)
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def load_tables(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file of `save_tables`; raises DataError."""
    parts: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                group, name, kind, *field = key.split(_SEPARATOR)
                parts.setdefault((group, name, kind), {})[''.join(field)] = archive[key]
        groups: dict[str, dict[str, Any]] = {}
        for (group, name, kind), values in parts.items():
            groups.setdefault(group, {})[name] = (
                values[''] if kind == 'array' else _KINDS[kind](**values))
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror or error}') from None
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f'{path}: is no file of tables: {error}') from None
    return groups


#: Smallest IoU of a detection that hits a box: that of PASCAL VOC, and the 50 of AP50.
IOU_THRESHOLD = 0.5


def match(detections: DetectionTable, truth: TruthTable,
          iou_threshold: float | np.ndarray = IOU_THRESHOLD) -> np.ndarray:
    """
    Match greedily, best score first.

    A detection takes the box with the largest IoU among those of its frame that accept its class,
    reach the threshold and are free. Ties are broken by coordinates, so that the order of the rows
    does not matter.

    :param detections, truth: of any frames, in any order
    :param iou_threshold: smallest IoU that counts, in (0, 1]; or ``(M,)``, one for every box in
        `truth`
    :returns: ``(N,)`` int64: for each detection its row in `truth`, or -1
    """
    result = np.full(len(detections), -1, np.int64)
    detection, box = frame_pairs(detections.frames, truth.frames)
    keep = truth.accepted[box, detections.labels[detection]]
    detection, box = detection[keep], box[keep]
    iou = pair_iou(detections.boxes[detection], truth.boxes[box])
    keep = iou >= np.broadcast_to(iou_threshold, len(truth))[box]
    detection, box, iou = detection[keep], box[keep], iou[keep]

    # Only detections that overlap a box enough need a rank; they are a small part.
    near = np.unique(detection)
    rank = np.full(len(detections), len(detections), np.int64)
    rank[near[np.lexsort((detections.labels[near], *detections.boxes[near].T,
                          -detections.scores[near]))]] = np.arange(len(near))
    box_rank = _positions(np.lexsort((*truth.accepted.T, *truth.boxes.T)))
    # Each round matches every detection that is the best remaining one at all its boxes. The
    # result is the same as if the detections were matched one by one.
    while detection.size:
        first = np.full(len(truth), len(detections), np.int64)
        np.minimum.at(first, box, rank[detection])
        ready = np.ones(len(detections), bool)
        ready[detection[first[box] != rank[detection]]] = False
        settled = np.flatnonzero(ready[detection])
        order = settled[np.lexsort((box_rank[box[settled]], -iou[settled], detection[settled]))]
        _, best = np.unique(detection[order], return_index=True)
        best = order[best]
        result[detection[best]] = box[best]
        taken = np.zeros(len(truth), bool)
        taken[box[best]] = True
        keep = ~ready[detection] & ~taken[box]
        detection, box, iou = detection[keep], box[keep], iou[keep]
    return result


def frame_pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Pair every row of one table with every row of the same frame of another.

    :param first, second: ``(N,)`` and ``(M,)`` int64 frame numbers
    :returns: two ``(P,)`` int64 arrays of row numbers
    """
    order = np.argsort(second, kind='stable')
    start = np.searchsorted(second, first, 'left', sorter=order)
    count = np.searchsorted(second, first, 'right', sorter=order) - start
    left = np.repeat(np.arange(len(first)), count)
    within = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
    return left, order[np.repeat(start, count) + within]


def _positions(order: np.ndarray) -> np.ndarray:
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    return positions


def found_boxes(detections: DetectionTable, truth: TruthTable,
                iou_threshold: float = IOU_THRESHOLD) -> np.ndarray:
    """
    Return which boxes are detected, one-to-one and in a class that they accept.

    :param detections: all count: scores are not compared with a threshold
    :param truth: annotated boxes; ignore regions are not used
    :param iou_threshold: smallest IoU that counts, in (0, 1]
    :returns: ``(M,)`` bool
    """
    result = np.zeros(len(truth), bool)
    matched = match(detections, truth, iou_threshold)
    result[matched[matched >= 0]] = True
    return result


def recall(detections: DetectionTable, truth: TruthTable,
           iou_threshold: float = IOU_THRESHOLD) -> float:
    """Return the fraction of boxes that `found_boxes` finds, in [0, 1]; NaN without boxes."""
    found = found_boxes(detections, truth, iou_threshold)
    return float(found.mean()) if found.size else float('nan')
