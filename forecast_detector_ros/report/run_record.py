# SPDX-License-Identifier: Apache-2.0
"""
The record of one run of the detector: of an evaluation, a bag or the demo.

The HTML report shows it. As JSON it has the fields of the dataclasses below as keys, null for
unknown values, and the key `format`: docs/reference/outputs.md. `RunView` puts the frames of a run
on one axis.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
import json
from pathlib import Path
import re
from typing import Any

import numpy as np

from ..detector.policy import FORECAST, READ
from ..errors import InputError
from ..files import write_atomically
from ..plain_values import (
    build,
    MOST_LEVELS,
    parse_plain_json,
    PlainJsonError,
    PlainValueError,
)
from ..recording.recorded_frame import KINDS, RecordedFrame

FORMAT = 'forecast_detector_ros/run/1'  #: Value of the key `format`
RUN_NAME = 'run.json'  #: Name of the record in a folder of results


class RunRecordError(InputError):
    """A record of a run cannot be read or shown; the message is one line."""


@dataclass(frozen=True)
class MarkedBox:
    """A box in a picture."""

    label: str
    corners: tuple[float, float, float, float]  #: x0, y0, x1, y1 in pixels
    score: float | None = None  #: 0 to 1; None for an annotated box


@dataclass(frozen=True)
class NotedFrame:
    """A noted frame, and the place of its picture."""

    sequence: str
    number: int  #: Number in its sequence, from 0 on
    note: str  #: Reason of its choice; one line
    file: str  #: Picture, video or bag; absolute, or relative to the folder of the record
    #: Number of the frame in the video or topic, from 0 on; None for a picture.
    position: int | None = None
    topic: str | None = None  #: Topic of the bag; None for a picture or video
    right: tuple[MarkedBox, ...] = ()  #: Detections that match an annotated box
    missed: tuple[MarkedBox, ...] = ()  #: Annotated boxes without a detection
    wrong: tuple[MarkedBox, ...] = ()  #: Detections without an annotated box
    found: tuple[MarkedBox, ...] = ()  #: Detections in a run without annotations
    #: Decision on the frame, one of KINDS; None if unknown.
    kind: str | None = None


@dataclass(frozen=True)
class ClassAccuracy:
    """
    Accuracy of one class.

    :raises RunRecordError: if there are annotated boxes, but not a precision at each recall
    """

    label: str
    boxes: int  #: Annotated boxes
    detections: int  #: Detections with a low score threshold
    ap50: float | None
    #: Interpolated precision, in [0, 1], at the recalls 0, 0.01, ..., 1; () without boxes.
    precision: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the number of precisions, because the report draws them over the recalls."""
        if self.boxes and len(self.precision) != 101:
            raise RunRecordError(f'precision of {self.label} has {len(self.precision)} values, '
                                 'must have 101')


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the boxes; None for figures that were not measured."""

    mean_recall: float | None  #: Mean recall of the sequences at the score threshold
    #: Mean AP50 of the classes with boxes, from detections with a low score threshold.
    ap50: float | None
    classes: tuple[ClassAccuracy, ...] = ()


@dataclass(frozen=True)
class Identities:
    """Accuracy of the numbers of objects (docs/reference/evaluation.md)."""

    boxes: int  #: Annotated boxes with a known object
    objects: int
    switches: int  #: Changes of an object's number
    mota: float | None  #: At most 1; the figures below are in [0, 1]
    idf1: float | None
    hota: float | None
    det_a: float | None  #: Detection part of HOTA
    ass_a: float | None  #: Association part of HOTA


@dataclass(frozen=True)
class SequenceRecord:
    """The frames of one camera, video or sequence, in order."""

    name: str
    frames: tuple[RecordedFrame, ...]
    timed: bool  #: Whether `stamp_ns` is a time and not the number of the frame
    boxes: int | None = None  #: Number of annotated boxes
    recall: float | None = None
    identities: Identities | None = None

    @property
    def numbered(self) -> int | None:
        """Return the number of objects in the detections; None without numbers."""
        numbers = {(frame.camera, number) for frame in self.frames for number in frame.ids
                   if number}
        return len(numbers) or None


@dataclass(frozen=True)
class RunRecord:
    """One run: source, model, machine and results."""

    title: str
    source: dict[str, Any]  #: Plain values about the video, shown unchanged
    model: dict[str, Any]  #: Plain values about the checkpoint and its card
    settings: dict[str, Any]
    machine: dict[str, Any]  #: Plain values about processor, device and versions
    sequences: tuple[SequenceRecord, ...]
    accuracy: Accuracy | None = None  #: None without annotations
    noted: tuple[NotedFrame, ...] = field(default=())
    noted_rule: str = ''  #: Rule by which the noted frames were chosen; one sentence
    identities: Identities | None = None  #: Over all sequences

    def __post_init__(self) -> None:
        for sequence in self.sequences:
            for number, frame in enumerate(sequence.frames):
                if frame.kind not in KINDS:
                    raise RunRecordError(f'{sequence.name}: frame {number}: kind is '
                                         f'{frame.kind!r}, must be one of {KINDS}')

    @property
    def frames(self) -> tuple[RecordedFrame, ...]:
        """Return the frames of all sequences, one after the other."""
        return tuple(frame for sequence in self.sequences for frame in sequence.frames)

    def to_json(self) -> str:
        """Return the record as JSON."""
        return json.dumps({'format': FORMAT, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """
        Read the result of `to_json`; raises RunRecordError for any other text.

        Characters that XML does not allow become U+FFFD.
        """
        try:
            document = parse_plain_json(text)
        except PlainJsonError as error:
            raise RunRecordError(str(error)) from None
        if not isinstance(document, dict) or document.pop('format', None) != FORMAT:
            raise RunRecordError(f'not the record of a run (key format must be {FORMAT!r})')
        try:
            return build(cls, _readable(document))
        except PlainValueError as error:
            raise RunRecordError(str(error)) from None


#: Characters that XML 1.0 does not allow: control characters and lone surrogates.
_UNREADABLE = re.compile('[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')


def _readable(value: Any, level: int = 0) -> Any:
    if level > MOST_LEVELS:
        raise RunRecordError(f'is nested more deeply than {MOST_LEVELS} levels')
    if isinstance(value, str):
        return _UNREADABLE.sub('\ufffd', value)
    if isinstance(value, list):
        return [_readable(item, level + 1) for item in value]
    if isinstance(value, dict):
        return {_readable(key): _readable(item, level + 1) for key, item in value.items()}
    return value


def save_run(path: Path, run: RunRecord) -> None:
    """Write a record atomically; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (run.to_json() + '\n').encode())


