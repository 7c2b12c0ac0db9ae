# SPDX-License-Identifier: Apache-2.0
"""Forecasts by horizon, as plain values for JSON and as tables."""
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .forecast_quality import (
    FORECAST,
    ForecastQuality,
    HELD,
    Hits,
    IOUS,
    READ,
    REPEATED,
    StrideQuality,
)
from .sequences import EvaluationError
from ..layout import markdown, mean, plain, table
from ..metrics.bootstrap import Bootstrap, DRAWS, Interval


def forecast_limit(result: dict[str, Any], points: float, iou: str = '0.5') -> dict[str, Any]:
    """
    Find the longest horizon up to which forecasts lose at most `points` of recall.

    :param result: from `summarise_forecasts`, with the rows `read` and `forecast`
    :param points: largest loss of mean recall in the frames of a horizon, in hundredths, at least
        0
    :param iou: a key of `AT_IOU`
    :returns: plain values. `max_consecutive_forecasts` is the lowest limit of all frame rates.
        `reached` is false if the limit is the longest measured horizon. `strides` have a `limit`,
        and for each horizon with boxes, from 1 on, the `loss` with its interval.
    :raises EvaluationError: if a row is missing, or nothing is annotated
    """
    strides = [_limit_of(item, points, iou, result) for item in result['strides']]
    lowest = min(item['limit'] for item in strides)
    return {'points': points, 'iou': iou, 'max_consecutive_forecasts': lowest,
            'reached': any(item['limit'] == lowest < len(item['loss']) for item in strides),
            'strides': strides}


def _limit_of(item: dict[str, Any], points: float, iou: str, result: dict[str, Any]
              ) -> dict[str, Any]:
    rows = item['rows']
    for name in (READ, FORECAST):
        if name not in rows:
            raise EvaluationError(f'the row {name} is needed to find the longest horizon')
    bootstrap = Bootstrap(item['sequences'], result['seed'], result['draws'])
    losses, limit, holds = [], 0, True
    for read, forecast in list(zip(rows[READ], rows[FORECAST]))[1:]:
        loss = bootstrap.difference(*(np.array(
            list(row['recall'][iou]['sequences'].values()), np.float64)
            for row in (read, forecast)))
        if np.isnan(loss.mean):
            # All sequences are shorter.
            break
        # The constant allows for rounding.
        holds = holds and 100 * loss.mean <= points + 1e-9
        limit += holds
        losses.append({'horizon': read['horizon'], **_interval(loss)})
    if not losses:
        raise EvaluationError('no box is annotated one frame after a read, so the longest horizon '
                              'is unknown')
    return {'stride': item['stride'], 'limit': limit, 'loss': losses}


def limit_as_text(limit: dict[str, Any]) -> str:
    """Format the result of `forecast_limit`: the losses in points, and the limit."""
    strides = limit['strides']
    rows = [[str(number + 1), *(_loss(item['loss'], number) for item in strides)]
            for number in range(max(len(item['loss']) for item in strides))]
    rows.append(['holds up to', *(str(item['limit']) for item in strides)])
    heads = ['every frame' if item['stride'] == 1 else f'every {item["stride"]} frames'
             for item in strides]
    number, within = limit['max_consecutive_forecasts'], f'{limit["points"]:g} points of recall'
    if not number:
        verdict = f'no forecast stays within {within}: read every frame, or allow more'
    else:
        verdict = f'max_consecutive_forecasts: {number}' + (
            f' keeps within {within}' if limit['reached'] else
            f', the longest horizon that was measured, or more keeps within {within}')
    return table(('frames after a read', *heads), rows,
                 title=f'points of recall at IoU {limit["iou"]} that a forecast loses against '
                 'reading') + f'\n{verdict}'


def _loss(losses: Sequence[dict[str, Any]], number: int) -> str:
    if number >= len(losses):
        return '-'
    middle, low, high = (100 * losses[number][key] for key in ('mean', 'low', 'high'))
    return f'{middle:.1f} [{low:.1f}, {high:.1f}]'


#: Reported recalls, by the name of their IoU; the last is the mean over COCO's thresholds.
AT_IOU: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    '0.5': lambda recall: recall[_at(0.5)],
    '0.7': lambda recall: recall[_at(0.7)],
    '0.5:0.95': lambda recall: recall.mean(0)}


def summarise_forecasts(quality: ForecastQuality, seed: int = 0, draws: int = DRAWS
                        ) -> dict[str, Any]:
    """
    Turn forecast quality into plain values.

    Recall is the mean over sequences. `difference` is the recall minus that of the row
    `reference`, sequence by sequence. The level of intervals is `bootstrap.LEVEL`. `feature_mse`
    is forecast MSE / persistence MSE, per level and horizon, by sequence and as their mean.

    :param quality: has at least one frame rate
    :param seed, draws: for the bootstrap; all intervals of a frame rate have the same draws
    """
    return {'reads_every': quality.reads_every, 'seed': seed, 'draws': draws,
            'strides': [_stride(item, seed, draws) for item in quality.strides]}


