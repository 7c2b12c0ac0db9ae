# SPDX-License-Identifier: Apache-2.0
"""
The record of one run of the detector: of an evaluation, a bag or the demo.

It is what the HTML report shows. As JSON it is the dataclasses below with their names as keys,
null for what is not known, and `format` beside them; docs/reference/outputs.md lists them.
`RunView` sees a run along one axis, its frames one after the other.
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
RUN_NAME = 'run.json'  #: The record of a run in a folder of results


class RunRecordError(InputError):
    """A run that cannot be read or shown; one line."""


@dataclass(frozen=True)
class MarkedBox:
    """A box in a picture."""

    label: str
    corners: tuple[float, float, float, float]  #: x0, y0, x1, y1 in pixels
    score: float | None = None  #: 0 to 1; None for an annotated box


@dataclass(frozen=True)
class NotedFrame:
    """A frame worth looking at, and where its picture is."""

    sequence: str
    number: int  #: In its sequence, from 0 on
    note: str  #: Why it was chosen; one line
    file: str  #: A picture, a video or a bag; relative to the folder of the record, or absolute
    #: Of the frame in a video, or in a topic of a bag, from 0 on; None for a picture.
    position: int | None = None
    topic: str | None = None  #: Of a bag; None for a picture or video
    right: tuple[MarkedBox, ...] = ()  #: Detections that hit an annotated box
    missed: tuple[MarkedBox, ...] = ()  #: Annotated boxes that no detection hit
    wrong: tuple[MarkedBox, ...] = ()  #: Detections that hit nothing
    found: tuple[MarkedBox, ...] = ()  #: Detections, where nothing is annotated
    #: What was decided on the frame, one of KINDS; None where it is not known.
    kind: str | None = None


@dataclass(frozen=True)
class ClassAccuracy:
    """
    How well one class is detected.

    :raises RunRecordError: if there are annotated boxes, but not a precision at each recall
    """

    label: str
    boxes: int  #: Annotated boxes
    detections: int  #: Detections that counted, from a low score on
    ap50: float | None
    #: Interpolated, in [0, 1], at the recalls 0, 0.01, ..., 1; empty without annotated boxes.
    precision: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the number of precisions, which the report draws over the recalls."""
        if self.boxes and len(self.precision) != 101:
            raise RunRecordError(f'precision of {self.label} has {len(self.precision)} values, '
                                 'must have 101')


@dataclass(frozen=True)
class Accuracy:
    """How well the boxes were detected; None for what was not measured."""

    mean_recall: float | None  #: Mean over sequences, at the score threshold of the settings
    #: Mean over the classes that have boxes, detections collected from a low score on.
    ap50: float | None
    classes: tuple[ClassAccuracy, ...] = ()


@dataclass(frozen=True)
class Identities:
    """How well the numbers of detections stay with objects (docs/reference/evaluation.md)."""

    boxes: int  #: Annotated boxes whose object is known
    objects: int
    switches: int  #: How often an object's number changed
    mota: float | None  #: At most 1; likewise the others, which are at least 0
    idf1: float | None
    hota: float | None
    det_a: float | None  #: Part of HOTA for detection
    ass_a: float | None  #: Part of HOTA for association


@dataclass(frozen=True)
class SequenceRecord:
    """The frames of one camera, video or sequence, in their order."""

    name: str
    frames: tuple[RecordedFrame, ...]
    timed: bool  #: Whether `stamp_ns` is a time; else it is the number of the frame
    boxes: int | None = None  #: Annotated boxes
    recall: float | None = None
    identities: Identities | None = None

    @property
    def numbered(self) -> int | None:
        """Count the objects that detections were numbered as; None where none is."""
        numbers = {(frame.camera, number) for frame in self.frames for number in frame.ids
                   if number}
        return len(numbers) or None


