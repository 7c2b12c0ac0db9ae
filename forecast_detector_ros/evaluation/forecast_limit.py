# SPDX-License-Identifier: Apache-2.0
"""How many frames in a row may be forecast: as long as they lose little against being read."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .forecast_quality import FORECAST, READ
from .sequences import EvaluationError
from ..layout import plain, table
from ..metrics.bootstrap import Bootstrap


def forecast_limit(result: dict[str, Any], points: float, iou: str = '0.5') -> dict[str, Any]:
    """
    Find the longest horizon up to which forecasts lose no more recall than is allowed.

    Parameters
    ----------
    result:
        What `summarise_forecasts` gave, with the rows `read` and `forecast`.
    points:
        Of mean recall, in hundredths, that the frames of a horizon may lose; at least 0.
    iou:
        Of `forecast_report.AT_IOU`.

    Returns ------- dict Plain values. `max_consecutive_forecasts` is the lowest limit of all frame
    rates. `reached` is false if it is only the longest horizon that was measured. `strides` have a
    `limit` and the `loss` by horizon from 1 on, as far as there are boxes, with its interval from
    the draws of `result`.

    Raises
    ------
    EvaluationError
        If a row is missing, or nothing is annotated.

    """
    strides = [_stride(item, points, iou, result) for item in result['strides']]
    lowest = min(item['limit'] for item in strides)
    return {'points': points, 'iou': iou, 'max_consecutive_forecasts': lowest,
            'reached': any(item['limit'] == lowest < len(item['loss']) for item in strides),
            'strides': strides}


def _stride(item: dict[str, Any], points: float, iou: str, result: dict[str, Any]
            ) -> dict[str, Any]:
    rows = item['rows']
    for name in (READ, FORECAST):
        if name not in rows:
            raise EvaluationError(f'the row {name} is needed to say how far forecasts hold')
    bootstrap = Bootstrap(item['sequences'], result['seed'], result['draws'])
    losses, limit, holds = [], 0, True
    for read, forecast in list(zip(rows[READ], rows[FORECAST]))[1:]:
        loss = bootstrap.difference(*(np.array(
            list(row['recall'][iou]['sequences'].values()), np.float64)
            for row in (read, forecast)))
        if np.isnan(loss.mean):
            # No sequence is so long.
            break
        # What is within by rounding alone is within.
        holds = holds and 100 * loss.mean <= points + 1e-9
        limit += holds
        losses.append({'horizon': read['horizon'], 'mean': plain(loss.mean),
                       'low': plain(loss.low), 'high': plain(loss.high)})
    if not losses:
        raise EvaluationError('no box is annotated one frame after a read, so nobody knows how '
                              'far forecasts hold')
    return {'stride': item['stride'], 'limit': limit, 'loss': losses}


def limit_as_text(limit: dict[str, Any]) -> str:
    """Lay out the result of `forecast_limit`: the losses in points, and what follows."""
    strides = limit['strides']
    rows = [[str(number + 1), *(_cell(item['loss'], number) for item in strides)]
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


def _cell(losses: Sequence[dict[str, Any]], number: int) -> str:
    if number >= len(losses):
        return '-'
    middle, low, high = (100 * losses[number][key] for key in ('mean', 'low', 'high'))
    return f'{middle:.1f} [{low:.1f}, {high:.1f}]'
