# SPDX-License-Identifier: Apache-2.0
"""
Figures that show frames: the paper's Fig. 4 and Fig. 6.

Fig. 4 has frames with their detections, and a red border around frames that were not read. Fig. 6
shows the error of the forecast of the next frame's feature in each cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TYPE_CHECKING

import numpy as np
import torch

from .figure_files import INK, new_figure, RED, SOFT
from ..detector.checkpoint import Card
from ..detector.detector import Detector
from ..detector.policy import Decision, FORECAST, Policy, READ
from ..detector.processing import Detections, resize
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..errors import cut
from ..evaluation.forecast_backends import FeatureSource, SharedFeatureBackend
from ..evaluation.policy_sweep import check_untimed
from ..evaluation.sequences import as_frame, EvaluationError, picture, Video
from ..model.network import ForecastDetector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours of successive classes, without red, which marks forecasts.
COLOURS = ('#2563eb', '#16a34a', '#d97706', '#7c3aed', '#0891b2', '#db2777', '#65a30d', '#475569')
WIDTH = 360  #: Width of a drawn frame, pixels


@dataclass(frozen=True)
class ShownFrame:
    """One frame of a strip."""

    number: int
    picture: np.ndarray  #: ``(H, W, 3)`` uint8, RGB
    decision: Decision
    detections: Detections


def chosen_frames(item: Video, start: int, every: int, count: int) -> list[int]:
    """
    Return the numbers of the shown frames: `count` from `start` on, each `every`-th.

    :raises EvaluationError: if the sequence has none of these frames
    """
    frames = list(range(start, len(item.frames), every))[:count]
    if not frames:
        raise EvaluationError(f'{item.name}: has {len(item.frames)} frames, so none from {start} '
                              'on')
    return frames


def shown_frames(detector: Detector, item: Video, settings: DetectorSettings,
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
    """Return the detections of a strip as plain values, one row per box."""
    return [{'sequence': name, 'frame': frame.number, 'decision': frame.decision.kind,
             'label': labels[label], 'score': round(float(score), 4),
             **dict(zip(('x0', 'y0', 'x1', 'y1'), (round(float(edge), 1) for edge in box)))}
            for frame in frames
            for box, label, score in zip(frame.detections.boxes, frame.detections.labels,
                                         frame.detections.scores)]


def strip_values(name: str, frames: Sequence[ShownFrame]) -> list[dict[str, Any]]:
    """Return the decisions of a strip as plain values, one row per frame."""
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
            # matplotlib cannot draw a name that is not UTF-8.
            _draw(axes, frame, labels, f'{cut(name)}   ' if axes is row[0] else '')
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def _draw(axes: 'Axes', frame: ShownFrame, labels: Sequence[str], prefix: str) -> None:
    from ..report.drawn_boxes import draw, DrawnBox, FORECAST_BORDER
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


LAST_READ = 'last read feature'  #: Persistence in place of the forecast, under the first policy


@dataclass(frozen=True)
class ErrorMap:
    """The error of a forecast of a frame's feature, made one frame before."""

    rule: str  #: A policy's text, or `LAST_READ`
    frame: int  #: Number of the frame whose feature was forecast
    kind: str  #: The decision on that frame, `READ` or `FORECAST`
    error: np.ndarray  #: ``(h, w)`` float64: mean over channels of the absolute difference


