# SPDX-License-Identifier: Apache-2.0
"""Rows and picture of a streaming sweep."""

from forecast_detector_ros.experiments.streaming_plot import draw_streaming, streaming_rows
import pytest


def run(policy, rate, **more):
    return {'policy': policy, 'rate': rate, 'processed': 0.5, 'read_ratio': 1.0,
            'unanswered': 0, 'age_ms': 1000 / rate, 'mean_recall': 0.5,
            'sequences': {'a': 0.5}, **more}


def test_average_precision_is_a_column_where_there_is_one():
    rows = streaming_rows({'runs': [run('always_read', 10, ap50={'mean': 0.25, 'classes': {}})]})
    assert rows == [{'policy': 'always_read', 'rate': 10, 'processed': 0.5, 'read_ratio': 1.0,
                     'unanswered': 0, 'age_ms': 100.0, 'mean_recall': 0.5, 'ap50': 0.25}]


@pytest.mark.parametrize(('more', 'label'), [
    ({}, 'streaming recall'), ({'coco': {'mean': 0.5}}, 'streaming COCO AP')])
def test_a_line_a_policy(more, label):
    result = {'runs': [run(policy, rate, **more) for policy in ('always_read', 'alternate(1)')
                       for rate in (30, 10)]}
    figure = draw_streaming(result, 'title')
    left, right = figure.axes
    assert left.get_ylabel() == label
    lines = {line.get_label(): line for line in right.get_lines()}
    assert list(lines) == ['always_read', 'alternate(1)']
    assert lines['always_read'].get_xdata().tolist() == [10, 30]
    assert lines['always_read'].get_ydata().tolist() == pytest.approx([100, 1000 / 30])
