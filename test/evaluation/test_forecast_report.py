# SPDX-License-Identifier: Apache-2.0
"""Tables of forecasts, and the limit of consecutive forecasts."""

import json

from forecast_detector_ros.evaluation.forecast_quality import ForecastQuality, Hits, StrideQuality
from forecast_detector_ros.evaluation.forecast_report import (
    forecast_limit,
    forecasts_as_markdown,
    forecasts_as_text,
    limit_as_text,
    summarise_forecasts,
)
from forecast_detector_ros.evaluation.sequences import EvaluationError
from forecast_detector_ros.metrics.bootstrap import Bootstrap
import numpy as np
import pytest

NAMES = ('one', 'two', 'three')
BOXES = np.array([10, 20, 0])


def hits(*found):
    """Return hits at all ten IoU thresholds; each threshold has one hit fewer."""
    steps = np.arange(10)[:, None]
    return Hits(np.maximum(np.array(found) - steps, 0), BOXES, np.array([2.0, 4.0, np.nan]))


def result(reference='held'):
    rows = {'read': (hits(10, 20, 0),) * 2, 'forecast': (hits(10, 20, 0), hits(9, 10, 0)),
            reference: (hits(10, 20, 0), hits(7, 14, 0))}
    mse = np.array([[[1.0, 3.0, np.nan]]])
    return summarise_forecasts(ForecastQuality((StrideQuality(
        4, NAMES, rows, mse, np.array([[[2.0, 2.0, np.nan]]])),), 2), seed=3, draws=500)


def test_recall_at_each_iou_by_hand():
    found = result()
    assert (found['reads_every'], found['seed'], found['draws']) == (2, 3, 500)
    (stride,) = found['strides']
    assert (stride['stride'], stride['reference']) == (4, 'held')
    line = stride['rows']['forecast'][1]
    assert (line['horizon'], line['boxes'], line['detections_per_frame']) == (1, 30, 3.0)
    assert line['recall']['0.5']['sequences'] == {'one': 0.9, 'two': 0.5, 'three': None}
    assert line['recall']['0.5']['mean'] == pytest.approx(0.7)
    # 0.7 is the fifth threshold, which has four hits fewer.
    assert line['recall']['0.7']['mean'] == pytest.approx((0.5 + 0.3) / 2)
    assert line['recall']['0.5:0.95']['sequences'] == {
        'one': pytest.approx(sum(range(10)) / 100), 'two': pytest.approx(55 / 200),
        'three': None}
    json.dumps(found, allow_nan=False)


def test_differences_are_to_the_held_feature_and_paired():
    line = result()['strides'][0]['rows']['forecast'][1]['recall']['0.5']
    expected = Bootstrap(3, 3, 500).interval([0.9 - 0.7, 0.5 - 0.7, np.nan])
    assert line['difference'] == {
        'mean': pytest.approx(0.0, abs=1e-12), 'low': pytest.approx(expected.low),
        'high': pytest.approx(expected.high)}
    rows = result()['strides'][0]['rows']
    assert rows['held'][1]['recall']['0.5']['difference'] is None
    assert rows['read'][0]['recall']['0.5']['difference'] == {'mean': 0, 'low': 0, 'high': 0}


def test_repeated_boxes_are_the_reference_without_a_held_row():
    stride = result('repeated_boxes')['strides'][0]
    assert stride['reference'] == 'repeated_boxes'
    assert stride['rows']['forecast'][1]['recall']['0.5']['difference'] is not None
    assert result('constant_velocity')['strides'][0]['reference'] is None


def test_feature_errors_by_hand():
    (line,) = result()['strides'][0]['feature_mse']
    assert (line['level'], line['horizon'], line['mean_ratio']) == (0, 1, 1.0)
    assert line['sequences']['two'] == {'forecast': 3.0, 'persistence': 2.0, 'ratio': 1.5}
    assert line['sequences']['three']['ratio'] is None


