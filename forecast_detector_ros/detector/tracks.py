# SPDX-License-Identifier: Apache-2.0
"""
Which detections of successive frames show the same object: numbers that stay with it.

Association by overlap, class by class, with boxes that move on uniformly, after SORT (Bewley et
al. 2016, arXiv:1602.00763). A frame that is forecast tells nothing of who came or left: its boxes
carry the numbers on, and whom it lacks is not given up.
"""

from dataclasses import dataclass, field

import numpy as np

from .detections import Detections
from ..boxes import box_iou

MIN_IOU = 0.3
"""Overlap from which on two boxes may show one object; SORT's `iou_threshold`."""

PATIENCE = 30
"""Reads that an object may be missing; ByteTrack's buffer (Zhang et al. 2022, section 4.1)."""

STEADINESS = 0.5
"""Part of the old velocity in the new one: the mean age of what is known is then two reads."""


UNKNOWN = -1
"""In place of a number, of a detection that shows no object known so far."""


def _empty(*shape: int) -> np.ndarray:
    return np.zeros((0, *shape))


@dataclass(frozen=True)
class Tracks:
    """The objects of one camera; a value that is never changed."""

    next_id: int = 1
    """Number of the next new object; numbers are never used again."""

    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """``(T,)`` int64."""

    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """``(T,)`` int64: index of the class; it never changes."""

    boxes: np.ndarray = field(default_factory=lambda: _empty(4))
    """``(T, 4)`` float64: where the object was shown last, or has come to since; xyxy, pixels."""

    read_boxes: np.ndarray = field(default_factory=lambda: _empty(4))
    """``(T, 4)`` float64: where it was when it was last found on a frame that was read."""

    since: np.ndarray = field(default_factory=lambda: _empty())
    """``(T,)`` float64: time since then, in the unit of `elapsed`."""

    velocities: np.ndarray = field(default_factory=lambda: _empty(2))
    """``(T, 2)`` float64: of the centre, pixels in that time."""

    missed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """``(T,)`` int64: reads in a row that did not find it."""

    def anew(self) -> 'Tracks':
        """Forget all objects; numbers go on."""
        return Tracks(self.next_id)

    def follow(self, found: Detections, read: bool, elapsed: float = 1.0
               ) -> tuple[np.ndarray, 'Tracks']:
        """
        Give each detection of the next frame a number.

        Parameters
        ----------
        found:
            Of the frame.
        read:
            Whether the frame was read.
        elapsed:
            Time since the frame before, above 0, in any unit.

        Returns
        -------
        tuple
            ``(N,)`` int64, a number for each detection, all different; and the next value.

        """
        if not len(found) and not len(self.ids):
            return np.zeros(0, np.int64), self
        boxes = found.boxes.astype(np.float64)
        since = self.since + elapsed
        # Where boxes are carried forward they are there already; where they stayed, or the object
        # was not found, they have to come from the last read.
        ahead = _moved(self.boxes, self.velocities * elapsed)
        far = _moved(self.read_boxes, self.velocities * since[:, None])
        overlap = np.maximum(box_iou(boxes, ahead), box_iou(boxes, far))
        overlap[found.labels[:, None] != self.labels] = 0.0
        rows, tracks = _pairs(overlap)

        new = np.setdiff1d(np.arange(len(found)), rows)
        ids = np.zeros(len(found), np.int64)
        ids[rows] = self.ids[tracks]
        ids[new] = self.next_id + np.arange(len(new))

        shown, velocities, read_boxes = ahead, self.velocities.copy(), self.read_boxes.copy()
        missed = self.missed + int(read)
        shown[tracks] = boxes[rows]
        if read:
            speed = (_centres(boxes[rows]) - _centres(read_boxes[tracks])) / since[tracks][:, None]
            known = self._known()[tracks][:, None]
            velocities[tracks] = np.where(
                known, STEADINESS * velocities[tracks] + (1 - STEADINESS) * speed, speed)
            read_boxes[tracks], since[tracks] = boxes[rows], 0.0
            missed[tracks] = 0
        keep = missed <= PATIENCE
        count = len(new)
        return ids, Tracks(
            self.next_id + count, np.append(self.ids[keep], ids[new]),
            np.append(self.labels[keep], found.labels[new]),
            np.concatenate((shown[keep], boxes[new])),
            np.concatenate((read_boxes[keep], boxes[new])),
            np.append(since[keep], np.zeros(count)),
            np.concatenate((velocities[keep], np.zeros((count, 2)))),
            np.append(missed[keep], np.zeros(count, np.int64)))

    def recognise(self, found: Detections, elapsed: float = 1.0) -> np.ndarray:
        """
        Give the numbers of a frame that does not exist yet, ``(N,)`` int64; -1 for what is new.

        The parameters are those of `follow`.
        """
        ids, _ = self.follow(found, False, elapsed)
        return np.where(ids < self.next_id, ids, UNKNOWN)

    def _known(self) -> np.ndarray:
        """Tell which velocities were ever measured."""
        return np.any(self.velocities != 0.0, axis=1)


def _pairs(overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join rows and columns, the best overlap first, each at most once."""
    rows, columns = np.nonzero(overlap >= MIN_IOU)
    order = np.argsort(-overlap[rows, columns], kind='stable')
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist()):
        if row not in chosen and column not in taken:
            chosen[row] = column
            taken.add(column)
    return np.array(list(chosen), np.int64), np.array(list(chosen.values()), np.int64)


def _moved(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return boxes + np.concatenate((shift, shift), 1)


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2
