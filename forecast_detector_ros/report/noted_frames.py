# SPDX-License-Identifier: Apache-2.0
"""Choose the frames of a run that are worth looking at."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .run_record import MarkedBox, NotedFrame
from ..metrics.average_precision import judge, PLAIN
from ..metrics.tables import DetectionTable, TruthTable
from ..recording.frame_record import RecordedFrame

MOST_FRAMES = 8  #: Frames that are noted
#: Two noted frames of one sequence are at least so many frames apart: neighbours look alike.
APART = 10
WORST_RULE = (f'The {MOST_FRAMES} frames with most mistakes (annotated boxes missed, and '
              'detections that hit nothing), at IoU 0.5 and the score threshold of the settings; '
              f'frames of one sequence at least {APART} frames apart.')
MISSED_RULE = (f'The {MOST_FRAMES} frames with most annotated boxes missed, at IoU 0.5 and the '
               'score threshold of the settings; not every object is annotated, so detections '
               f'that hit nothing do not count. Frames of one sequence at least {APART} frames '
               'apart.')
CHANGE_RULE = (f'The {MOST_FRAMES} frames at which the number of boxes of the classes changes '
               f'most from one answered frame to the next; at least {APART} frames apart.')


def choose(weights: Sequence[np.ndarray], most: int = MOST_FRAMES, apart: int = APART
           ) -> list[tuple[int, int]]:
    """
    Choose the frames with the largest weights, none with weight 0.

    :param weights: one ``(T,)`` array a sequence, not negative
    :param most, apart: how many, and how many frames those of one sequence must lie apart, at
        least 1
    :returns: (sequence, frame) from the largest weight on; of equal ones the first
    """
    places = [(sequence, frame) for sequence, values in enumerate(weights)
              for frame in range(len(values)) if values[frame] > 0]
    places.sort(key=lambda place: -weights[place[0]][place[1]])
    chosen: list[tuple[int, int]] = []
    for sequence, frame in places:
        if len(chosen) == most:
            break
        if all(sequence != other or abs(frame - number) >= apart for other, number in chosen):
            chosen.append((sequence, frame))
    return chosen


@dataclass(frozen=True)
class Watched:
    """A sequence, what is in it, and what was found in it."""

    name: str
    frames: int  #: How many
    truth: TruthTable
    shown: DetectionTable  #: Detections at the score threshold
    #: Gives `file`, `position`, `topic` and `kind` of a `NotedFrame` by a frame's number.
    locate: Callable[[int], dict[str, Any]]


def worst_frames(items: Sequence[Watched], labels: Sequence[str], complete: bool
                 ) -> tuple[tuple[NotedFrame, ...], str]:
    """
    Choose the frames with most mistakes, and say by which rule.

    :param labels: the detector's classes
    :param complete: whether every object is annotated, so that a detection that hits nothing is a
        mistake
    """
    judged = [_judge(item.truth, item.shown) for item in items]
    weights = []
    for item, (missed, _, wrong) in zip(items, judged):
        count = np.bincount(item.truth.frames[missed], minlength=item.frames)
        if complete:
            count = count + np.bincount(item.shown.frames[wrong], minlength=item.frames)
        weights.append(count)
    noted = []
    for place, number in choose(weights):
        item, (missed, right, wrong) = items[place], judged[place]
        lost = tuple(marked_box(_names(item.truth.accepted[row], labels), item.truth.boxes[row])
                     for row in np.flatnonzero((item.truth.frames == number) & missed))
        hits, misses = (
            tuple(marked_box(labels[item.shown.labels[row]], item.shown.boxes[row],
                             item.shown.scores[row])
                  for row in np.flatnonzero((item.shown.frames == number) & which))
            for which in (right, wrong))
        note = f'{len(lost)} missed, {len(hits)} right, {len(misses)} ' + (
            'wrong' if complete else 'that hit nothing annotated')
        noted.append(NotedFrame(sequence=item.name, number=number, note=note, right=hits,
                                missed=lost, wrong=misses, **item.locate(number)))
    return tuple(noted), WORST_RULE if complete else MISSED_RULE


def changed_frames(sequence: str, frames: Sequence[RecordedFrame], file: str
                   ) -> tuple[tuple[NotedFrame, ...], str]:
    """
    Choose frames of a recording by how the number of boxes changes, and say by which rule.

    :param frames: all of them, in their order
    :param file: its video, one picture for each of the frames
    """
    weights, notes = np.zeros(len(frames), np.int64), {}
    before: Counter[str] | None = None
    for number, frame in enumerate(frames):
        if frame.dropped:
            continue
        now = Counter(frame.labels)
        if before is not None:
            changes = [f'{now[label] - before[label]:+d} {label}'
                       for label in sorted({*now, *before}) if now[label] != before[label]]
            weights[number] = sum(abs(now[label] - before[label]) for label in {*now, *before})
            notes[number] = ', '.join(changes)
        before = now
    return tuple(NotedFrame(sequence, number, notes[number], file, number,
                            kind=frames[number].kind)
                 for _, number in choose([weights])), CHANGE_RULE


def _judge(truth: TruthTable, shown: DetectionTable
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tell which boxes are missed (M,), and which detections are right and wrong (N,)."""
    matched, excused = judge(shown, truth, PLAIN)
    missed = np.ones(len(truth), bool)
    missed[matched[matched >= 0]] = False
    return missed, matched >= 0, (matched < 0) & ~excused


def _names(accepted: np.ndarray, labels: Sequence[str]) -> str:
    found = ' or '.join(name for name, fits in zip(labels, accepted) if fits)
    return found or 'no class of the detector'


def marked_box(label: str, box: np.ndarray, score: float | None = None) -> MarkedBox:
    """Round a box, ``(4,)`` xyxy in pixels, and its score as the record of a run has them."""
    x0, y0, x1, y1 = (round(float(edge), 2) for edge in box)
    return MarkedBox(label, (x0, y0, x1, y1), None if score is None else round(float(score), 3))
