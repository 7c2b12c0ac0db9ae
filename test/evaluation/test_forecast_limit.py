# SPDX-License-Identifier: Apache-2.0
"""How far forecasts hold, on numbers that are made up."""

import json

from forecast_detector_ros.evaluation.forecast_limit import forecast_limit, limit_as_text
from forecast_detector_ros.evaluation.forecast_quality import ForecastQuality, Hits, StrideQuality
from forecast_detector_ros.evaluation.forecast_report import summarise_forecasts
from forecast_detector_ros.evaluation.sequences import EvaluationError
from forecast_detector_ros.metrics.bootstrap import Bootstrap
import numpy as np
import pytest

BOXES = np.array([100, 50])


def hits(*found):
    """Give hits at IoU 0.5 alone."""
    table = np.zeros((10, 2), np.int64)
    table[0] = found
    return Hits(table, BOXES, np.ones(2))


def quality(*strides):
    """Give a quality whose forecasts lose so many boxes of each sequence, from horizon 0 on."""
    return ForecastQuality(tuple(StrideQuality(stride, ('one', 'two'), {
        'read': tuple(hits(80, 40) for _ in losses),
        'forecast': tuple(hits(80 - one, 40 - two) for one, two in losses)}, None, None)
        for stride, losses in strides), 4)


def limit(points, *strides, **options):
    return forecast_limit(summarise_forecasts(quality(*strides), seed=1, draws=200), points,
                          **options)


FAST = (4, ((0, 0), (4, 2), (8, 4), (20, 10)))
SLOW = (1, ((0, 0), (1, 0), (2, 1), (4, 2)))


def test_limit_is_the_last_horizon_before_too_much_is_lost():
    # 4, 8 and 20 points; 0.5, 2 and 4 points.
    for points, longest in ((3.9, 0), (4, 1), (7, 1), (8, 2), (19, 2)):
        found = limit(points, FAST)
        assert (found['max_consecutive_forecasts'], found['reached']) == (longest, True)
    assert limit(20, FAST)['reached'] is False
    found = limit(2, SLOW)
    assert found['max_consecutive_forecasts'] == 2
    expected = Bootstrap(2, 1, 200).interval([0.02, 0.02])
    assert found['strides'][0]['loss'][1] == {
        'horizon': 2, 'mean': pytest.approx(0.02), 'low': pytest.approx(expected.low),
        'high': pytest.approx(expected.high)}
    json.dumps(found, allow_nan=False)


def test_a_horizon_behind_one_that_lost_too_much_does_not_count():
    assert limit(2, (1, ((0, 0), (0, 0), (10, 5), (0, 0))))['max_consecutive_forecasts'] == 1


def test_lowest_limit_of_all_frame_rates_counts():
    found = limit(4, SLOW, FAST)
    assert [item['limit'] for item in found['strides']] == [3, 1]
    assert found['max_consecutive_forecasts'] == 1


def test_other_iou():
    # Above 0.5 nothing is found in either row.
    assert limit(0, FAST, iou='0.7')['max_consecutive_forecasts'] == 3


def test_horizons_beyond_the_sequences_are_unknown():
    item = quality(SLOW)
    (stride,) = item.strides
    short = {name: (*rows[:2], *(Hits(row.found * 0, BOXES * 0, row.shown) for row in rows[2:]))
             for name, rows in stride.rows.items()}
    found = forecast_limit(summarise_forecasts(ForecastQuality((StrideQuality(
        1, stride.names, short, None, None), *quality(FAST).strides), 4), draws=10), 4)
    assert [len(item['loss']) for item in found['strides']] == [1, 3]
    assert (found['max_consecutive_forecasts'], found['reached']) == (1, True)
    lines = limit_as_text(found).splitlines()
    assert any(line.split()[:2] == ['2', '-'] for line in lines)


def test_text_says_what_follows():
    text = limit_as_text(limit(4, SLOW, FAST))
    assert 'every frame' in text and 'every 4 frames' in text and '4.0 [4.0, 4.0]' in text
    assert text.splitlines()[-1] == ('max_consecutive_forecasts: 1 keeps within 4 points of '
                                     'recall')
    assert limit_as_text(limit(30, FAST)).splitlines()[-1].startswith(
        'max_consecutive_forecasts: 3, the longest horizon that was measured, or more')
    assert 'no forecast stays within 1 points' in limit_as_text(limit(1, FAST))


def test_rows_and_boxes_must_be_there():
    item = quality(FAST)
    (stride,) = item.strides
    without = StrideQuality(stride.stride, stride.names, {'forecast': stride.rows['forecast']},
                            None, None)
    with pytest.raises(EvaluationError, match='the row read is needed'):
        forecast_limit(summarise_forecasts(ForecastQuality((without,), 4), draws=10), 2)
    none = {name: tuple(Hits(row.found * 0, BOXES * 0, row.shown) for row in rows)
            for name, rows in stride.rows.items()}
    empty = StrideQuality(stride.stride, stride.names, none, None, None)
    with pytest.raises(EvaluationError, match='no box is annotated'):
        forecast_limit(summarise_forecasts(ForecastQuality((empty,), 4), draws=10), 2)