def _stride(quality: StrideQuality, seed: int, draws: int) -> dict[str, Any]:
    bootstrap = Bootstrap(len(quality.names), seed, draws)
    reference = next((name for name in (HELD, REPEATED) if name in quality.rows), None)
    rows = {name: [_horizon(quality, bootstrap, horizon, item,
                            None if reference in (None, name)
                            else quality.rows[reference][horizon])
                   for horizon, item in enumerate(hits)]
            for name, hits in quality.rows.items()}
    return {'stride': quality.stride, 'sequences': len(quality.names), 'reference': reference,
            'rows': rows, 'feature_mse': _feature_mse(quality)}


def _at(iou: float) -> int:
    return int(np.argmin(np.abs(IOUS - iou)))


def _horizon(quality: StrideQuality, bootstrap: Bootstrap, horizon: int, hits: Hits,
             reference: Hits | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        'horizon': horizon, 'boxes': int(hits.boxes.sum()),
        'detections_per_frame': mean(hits.shown.tolist()), 'recall': {}}
    for name, pick in AT_IOU.items():
        values = pick(hits.recall)
        result['recall'][name] = {
            **_interval(bootstrap.interval(values)),
            'difference': None if reference is None else _interval(
                bootstrap.difference(values, pick(reference.recall))),
            'sequences': dict(zip(quality.names, map(plain, values)))}
    return result


def _interval(value: Interval) -> dict[str, float | None]:
    return {key: plain(number) for key, number in asdict(value).items()}


def _feature_mse(quality: StrideQuality) -> list[dict[str, Any]] | None:
    mse, persistence = quality.feature_mse, quality.persistence_mse
    if mse is None or persistence is None:
        return None
    ratio = np.divide(mse, persistence, out=np.full(mse.shape, np.nan), where=persistence > 0)
    return [{'level': level, 'horizon': horizon + 1,
             'mean_ratio': mean(ratio[level, horizon].tolist()),
             'sequences': {name: {'forecast': plain(mse[level, horizon, i]),
                                  'persistence': plain(persistence[level, horizon, i]),
                                  'ratio': plain(ratio[level, horizon, i])}
                           for i, name in enumerate(quality.names)}}
            for level in range(mse.shape[0]) for horizon in range(mse.shape[1])]


def forecasts_as_text(result: dict[str, Any], levels: Sequence[int]) -> str:
    """Format the result of `summarise_forecasts`; `levels` are the strides of the levels."""
    parts = [table(rows[0], rows[1:], title=title) for title, rows in _tables(result)]
    for item in result['strides']:
        if not item['feature_mse']:
            continue
        names = list(item['feature_mse'][0]['sequences'])
        rows = [[f'stride {levels[line["level"]]}, {line["horizon"]} after a read',
                 line['mean_ratio'], *(line['sequences'][name]['ratio'] for name in names)]
                for line in item['feature_mse']]
        parts.append(table(('', 'mean', *names), rows,
                           title='feature MSE of the forecast / of the last read feature'
                           + _rate(item)))
    return '\n\n'.join(parts)


def forecasts_as_markdown(result: dict[str, Any]) -> str:
    """Format recalls and differences of `summarise_forecasts` as tables in Markdown."""
    return '\n\n'.join(f'**{title}**\n\n{markdown(rows)}' for title, rows in _tables(result)
                       ) + '\n'


def _tables(result: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    tables = []
    for item in result['strides']:
        rows = item['rows']
        for iou in AT_IOU:
            head = ['frames after a read', *rows]
            tables.append((f'mean recall at IoU {iou} over {item["sequences"]} sequences'
                           + _rate(item),
                           [head, *_lines(rows, list(rows), iou)]))
        others = [name for name in rows if name != item['reference']]
        for iou in AT_IOU if item['reference'] and others else ():
            tables.append((
                f'the same at IoU {iou}, less that of {item["reference"]}' + _rate(item),
                [['frames after a read', *others], *_lines(rows, others, iou, True)]))
    return tables


def _lines(rows: dict[str, list[dict[str, Any]]], names: Sequence[str], iou: str,
           difference: bool = False) -> list[list[str]]:
    lines = []
    for horizon in range(len(rows[names[0]])):
        values = [rows[name][horizon]['recall'][iou] for name in names]
        lines.append([str(horizon), *(
            _cell(value['difference'], '+.3f') if difference else _cell(value, '.3f')
            for value in values)])
    return lines


def _cell(value: dict[str, float | None], form: str) -> str:
    numbers = [value[key] for key in ('mean', 'low', 'high')]
    if numbers[0] is None:
        return '-'
    middle, low, high = (format(number, form) for number in numbers)
    return f'{middle} [{low}, {high}]'


def _rate(item: dict[str, Any]) -> str:
    return '' if item['stride'] == 1 else f', every {item["stride"]} frames'
