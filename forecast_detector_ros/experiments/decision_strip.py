# SPDX-License-Identifier: Apache-2.0
"""The paper's Fig. 4: frames with their detections, red around those that were not read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

import numpy as np

from .figure_files import INK, new_figure, RED
from ..detector.detections import Detections
from ..detector.detector import Detector
from ..detector.policy import Decision, FORECAST
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..evaluation.sequences import as_frame, EvaluationError, Footage, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Of classes, in turn; no red, which marks forecasts.
COLOURS = ('#2563eb', '#16a34a', '#d97706', '#7c3aed', '#0891b2', '#db2777', '#65a30d', '#475569')
WIDTH = 360  #: Of a drawn frame, pixels


@dataclass(frozen=True)
class ShownFrame:
    """One frame of a strip."""

    number: int
    picture: np.ndarray  #: ``(H, W, 3)`` uint8, RGB
    decision: Decision
    detections: Detections


def chosen_frames(item: Footage, start: int, every: int, count: int) -> list[int]:
    """
    List the frames of a sequence that are shown: `count` from `start` on, each `every`-th.

    :raises EvaluationError: if the sequence has none of them
    """
    frames = list(range(start, len(item.frames), every))[:count]
    if not frames:
        raise EvaluationError(f'{item.name}: has {len(item.frames)} frames, so none from {start} '
                              'on')
    return frames


def shown_frames(detector: Detector, item: Footage, settings: DetectorSettings,
                 frames: Sequence[int]) -> list[ShownFrame]:
    """
    Run a detector over a sequence from its first frame on, and keep some frames.

    :param frames: numbers of frames, ascending
    :raises DataError: if a picture cannot be decoded
    """
    state, result = StreamState.initial(), []
    for number in range(frames[-1] + 1):
        pixels = picture(item.frames[number])
        step, state = detector.step(as_frame(pixels), state, settings)
        if number in frames:
            result.append(ShownFrame(number, pixels.array, step.decision, step.detections))
    return result


def strip_rows(name: str, frames: Sequence[ShownFrame], labels: Sequence[str]
               ) -> list[dict[str, Any]]:
    """Give the detections of a strip as plain values, one row a box; no box, no row."""
    return [{'sequence': name, 'frame': frame.number, 'decision': frame.decision.kind,
             'label': labels[label], 'score': round(float(score), 4),
             **dict(zip(('x0', 'y0', 'x1', 'y1'), (round(float(edge), 1) for edge in box)))}
            for frame in frames
            for box, label, score in zip(frame.detections.boxes, frame.detections.labels,
                                         frame.detections.scores)]


def strip_values(name: str, frames: Sequence[ShownFrame]) -> list[dict[str, Any]]:
    """Give the decisions of a strip as plain values, one a frame."""
    return [{'sequence': name, 'frame': frame.number, 'decision': frame.decision.kind,
             'reason': frame.decision.reason, 'boxes': len(frame.detections),
             'confidence': None if np.isnan(frame.decision.confidence)
             else round(frame.decision.confidence, 4)} for frame in frames]


def draw_strips(strips: Sequence[tuple[str, Sequence[ShownFrame]]], labels: Sequence[str],
                title: str) -> 'Figure':
    """
    Draw sequences below each other, their frames side by side.

    :param strips: name and frames of each sequence
    :param labels: the detector's classes
    """
    columns = max(len(frames) for _, frames in strips)
    ratio = max(frames[0].picture.shape[0] / frames[0].picture.shape[1] for _, frames in strips)
    cell = 2.5
    figure = new_figure(columns * cell + 0.3, len(strips) * (cell * ratio + 0.3) + 0.6)
    panels = figure.subplots(len(strips), columns, squeeze=False)
    for row, (name, frames) in zip(panels, strips):
        for axes in row:
            axes.set_axis_off()
        for axes, frame in zip(row, frames):
            _draw(axes, frame, labels, f'{name}   ' if axes is row[0] else '')
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def _draw(axes: 'Axes', frame: ShownFrame, labels: Sequence[str], prefix: str) -> None:
    from ..recording.drawn_boxes import draw, DrawnBox, FORECAST_BORDER
    found = frame.detections
    boxes = [DrawnBox((float(x0), float(y0), float(x1), float(y1)),
                      f'{labels[label]} {score:.2f}', COLOURS[label % len(COLOURS)])
             for (x0, y0, x1, y1), label, score in sorted(
                 zip(found.boxes, found.labels, found.scores), key=lambda entry: entry[2])]
    forecast = frame.decision.kind == FORECAST
    axes.imshow(draw(frame.picture[:, :, ::-1], boxes, WIDTH,
                     FORECAST_BORDER if forecast else None))
    confidence = frame.decision.confidence
    text = f'{prefix}{frame.number} {frame.decision.kind}'
    if not np.isnan(confidence):
        text += f' ({confidence:.2f})'
    axes.set_title(text, loc='left', fontsize=8, color=RED if forecast else INK)
