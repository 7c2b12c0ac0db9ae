# SPDX-License-Identifier: Apache-2.0
"""
The paper's Tables 1 and 2 and its Fig. 5 for any checkpoints and videos.

The tables have accuracy and speed. Fig. 5 shows accuracy over frames per second for thresholds of
the scheduler, for fixed rules and for persistence. Its second panel compares the policies at an
equal read ratio, independent of a machine's speed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TYPE_CHECKING

import numpy as np

from .figure_files import AMBER, BLUE, GREEN, INK, new_figure, SOFT
from ..detector.checkpoint import Card
from ..detector.detector import Detector
from ..detector.policy import (
    AlternatePolicy,
    AlwaysReadPolicy,
    FORECAST,
    Policy,
    READ,
    ThresholdPolicy,
)
from ..detector.settings import DetectorSettings
from ..evaluation.accuracy import HEADS, KEYS, measure_accuracy
from ..evaluation.policy_sweep import PolicyRun, run_policies
from ..evaluation.runs import Latencies, run_video
from ..evaluation.sequences import EvaluationError, Video
from ..layout import mean, mean_and_deviation, plain, table
from ..metrics.average_precision import GROUPS
from ..metrics.tables import DetectionTable, recall
from ..model.config import MOTION
from ..model.network import ForecastDetector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def table1_row(detector: Detector, videos: Sequence[Video], settings: DetectorSettings,
               protocol: str) -> dict[str, Any]:
    """
    Measure accuracy and speed of one detector under one policy.

    :param detector: is warmed up first
    :param videos, settings: sequences and settings of the runs
    :param protocol: a key of `accuracy.KEYS`
    :returns: `backbone`, `input` (height x width), `policy`, the figures of `score`, `read_ratio`,
        and `fps`: frames over the time of their resizing, network and post-processing, without
        decoding
    :raises DataError: if a picture cannot be decoded
    """
    detector.warm_up()
    runs = [run_video(detector, item, settings, collect=True) for item in videos]
    took = np.concatenate([run.preprocess_ms + run.inference_ms for run in runs])
    read = np.concatenate([run.read for run in runs])
    tables = [run.collected for run in runs if run.collected is not None]
    height, width = detector.input_size
    return {'backbone': f'MobileNetV2 {detector.card.network.width:g}',
            'input': f'{height}x{width}', 'policy': str(settings.policy),
            **score(videos, tables, detector.labels, protocol, settings.score_threshold),
            'read_ratio': float(read.mean()), 'fps': float(1000 / took.mean())}


def table2_rows(network: ForecastDetector, card: Card, videos: Sequence[Video],
                settings: DetectorSettings, policies: Sequence[Policy], protocol: str,
                motion: Sequence[np.ndarray], device: str = 'cpu', precision: str = 'fp32'
                ) -> list[dict[str, Any]]:
    """
    Measure a variant by motion, under each policy.

    :param network, card, device, precision: as for `run_policies`
    :param protocol: `plain` or `devkit`
    :param motion: motion IoU of the boxes for average precision, one array per sequence
    :returns: one row per policy: `variant`, `forecast_mode`, `policy`, `read_ratio`, and the
        figures of `score`
    :raises DataError, EvaluationError: with a message of one line
    """
    # The variant is stored first, because the run may change the network.
    known = {'variant': network.config.variant, 'forecast_mode': network.config.forecast_mode}
    runs = run_policies(network, card, videos, settings, policies, device, precision)
    return [{**known, 'policy': policy,
             'read_ratio': float(np.concatenate([run.read for run in found]).mean()),
             **score(videos, [run.collected for run in found], card.classes, protocol,
                     settings.score_threshold, motion)}
            for policy, found in runs.items()]


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Join rows of the same `model` and `policy`: several trainings of one variant.

    :returns: `model`, `policy`, `trainings`, and the means of `accuracy` and the `GROUPS`. Keys
        that end in ``_sd`` have the standard deviation of the sample (None for one training). None
        if a training has no value.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row['model'], row['policy']), []).append(row)
    result = []
    for (model, policy), found in groups.items():
        joined: dict[str, Any] = {'model': model, 'policy': policy, 'trainings': len(found)}
        for key in ('accuracy', *GROUPS):
            joined[key], joined[f'{key}_sd'] = mean_and_deviation([row[key] for row in found])
        result.append(joined)
    return result


#: The measure if some visible objects are not annotated, so that precision is meaningless.
RECALL = 'recall'


@dataclass(frozen=True)
class Speed:
    """Mean times of the decisions, milliseconds: resizing, network and post-processing."""

    read_ms: float
    forecast_ms: float
    source: str  #: Origin of the times

    def fps(self, read_ratio: float) -> float:
        """Return the frames per second at a read ratio in [0, 1]."""
        return 1000 / (read_ratio * self.read_ms + (1 - read_ratio) * self.forecast_ms)


def measure_speed(detector: Detector, videos: Sequence[Video], settings: DetectorSettings
                  ) -> Speed:
    """
    Time every frame of the videos once, read and forecast in turn.

    :param detector: is warmed up first
    :param videos, settings: sequences, and the settings with the thresholds
    :raises DataError: if a picture cannot be decoded
    :raises EvaluationError: if there is no second frame to forecast
    """
    detector.warm_up()
    runs = [run_video(detector, item, replace(settings, policy=AlternatePolicy(1)), False)
            for item in videos]
    took = np.concatenate([run.preprocess_ms + run.inference_ms for run in runs])
    read = np.concatenate([run.read for run in runs])
    if read.all():
        raise EvaluationError('speed: the videos have no sequence of two frames or more')
    return Speed(float(took[read].mean()), float(took[~read].mean()),
                 f'measured in {detector.precision}')


def recorded_speed(latencies: Latencies) -> Speed:
    """
    Return the means of recorded latencies.

    :raises EvaluationError: if one kind of decision was not recorded
    """
    values = {kind: latencies.values[kind] for kind in (READ, FORECAST)}
    for kind, found in values.items():
        if not len(found) or not found.mean() > 0:
            raise EvaluationError(f'{latencies.path}: has no latency of a {kind} frame; record a '
                                  'run whose policy makes both decisions')
    return Speed(float(values[READ].mean()), float(values[FORECAST].mean()),
                 str(latencies.path))


def measure_name(videos: Sequence[Video], protocol: str) -> str:
    """Return the name of the `accuracy` of `score`: one of `accuracy.HEADS`, or `RECALL`."""
    return HEADS[protocol] if all(item.labelled is not None for item in videos) else RECALL


def score(videos: Sequence[Video], collected: Sequence[DetectionTable],
          labels: Sequence[str], protocol: str, score_threshold: float,
          motion: Sequence[np.ndarray] | None = None) -> dict[str, Any]:
    """
    Score the detections of all sequences.

    :param videos, collected: the sequences, and the detections in each from a low score on
    :param labels: the detector's classes
    :param protocol: for average precision, a key of `accuracy.KEYS`
    :param score_threshold: for recall
    :param motion: motion IoU of the boxes for average precision, one array per sequence; None for
        no result by motion
    :returns: fractions, None without boxes: `accuracy` (see `measure_name`), `recall` (mean over
        sequences), and with `motion` the `GROUPS` as well
    :raises EvaluationError: if the protocol needs a library that is missing, or cannot be split by
        motion
    """
    found = mean([plain(recall(table.select(table.scores > score_threshold), item.truth))
                  for item, table in zip(videos, collected)])
    if measure_name(videos, protocol) == RECALL:
        if motion is not None:
            raise EvaluationError('motion IoU: the videos have no boxes of all objects')
        return {'accuracy': found, 'recall': found}
    figures = measure_accuracy(videos, collected, labels, (protocol,), motion)[KEYS[protocol]]
    result = {'accuracy': figures['mean'], 'recall': found}
    if motion is not None:
        if 'motion' not in figures:
            raise EvaluationError(f'protocol {protocol} is not split by motion; take plain or '
                                  'devkit')
        result |= {name: figures['motion'][name]['mean'] for name in GROUPS}
    return result


#: Thresholds of the scheduler; that of the card is added.
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Alternatives to FORECAST for frames that are not read; see `forecast_quality.ROWS`.
HELD, PERSISTENCE = 'held feature', 'persistence'
#: Marker and colour of fixed rules.
MARKS = {FORECAST: ('s', INK), HELD: ('v', AMBER), PERSISTENCE: ('D', GREEN)}
#: Background of text that may be drawn over lines.
PAPER = {'facecolor': 'white', 'edgecolor': 'none', 'alpha': 0.7, 'pad': 0.4}


def measure_trade_off(network: ForecastDetector, card: Card, videos: Sequence[Video],
                      settings: DetectorSettings, speed: Speed, protocol: str,
                      thresholds: Sequence[float] = THRESHOLDS, device: str = 'cpu',
                      precision: str = 'fp32') -> dict[str, Any]:
    """
    Measure a network under thresholds and fixed rules.

    :param network, card, device, precision: as for `run_policies`
    :param settings: the fixed rules forecast 1 to `max_consecutive_forecasts` frames after each
        read
    :param speed: times of the decisions; frames of persistence are assumed to take the time of
        forecasts
    :param protocol: for average precision, a key of `accuracy.KEYS`
    :param thresholds: in [0, 1]
    :returns: plain values: `measure` (the name of `accuracy`), `speed`, `points`, and
        `equal_read_ratio` of `compare_with_fixed_rules`; `shipped` is the card's policy
    :raises DataError, EvaluationError: with a message of one line
    """
    measure = measure_name(videos, protocol)
    truths = [item.truth if measure == RECALL else item.labelled for item in videos]
    if not any(truth is not None and len(truth) for truth in truths):
        raise EvaluationError('no box is annotated in these sequences')
    levels = sorted({*thresholds, card.threshold})
    fixed = [AlternatePolicy(k) for k in range(1, settings.max_consecutive_forecasts + 1)]
    policies: list[Policy] = [AlwaysReadPolicy(), *fixed, *map(ThresholdPolicy, levels)]
    todo: list[tuple[str, ForecastDetector, Sequence[Policy]]] = [(FORECAST, network, policies)]
    if network.config.has_encoders:
        todo.append((PERSISTENCE, network.with_variant('persistence'), fixed))
        # For a forecast of motion, a held feature means boxes that do not move: persistence.
        if network.config.forecast_mode != MOTION:
            todo.insert(1, (HELD, network, fixed))
    points = []
    for features, variant, rules in todo:
        runs = run_policies(variant, card, videos, settings, rules, device, precision,
                            hold=features == HELD)
        points += [{'features': features, 'policy': policy, **_point(
            videos, found, card, settings, speed, protocol)} for policy, found in runs.items()]
    known = {point['policy']: (point['read_ratio'], point['accuracy']) for point in points
             if point['features'] == FORECAST}
    return {'measure': measure, 'protocol': protocol,
            'max_consecutive_forecasts': settings.max_consecutive_forecasts,
            'speed': asdict(speed),
            'shipped': str(ThresholdPolicy(card.threshold)), 'points': points,
            'equal_read_ratio': compare_with_fixed_rules(known)}


def _point(videos: Sequence[Video], runs: Sequence[PolicyRun], card: Card,
           settings: DetectorSettings, speed: Speed, protocol: str) -> dict[str, Any]:
    ratio = float(np.concatenate([run.read for run in runs]).mean())
    return {'read_ratio': ratio, 'fps': speed.fps(ratio), **score(
        videos, [run.collected for run in runs], card.classes, protocol,
        settings.score_threshold)}


def trade_off_as_text(result: Mapping[str, Any]) -> str:
    """Format the result of `measure_trade_off`, with the comparison at an equal read ratio."""
    measure = result['measure']
    points = table(('policy', 'not read', 'read ratio', measure, 'fps'),
                   [[point['policy'], point['features'], point['read_ratio'], point['accuracy'],
                     point['fps']] for point in result['points']])
    rows = [[item['policy'] + (' (shipped)' if item['policy'] == result['shipped'] else ''),
             item['read_ratio'], item['accuracy'], item['fixed_rules'],
             None if item['gain'] is None else f'{item["gain"]:+.3f}']
            for item in result['equal_read_ratio']]
    return points + '\n\n' + table(
        ('scheduler', 'read ratio', measure, 'fixed rules', 'gain'), rows,
        title='at an equal read ratio: always_read and alternate(k), interpolated')


def draw_trade_off(result: Mapping[str, Any], title: str = '') -> 'Figure':
    """Draw the result of `measure_trade_off`: over frames per second, and over the read ratio."""
    figure = new_figure(10, 4.6)
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, result, 'fps', True)
    speed = result['speed']
    left.set(xlabel='frames per second', ylabel=result['measure'],
             title=f'read {speed["read_ms"]:.1f} ms, forecast {speed["forecast_ms"]:.1f} ms')
    _panel(right, result, 'read_ratio', False)
    right.set(xlabel='read ratio', title='at an equal read ratio')
    right.invert_xaxis()
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=3)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _panel(axes: 'Axes', result: Mapping[str, Any], x: str, annotate: bool) -> None:
    points = [point for point in result['points'] if point['accuracy'] is not None]
    swept = [point for point in points if point['policy'].startswith('threshold')]
    fixed = sorted((point for point in points if point['features'] == FORECAST
                    and point not in swept), key=lambda point: point['read_ratio'])
    # A mixture of two fixed rules is on a straight line over the read ratio, and so over the time
    # of a frame, but not over frames per second.
    ratios = np.linspace(fixed[0]['read_ratio'], fixed[-1]['read_ratio'], 60)
    between = np.interp(ratios, [point['read_ratio'] for point in fixed],
                        [point['accuracy'] for point in fixed])
    speed = Speed(**result['speed'])
    axes.plot(ratios if x == 'read_ratio' else [speed.fps(ratio) for ratio in ratios], between,
              '--', color=SOFT, linewidth=1, label='fixed rules, mixed')
    swept.sort(key=lambda point: point['read_ratio'])
    axes.plot([point[x] for point in swept], [point['accuracy'] for point in swept], 'o-',
              color=BLUE, markersize=5, linewidth=1.4, label='scheduler, threshold(p)')
    shipped = [point for point in swept if point['policy'] == result['shipped']]
    axes.plot([point[x] for point in shipped], [point['accuracy'] for point in shipped], 'o',
              color='none', markeredgecolor=BLUE, markersize=11, markeredgewidth=1.5,
              label=f'shipped: {result["shipped"]}')
    for features, (marker, colour) in MARKS.items():
        rules = [point for point in points if point['features'] == features
                 and point['policy'].startswith('alternate')]
        if rules:
            axes.plot([point[x] for point in rules], [point['accuracy'] for point in rules],
                      marker, color=colour, markersize=6, label=f'alternate(k), {features}')
    always = [point for point in fixed if point['policy'] == 'always_read']
    axes.plot([point[x] for point in always], [point['accuracy'] for point in always], '*',
              color=INK, markersize=12, label='always_read')
    axes.margins(x=0.08, y=0.1)
    if annotate:
        _thresholds(axes, swept, x)
        return
    for point in fixed:
        if point['policy'].startswith('alternate'):
            axes.annotate('k=' + point['policy'][10:-1], (point[x], point['accuracy']),
                          xytext=(-7, -9), textcoords='offset points', color=INK, fontsize=7,
                          ha='right', bbox=PAPER)


def _thresholds(axes: 'Axes', swept: Sequence[Mapping[str, Any]], x: str) -> None:
    """Write p at each point; several thresholds often have the same point."""
    seen: dict[tuple[float, float], list[str]] = {}
    for point in swept:
        place = round(point[x], 6), round(point['accuracy'], 6)
        seen.setdefault(place, []).append(f'{float(point["policy"][10:-1]):g}')
    for place, names in seen.items():
        ordered = sorted(names, key=float)
        text = ordered[0] if len(ordered) == 1 else f'{ordered[0]}..{ordered[-1]}'
        axes.annotate(text, place, xytext=(0, 7), textcoords='offset points', color=BLUE,
                      fontsize=7, ha='center', bbox=PAPER)


FIXED = ('always_read', 'alternate')  #: First words of the texts of fixed rules


def fixed_rules_at(ratio: float, points: Mapping[str, tuple[float, float | None]]
                   ) -> float | None:
    """
    Return the interpolated accuracy of fixed rules at a read ratio.

    :param ratio: the read ratio, in (0, 1]
    :param points: by a policy's text: its read ratio and accuracy; policies other than fixed
        rules, and those without an accuracy, are ignored
    :returns: None outside the read ratios of the fixed rules
    """
    known = sorted((x, y) for name, (x, y) in points.items()
                   if name.startswith(FIXED) and y is not None)
    if not known or not known[0][0] <= ratio <= known[-1][0]:
        return None
    ratios, accuracies = zip(*known)
    return float(np.interp(ratio, ratios, accuracies))


def compare_with_fixed_rules(points: Mapping[str, tuple[float, float | None]]
                             ) -> list[dict[str, Any]]:
    """
    Compare every other policy with fixed rules at its read ratio.

    :returns: `policy`, `read_ratio`, `accuracy`, `fixed_rules` (None if there is none at this
        read ratio) and `gain`, the difference of the accuracies
    """
    result = []
    for name, (ratio, accuracy) in points.items():
        if name.startswith(FIXED):
            continue
        fixed = fixed_rules_at(ratio, points)
        gain = None if fixed is None or accuracy is None else accuracy - fixed
        result.append({'policy': name, 'read_ratio': ratio, 'accuracy': accuracy,
                       'fixed_rules': fixed, 'gain': gain})
    return result