def test_text_and_markdown_show_every_mean_with_its_interval():
    found = result()
    text = forecasts_as_text(found, (16,))
    assert 'mean recall at IoU 0.7 over 3 sequences, every 4 frames' in text
    assert '0.700 [0.500, 0.900]' in text and '+0.000 [-0.200, +0.200]' in text
    assert 'stride 16, 1 after a read  1.000  0.500  1.500      -' in text
    lines = forecasts_as_markdown(found).splitlines()
    assert '| frames after a read | read | forecast | held |' in lines
    assert any(line.startswith('| 1 |') and '0.700 [0.500, 0.900]' in line for line in lines)


def test_still_scene_has_no_ratio():
    one = (Hits(np.ones((10, 1), int), np.array([1]), np.array([1.0])),) * 2
    found = summarise_forecasts(ForecastQuality((StrideQuality(
        1, ('one',), {'forecast': one}, np.ones((1, 1, 1)), np.zeros((1, 1, 1))),), 2), draws=10)
    assert found['strides'][0]['feature_mse'][0]['mean_ratio'] is None
    assert summarise_forecasts(ForecastQuality((StrideQuality(
        1, ('one',), {'forecast': one}, None, None),), 2),
        draws=10)['strides'][0]['feature_mse'] is None


TWO_BOXES = np.array([100, 50])


def hits_at_half(*found):
    """Return hits only at IoU 0.5."""
    table = np.zeros((10, 2), np.int64)
    table[0] = found
    return Hits(table, TWO_BOXES, np.ones(2))


def quality(*strides):
    """Return a quality whose forecasts lose given numbers of boxes, by horizon and sequence."""
    return ForecastQuality(tuple(StrideQuality(stride, ('one', 'two'), {
        'read': tuple(hits_at_half(80, 40) for _ in losses),
        'forecast': tuple(hits_at_half(80 - one, 40 - two) for one, two in losses)}, None, None)
        for stride, losses in strides), 4)


def limit(points, *strides, **options):
    return forecast_limit(summarise_forecasts(quality(*strides), seed=1, draws=200), points,
                          **options)


FAST = (4, ((0, 0), (4, 2), (8, 4), (20, 10)))
SLOW = (1, ((0, 0), (1, 0), (2, 1), (4, 2)))


def test_limit_is_the_longest_horizon_within_the_loss():
    # Forecasts of FAST lose 4, 8 and 20 points, those of SLOW 0.5, 2 and 4.
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


def test_a_horizon_after_one_beyond_the_loss_does_not_count():
    assert limit(2, (1, ((0, 0), (0, 0), (10, 5), (0, 0))))['max_consecutive_forecasts'] == 1


def test_lowest_limit_of_all_frame_rates_counts():
    found = limit(4, SLOW, FAST)
    assert [item['limit'] for item in found['strides']] == [3, 1]
    assert found['max_consecutive_forecasts'] == 1


def test_other_iou():
    # At higher IoUs neither row has a hit.
    assert limit(0, FAST, iou='0.7')['max_consecutive_forecasts'] == 3


def test_horizons_beyond_the_sequences_are_unknown():
    item = quality(SLOW)
    (stride,) = item.strides
    short = {name: (*rows[:2], *(Hits(row.found * 0, TWO_BOXES * 0, row.shown)
                                 for row in rows[2:]))
             for name, rows in stride.rows.items()}
    found = forecast_limit(summarise_forecasts(ForecastQuality((StrideQuality(
        1, stride.names, short, None, None), *quality(FAST).strides), 4), draws=10), 4)
    assert [len(item['loss']) for item in found['strides']] == [1, 3]
    assert (found['max_consecutive_forecasts'], found['reached']) == (1, True)
    lines = limit_as_text(found).splitlines()
    assert any(line.split()[:2] == ['2', '-'] for line in lines)


def test_text_has_the_limit():
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
    none = {name: tuple(Hits(row.found * 0, TWO_BOXES * 0, row.shown) for row in rows)
            for name, rows in stride.rows.items()}
    empty = StrideQuality(stride.stride, stride.names, none, None, None)
    with pytest.raises(EvaluationError, match='no box is annotated'):
        forecast_limit(summarise_forecasts(ForecastQuality((empty,), 4), draws=10), 2)
