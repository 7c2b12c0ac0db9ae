# SPDX-License-Identifier: Apache-2.0
"""A run seen along one axis: its frames one after the other, with what pictures of it need."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from .run_record import RunRecord
from ..detector.policy import READ
from ..recording.frame_record import RecordedFrame

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
        return np.array([i for i, frame in enumerate(self.frames) if frame.kind == kind],
                        np.int64)

    def values(self, quantity: str) -> np.ndarray:
        """Return a quantity of every frame, ``(F,)`` float64, NaN where it does not exist."""
        return np.array([np.nan if (value := getattr(frame, quantity)) is None else value
                         for frame in self.frames], np.float64)

    def read_ratio(self) -> tuple[np.ndarray, np.ndarray]:
        """
        Return place and value of the moving read ratio, centred, over `RATIO_FRAMES` frames.

        At the ends there are fewer frames to look at.
        """
        rows = np.array([i for i, frame in enumerate(self.frames) if not frame.dropped], np.int64)
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
    for kind in (*dict.fromkeys(kind for kind, _ in sorted(answered, reverse=True)), 'all'):
        values = np.array([value for other, value in answered if kind in (other, 'all')])
        if len(values):
            rows.append({'decision': kind, 'frames': len(values), 'mean': float(values.mean()),
                         **{f'p{p}': float(np.percentile(values, p)) for p in PERCENTILES},
                         'max': float(values.max())})
    return rows