def load_run(path: Path) -> RunRecord:
    """
    Read a record.

    :raises RunRecordError: if the file is missing or not a record of a run
    """
    try:
        return RunRecord.from_json(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise RunRecordError(f'{path}: cannot be read: {error.strerror or error}') from None
    except (RunRecordError, UnicodeDecodeError) as error:
        raise RunRecordError(f'{path}: {error}') from None


RATIO_FRAMES = 25  #: Answered frames in the window of the moving read ratio
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class RunView:
    """The F frames of a run on one axis: seconds for one timed sequence, else numbers."""

    frames: tuple[RecordedFrame, ...]
    x: np.ndarray  #: ``(F,)`` float64, place of each frame on the axis; not decreasing
    unit: str  #: Label of the axis
    starts: tuple[tuple[str, float], ...]  #: Name and first place of each sequence

    @staticmethod
    def of(run: RunRecord) -> RunView:
        """Return the view of a run."""
        frames = run.frames
        if len(run.sequences) == 1 and run.sequences[0].timed:
            stamps = np.array([frame.stamp_ns for frame in frames], np.int64)
            x = (stamps - stamps.min(initial=stamps[0] if len(stamps) else 0)) * 1e-9
            # The axis must not go back if a clock was set back.
            return RunView(frames, np.maximum.accumulate(x), 'time, s',
                           ((run.sequences[0].name, 0.0),))
        places, start = [], 0
        for sequence in run.sequences:
            places.append((sequence.name, float(start)))
            start += len(sequence.frames)
        return RunView(frames, np.arange(len(frames), dtype=np.float64), 'frame', tuple(places))

    def rows(self, kind: str) -> np.ndarray:
        """Return the indices of the frames of a kind, int64."""
        return np.flatnonzero([frame.kind == kind for frame in self.frames])

    def values(self, quantity: str) -> np.ndarray:
        """Return a quantity of each frame, ``(F,)`` float64, NaN if it does not exist."""
        # NumPy makes NaN of None.
        return np.array([getattr(frame, quantity) for frame in self.frames], np.float64)

    def read_ratio(self) -> tuple[np.ndarray, np.ndarray]:
        """
        Return places and values of the centred moving read ratio over `RATIO_FRAMES` frames.

        The window has fewer frames at the ends.
        """
        rows = np.flatnonzero([not frame.dropped for frame in self.frames])
        read = np.array([self.frames[i].kind == READ for i in rows], np.float64)
        total = np.concatenate([[0.0], np.cumsum(read)])
        half = RATIO_FRAMES // 2
        low = np.maximum(np.arange(len(rows)) - half, 0)
        high = np.minimum(np.arange(len(rows)) + half + 1, len(rows))
        return self.x[rows], (total[high] - total[low]) / np.maximum(high - low, 1)

    def classes(self) -> list[tuple[str, int]]:
        """Return the detected classes with their numbers of boxes, the most frequent first."""
        return Counter(label for frame in self.frames for label in frame.labels).most_common()

    def density(self, labels: list[str], bins: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the mean number of boxes per answered frame, by class and time.

        :returns: ``(B + 1,)`` edges on the axis, B at most `bins`, and ``(classes, B)`` float64,
            NaN for a bin without an answered frame
        """
        count = max(1, min(bins, len(self.frames)))
        first, last = (float(self.x[0]), float(self.x[-1])) if len(self.x) else (0.0, 1.0)
        step = (last - first) / max(len(self.x) - 1, 1) or 1.0
        edges = np.linspace(first, last + step, count + 1)
        place = np.clip(np.searchsorted(edges, self.x, 'right') - 1, 0, count - 1)
        answered = np.zeros(count)
        boxes = np.zeros((len(labels), count))
        index = {label: number for number, label in enumerate(labels)}
        for i, frame in enumerate(self.frames):
            if frame.dropped:
                continue
            answered[place[i]] += 1
            for label in frame.labels:
                if label in index:
                    boxes[index[label], place[i]] += 1
        return edges, np.where(answered > 0, boxes / np.maximum(answered, 1), np.nan)


def latency_rows(view: RunView) -> list[dict[str, float | int | str]]:
    """Return frames, mean, `PERCENTILES` and maximum of the latency in ms, by decision."""
    rows: list[dict[str, float | int | str]] = []
    answered = [(frame.kind, frame.latency_ms) for frame in view.frames
                if not frame.dropped and frame.latency_ms is not None]
    for kind in (READ, FORECAST, 'all'):
        values = np.array([value for other, value in answered if kind in (other, 'all')])
        if len(values):
            rows.append({'decision': kind, 'frames': len(values), 'mean': float(values.mean()),
                         **{f'p{p}': float(np.percentile(values, p)) for p in PERCENTILES},
                         'max': float(values.max())})
    return rows
