# SPDX-License-Identifier: Apache-2.0
"""Choose the noted frames of a run, load their pictures, and draw boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TYPE_CHECKING

import numpy as np

from .drawn_boxes import draw, DrawnBox, FORECAST_BORDER, FOUND, jpeg, MISSED, RIGHT, WRONG
from .run_record import MarkedBox, NotedFrame, RunRecord, SequenceRecord
from ..detector.policy import FORECAST
from ..errors import InputError, one_line
from ..images.frame import as_bgr, decode_file, FrameError, SourceError
from ..images.video_images import open_images
from ..images.video_source import VideoFile
from ..metrics.average_precision import judge, PLAIN
from ..metrics.tables import DetectionTable, TruthTable
from ..recording.recorded_frame import RecordedFrame

if TYPE_CHECKING:
    from PIL import Image

MOST_FRAMES = 8  #: Most noted frames
#: Least distance of noted frames of one sequence, in frames: neighbours are similar.
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

    :param weights: a ``(T,)`` array for each sequence, not negative
    :param most: largest number of frames
    :param apart: least distance of frames of one sequence, in frames, at least 1
    :returns: (sequence, frame), largest weight first; of equal weights the first
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
    """A sequence with its annotated boxes and detections."""

    name: str
    frames: int  #: Number of frames
    truth: TruthTable
    shown: DetectionTable  #: Detections at the score threshold
    #: Returns `file`, `position`, `topic` and `kind` of a `NotedFrame` for a frame's number.
    locate: Callable[[int], dict[str, Any]]


def worst_frames(items: Sequence[Watched], labels: Sequence[str], complete: bool
                 ) -> tuple[tuple[NotedFrame, ...], str]:
    """
    Choose the frames with most mistakes, and return them with the rule of the choice.

    :param labels: the detector's classes
    :param complete: whether every object is annotated, so that an unmatched detection is a mistake
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
    Choose the frames of a recording with the largest changes of the number of boxes.

    :param frames: all frames in order
    :param file: video of the recording, with a picture for each frame
    :returns: the frames, and the rule of the choice
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
    """Return bool arrays: missed boxes (M,), right and wrong detections (N,)."""
    matched, excused = judge(shown, truth, PLAIN)
    missed = np.ones(len(truth), bool)
    missed[matched[matched >= 0]] = False
    return missed, matched >= 0, (matched < 0) & ~excused


def _names(accepted: np.ndarray, labels: Sequence[str]) -> str:
    found = ' or '.join(name for name, fits in zip(labels, accepted) if fits)
    return found or 'no class of the detector'


def marked_box(label: str, box: np.ndarray, score: float | None = None) -> MarkedBox:
    """Return a box, ``(4,)`` xyxy in pixels, and its score, rounded for the record of a run."""
    x0, y0, x1, y1 = (round(float(edge), 2) for edge in box)
    return MarkedBox(label, (x0, y0, x1, y1), None if score is None else round(float(score), 3))


WIDTH = 640  #: Width of a picture, pixels


@dataclass(frozen=True)
class NotedPicture:
    """The picture of a noted frame, or the reason for its absence."""

    frame: NotedFrame
    jpeg: bytes | None = None
    missing: str | None = None  #: Reason in one line; None if there is a picture


def noted_pictures(noted: Sequence[NotedFrame], folder: Path) -> list[NotedPicture]:
    """
    Load and draw the picture of each noted frame, in order.

    A missing or damaged file affects only its own pictures.

    :param folder: folder of the record and of its relative file names
    """
    pictures: dict[int, NotedPicture] = {}
    sources: dict[tuple[str, str | None, bool], list[int]] = {}
    for place, frame in enumerate(noted):
        key = (frame.file, frame.topic, frame.position is None)
        sources.setdefault(key, []).append(place)
    for (file, topic, still), places in sources.items():
        path = folder / file
        wanted = {noted[place].position or 0 for place in places}
        problem = 'the video ends before it'
        found: dict[int, np.ndarray | FrameError] = {}
        try:
            found.update(_still(path) if still else _of_bag(path, topic, wanted)
                         if topic is not None else _of_video(path, wanted))
        except (InputError, OSError) as error:
            problem = one_line(error)
        for place in places:
            picture = found.get(noted[place].position or 0)
            pictures[place] = (
                NotedPicture(noted[place], missing=problem) if picture is None
                else NotedPicture(noted[place], missing=one_line(picture))
                if isinstance(picture, FrameError)
                else NotedPicture(noted[place], jpeg(_drawn(picture, noted[place]))))
    return [pictures[place] for place in range(len(noted))]


def _drawn(picture: np.ndarray, frame: NotedFrame) -> Image.Image:
    boxes = [
        *(_box(box, FOUND) for box in frame.found), *(_box(box, RIGHT) for box in frame.right),
        *(_box(box, WRONG) for box in frame.wrong),
        *(_box(box, MISSED, dashed=True) for box in frame.missed)]
    # A small picture is enlarged at most twice.
    return draw(picture, boxes, min(WIDTH, 2 * picture.shape[1]),
                FORECAST_BORDER if frame.kind == FORECAST else None)


def _box(box: MarkedBox, colour: str, dashed: bool = False) -> DrawnBox:
    score = '' if box.score is None else f' {box.score:.2f}'
    return DrawnBox(box.corners, f'{box.label}{score}', colour, dashed)


def _still(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    try:
        picture = decode_file(path)
    except OSError:
        picture = None
    if picture is None:
        raise SourceError(f'{path}: is missing, or no picture')
    yield 0, picture


def _of_video(path: Path, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    if not path.is_file():
        raise SourceError(f'{path}: is missing')
    source = VideoFile(path)
    try:
        for number in range(max(wanted) + 1):
            picture = source.read()
            if picture is None:
                return
            if number in wanted:
                yield number, picture.copy()
    finally:
        source.close()


def _of_bag(path: Path, topic: str, wanted: set[int]
            ) -> Iterator[tuple[int, np.ndarray | FrameError]]:
    with closing(open_images(path)) as bag:
        for number, image in enumerate(bag.images([bag.choose(topic)])):
            if number in wanted:
                try:
                    pixels = image.frame().load()
                except FrameError as error:
                    yield number, error
                else:
                    yield number, np.ascontiguousarray(as_bgr(pixels.array, pixels.order))
            if number >= max(wanted):
                return


def record_recording(title: str, frames: Sequence[RecordedFrame], source: dict[str, Any],
                     settings: dict[str, Any], machine: dict[str, Any], video: str | None,
                     model: dict[str, Any] | None = None) -> RunRecord:
    """
    Make the record of a recording.

    :param title: title of the report, and name of its only sequence
    :param frames: all frames, answered or dropped, in order
    :param video: annotated video with a picture for each frame, relative to the folder of the
        record; None for no video
    """
    noted, rule = changed_frames(title, frames, video) if video else ((), '')
    return RunRecord(title, source, model or {}, settings, machine,
                     (SequenceRecord(title, tuple(frames), True),), None, noted, rule)