@dataclass(frozen=True)
class RunRecord:
    """One run: what ran on what, and what came out."""

    title: str
    source: dict[str, Any]  #: The video: plain values, shown as they are
    model: dict[str, Any]  #: Checkpoint and what its card says
    settings: dict[str, Any]
    machine: dict[str, Any]  #: Processor, device, versions
    sequences: tuple[SequenceRecord, ...]
    accuracy: Accuracy | None = None  #: None where nothing is annotated
    noted: tuple[NotedFrame, ...] = field(default=())
    noted_rule: str = ''  #: How the noted frames were chosen; one sentence
    identities: Identities | None = None  #: Of all sequences together

    def __post_init__(self) -> None:
        """Check the kinds of the frames."""
        for sequence in self.sequences:
            for number, frame in enumerate(sequence.frames):
                if frame.kind not in KINDS:
                    raise RunRecordError(f'{sequence.name}: frame {number}: kind is '
                                         f'{frame.kind!r}, must be one of {KINDS}')

    @property
    def frames(self) -> tuple[RecordedFrame, ...]:
        """Give the frames of all sequences, one after the other."""
        return tuple(frame for sequence in self.sequences for frame in sequence.frames)

    def to_json(self) -> str:
        """Return the record as JSON."""
        return json.dumps({'format': FORMAT, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """
        Read what to_json() wrote; raises RunRecordError for anything else.

        Characters that neither a page nor a picture can hold become U+FFFD.
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


#: What XML 1.0 cannot hold: control characters and halves of surrogate pairs.
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
    """Write a record, whole or not at all; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (run.to_json() + '\n').encode())


def load_run(path: Path) -> RunRecord:
    """
    Read a record.

    :raises RunRecordError: if the file is missing or not the record of a run
    """
    try:
        return RunRecord.from_json(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise RunRecordError(f'{path}: cannot be read: {error.strerror or error}') from None
    except (RunRecordError, UnicodeDecodeError) as error:
        raise RunRecordError(f'{path}: {error}') from None


RATIO_FRAMES = 25  #: Answered frames over which the moving read ratio is taken
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class RunView:
    """The frames of a run on one axis: seconds where it is one timed sequence, else numbers."""

    frames: tuple[RecordedFrame, ...]
    x: np.ndarray  #: ``(F,)`` float64, where each frame lies on the axis; increasing
    unit: str  #: What the axis shows
    starts: tuple[tuple[str, float], ...]  #: Name and first place of each sequence

    @staticmethod
    def of(run: RunRecord) -> RunView:
        """Lay out a run."""
        frames = run.frames
        if len(run.sequences) == 1 and run.sequences[0].timed:
            stamps = np.array([frame.stamp_ns for frame in frames], np.int64)
            x = (stamps - stamps.min(initial=stamps[0] if len(stamps) else 0)) * 1e-9
            # A clock that was set back must not fold the axis.
            return RunView(frames, np.maximum.accumulate(x), 'time, s',
                           ((run.sequences[0].name, 0.0),))
        places, start = [], 0
        for sequence in run.sequences:
            places.append((sequence.name, float(start)))
            start += len(sequence.frames)
        return RunView(frames, np.arange(len(frames), dtype=np.float64), 'frame', tuple(places))

    def rows(self, kind: str) -> np.ndarray:
        """Return the places of the frames of a kind, int64."""
        return np.flatnonzero([frame.kind == kind for frame in self.frames])

    def values(self, quantity: str) -> np.ndarray:
        """Return a quantity of every frame, ``(F,)`` float64, NaN where it does not exist."""
        # NumPy makes NaN of None.
        return np.array([getattr(frame, quantity) for frame in self.frames], np.float64)

    def read_ratio(self) -> tuple[np.ndarray, np.ndarray]:
        """
        Return place and value of the moving read ratio, centred, over `RATIO_FRAMES` frames.

        At the ends there are fewer frames to look at.
        """
        rows = np.flatnonzero([not frame.dropped for frame in self.frames])
        read = np.array([self.frames[i].kind == READ for i in rows], np.float64)
        total = np.concatenate([[0.0], np.cumsum(read)])
        half = RATIO_FRAMES // 2
        low = np.maximum(np.arange(len(rows)) - half, 0)
        high = np.minimum(np.arange(len(rows)) + half + 1, len(rows))
        return self.x[rows], (total[high] - total[low]) / np.maximum(high - low, 1)

    def classes(self) -> list[tuple[str, int]]:
        """Return the classes that were found, with their boxes, the most frequent first."""
        return Counter(label for frame in self.frames for label in frame.labels).most_common()

    def density(self, labels: list[str], bins: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the mean number of boxes per answered frame of some classes, over time.

        :returns: ``(B + 1,)`` edges on the axis, B at most `bins`, and ``(classes, B)`` float64,
            NaN where no frame was answered
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
    """Return frames, mean, the `PERCENTILES` and the largest latency in ms, by decision."""
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
