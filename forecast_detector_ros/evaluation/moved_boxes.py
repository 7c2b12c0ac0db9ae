# SPDX-License-Identifier: Apache-2.0
"""
Rivals that know nothing but boxes: those of a read frame, left where they are or moved.

All take the detections of frames that were read, and say what they make of the frame that
is `horizon` frames later.
"""

from collections.abc import Sequence

import numpy as np

from .sequences import Footage
from ..annotations.records import UNKNOWN_TRACK
from ..metrics.matching import match
from ..metrics.tables import DetectionTable, one_hot, TruthTable

SAME_OBJECT = 0.3
"""IoU from which on two detections may show one object; the limit of SORT (Bewley 2016)."""


def repeated(reads: DetectionTable, horizon: int, frames: int) -> DetectionTable:
    """
    Leave the boxes where they are.

    Parameters
    ----------
    reads:
        Detections of the frames that were read.
    horizon:
        Frames from a read to the frame that is meant.
    frames:
        Length of the sequence; nothing is said of frames beyond it.

    """
    later = reads.shift(horizon)
    return later.select(later.frames < frames)


def constant_velocity(reads: DetectionTable, before: Sequence[int], horizon: int,
                      footage: Footage) -> DetectionTable:
    """
    Move boxes as they moved between the last two reads.

    Detections of both reads are matched class by class; centre and sides go on linearly.  What
    finds no partner stays where it is.

    Parameters
    ----------
    reads, horizon:
        As for `repeated`.
    before:
        For each frame, the frame that was read before it; -1 for none.
    footage:
        The sequence.

    """
    if not len(reads):
        return reads
    previous = np.asarray(before, np.int64)
    frames = len(footage.frames)
    # Every detection of an earlier read becomes what the later ones may match with.
    later = np.flatnonzero(previous >= 0)
    rows = [np.flatnonzero(reads.frames == previous[frame]) for frame in later]
    numbers = np.repeat(later, [len(found) for found in rows])
    earlier = np.concatenate([np.zeros(0, np.int64), *rows])
    classes = int(reads.labels.max()) + 1
    partner = match(reads, TruthTable(numbers, reads.boxes[earlier],
                                      one_hot(reads.labels[earlier], classes),
                                      np.zeros(0, np.int64), np.zeros((0, 4), np.float32)),
                    SAME_OBJECT)
    moved = reads.boxes.astype(np.float64)
    found = np.flatnonzero(partner >= 0)
    here, there = moved[found], moved[earlier[partner[found]]]
    gap = (reads.frames[found] - reads.frames[earlier[partner[found]]])[:, None]
    moved[found] = _box(_form(here) + (_form(here) - _form(there)) * horizon / gap)
    return repeated(_replaced(reads, moved, footage), horizon, frames)


def moved_by_truth(reads: DetectionTable, truth: TruthTable, horizon: int, footage: Footage
                   ) -> DetectionTable:
    """
    Move boxes as their objects really moved: the best that moving boxes could reach.

    A detection that hits an annotated box (IoU 0.5, class accepted) is moved and scaled as that
    object's box is up to the later frame.  Others, and those whose object is not annotated there,
    stay where they are.

    Parameters
    ----------
    reads, horizon, footage:
        As for `constant_velocity`.
    truth:
        Annotated boxes with their tracks.

    """
    known = truth.select(truth.tracks != UNKNOWN_TRACK)
    place = {key: row for row, key in enumerate(zip(known.tracks.tolist(),
                                                    known.frames.tolist()))}
    partner = match(reads, known)
    moved = reads.boxes.astype(np.float64)
    for row in np.flatnonzero(partner >= 0):
        now = partner[row]
        then = place.get((int(known.tracks[now]), int(known.frames[now]) + horizon))
        if then is None:
            continue
        box, start, end = _form(moved[row]), _form(known.boxes[now]), _form(known.boxes[then])
        moved[row] = _box(np.concatenate((box[:2] + end[:2] - start[:2],
                                          box[2:] * end[2:] / start[2:])))
    return repeated(_replaced(reads, moved, footage), horizon, len(footage.frames))


def _form(boxes: np.ndarray) -> np.ndarray:
    """Turn corners into centre and sides, ``(..., 4)`` float64."""
    first, last = np.float64(boxes[..., :2]), np.float64(boxes[..., 2:])
    return np.concatenate(((first + last) / 2, last - first), -1)


def _box(form: np.ndarray) -> np.ndarray:
    """Turn centre and sides into corners; sides that would be negative are 0."""
    half = form[..., 2:].clip(0) / 2
    return np.concatenate((form[..., :2] - half, form[..., :2] + half), -1)


def _replaced(reads: DetectionTable, boxes: np.ndarray, footage: Footage) -> DetectionTable:
    """Put other boxes in, cut to the picture as a detector's are."""
    first = footage.frames[0]
    limit = np.array((first.width, first.height) * 2, np.float64)
    return DetectionTable(reads.frames, np.clip(boxes, 0, limit).astype(np.float32),
                          reads.labels, reads.scores)