def error_maps(network: ForecastDetector, card: Card, item: Video, settings: DetectorSettings,
               policies: Sequence[Policy], frames: Sequence[int], level: int = 0,
               device: str = 'cpu', precision: str = 'fp32') -> list[ErrorMap]:
    """
    Run policies over a sequence from its first frame on, and compare forecasts with features.

    :param network, card, device, precision: as for `run_policies`
    :param item, settings, policies: sequence, settings and policies of the runs; `LAST_READ` uses
        the first policy
    :param frames: numbers of the frames that are compared, ascending, from 1 on
    :param level: index of the pyramid level
    :raises DataError: if a picture cannot be decoded
    :raises EvaluationError: if the network forecasts no features, there is no such level, or a
        frame is the first one
    """
    if network.config.forecasts_motion:
        raise EvaluationError(f'checkpoint {card.name} forecasts the motion of boxes; errors of '
                              'features need a network that forecasts features, such as one of '
                              'the preset features')
    if not 0 <= level < len(network.config.levels):
        raise EvaluationError(f'level is {level}; the network has {len(network.config.levels)}, '
                              'numbered from 0')
    if frames[0] < 1:
        raise EvaluationError('frame 0 has no frame before it from which to forecast it')
    check_untimed(policies)
    policies = list({str(policy): policy for policy in policies}.values())
    source = FeatureSource(network)
    detector = Detector(SharedFeatureBackend(network, device, precision, source), card)
    states = {str(policy): StreamState.initial() for policy in policies}
    first, last_read = str(policies[0]), torch.empty(0)
    result = []
    for number in range(frames[-1] + 1):
        pixels = picture(item.frames[number])
        feature = source(resize(pixels, network.config.input_size)[None])[level]
        guesses = {} if number not in frames else {
            name: state.network.forecast[level] for name, state in states.items()}
        if guesses:
            guesses[LAST_READ] = last_read
        kinds = {}
        for policy in policies:
            name = str(policy)
            step, states[name] = detector.step(as_frame(pixels), states[name],
                                               replace(settings, policy=policy))
            kinds[name] = step.decision.kind
        kinds[LAST_READ] = kinds[first]
        if kinds[first] == READ:
            last_read = feature
        result += [ErrorMap(name, number, kinds[name], _difference(guess, feature))
                   for name, guess in guesses.items()]
    return result


def _difference(guess: torch.Tensor, feature: torch.Tensor) -> np.ndarray:
    return (guess.float() - feature.float()).abs().mean(1)[0].double().cpu().numpy()


def error_rows(name: str, maps: Sequence[ErrorMap]) -> list[dict[str, Any]]:
    """Return the mean and largest error of every map as plain values."""
    return [{'sequence': name, 'rule': item.rule, 'frame': item.frame, 'decision': item.kind,
             'mean_error': float(item.error.mean()), 'max_error': float(item.error.max())}
            for item in maps]


def draw_error_maps(item: Video, maps: Sequence[ErrorMap], title: str) -> 'Figure':
    """
    Draw the frames, and below them the errors by rule, on one scale; yellow is large.

    :raises DataError: if a picture cannot be decoded
    """
    numbers = sorted({entry.frame for entry in maps})
    rules = list(dict.fromkeys(entry.rule for entry in maps))
    first = item.frames[numbers[0]]
    ratio, cell = first.height / first.width, 2.2
    figure = new_figure(len(numbers) * cell + 1.2, (len(rules) + 1) * (cell * ratio + 0.22) + 0.7)
    panels = figure.subplots(len(rules) + 1, len(numbers), squeeze=False)
    most = float(np.percentile(np.concatenate([entry.error.ravel() for entry in maps]), 99.5))
    for row in panels:
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            for spine in axes.spines.values():
                spine.set_visible(False)
    for axes, number in zip(panels[0], numbers):
        axes.imshow(picture(item.frames[number]).array)
        axes.set_title(f'frame {number}', fontsize=8, color=INK)
    panels[0][0].set_ylabel(cut(item.name), fontsize=8)
    image = None
    for row, rule in zip(panels[1:], rules):
        row[0].set_ylabel(rule, fontsize=8)
        for axes, number in zip(row, numbers):
            entry = next(e for e in maps if e.rule == rule and e.frame == number)
            image = axes.imshow(entry.error, cmap='viridis', vmin=0, vmax=most,
                                interpolation='nearest', aspect='auto')
            axes.set_box_aspect(ratio)
            forecast = entry.kind == FORECAST
            axes.set_title(f'{entry.kind}, mean {entry.error.mean():.3f}', fontsize=7,
                           color=RED if forecast else SOFT)
            for spine in axes.spines.values():
                spine.set(visible=forecast, color=RED, linewidth=2.5)
    assert image is not None
    bar = figure.colorbar(image, ax=list(panels[1:].flat), shrink=0.8, pad=0.01)
    bar.set_label('mean over channels of |forecast - feature|', fontsize=8)
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=10)
    return figure
