# SPDX-License-Identifier: Apache-2.0
"""Files of a figure: numbers and picture."""

import csv
import json
import os
import sys

import cv2
from forecast_detector_ros.evaluation.sequences import EvaluationError
from forecast_detector_ros.experiments.figure_files import (
    draw_streaming,
    new_figure,
    save_figure,
    save_numbers,
    streaming_rows,
)
import pytest


def test_numbers_are_read_back(tmp_path):
    rows = [{'name': 'a, b', 'value': 0.5}, {'name': 'c', 'value': None}]
    save_numbers(tmp_path / 'new', 'one', {'rows': rows}, rows)
    assert json.loads((tmp_path / 'new/one.json').read_text()) == {'rows': rows}
    with open(tmp_path / 'new/one.csv', newline='') as file:
        assert list(csv.DictReader(file)) == [{'name': 'a, b', 'value': '0.5'},
                                              {'name': 'c', 'value': ''}]


def test_names_that_are_not_utf_8_are_kept(tmp_path):
    save_numbers(tmp_path, 'one', {}, [{'name': os.fsdecode(b'caf\xe9')}])
    assert (tmp_path / 'one.csv').read_bytes() == b'name\ncaf\xe9\n'


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match='not JSON compliant'):
        save_numbers(tmp_path, 'one', {'value': float('nan')}, [])
    assert list(tmp_path.iterdir()) == []


def test_picture_has_its_size(tmp_path):
    save_figure(new_figure(2, 1), tmp_path / 'new/one.png')
    assert cv2.imread(str(tmp_path / 'new/one.png')).shape == (150, 300, 3)
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['one.png']


def test_names_with_dollars_are_no_formulas(tmp_path):
    figure = new_figure(3, 2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label='$x^$')
    axes.set_title('$\\nothing$')
    axes.set_xticks([0, 1], ['$x^$', '$'])
    axes.legend()
    save_figure(figure, tmp_path / 'dollars.png')
    assert (tmp_path / 'dollars.png').stat().st_size > 0


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(EvaluationError, match='pip install matplotlib'):
        new_figure(1, 1)


def run(policy, rate, **more):
    return {'policy': policy, 'rate': rate, 'processed': 0.5, 'read_ratio': 1.0,
            'unanswered': 0, 'age_ms': 1000 / rate, 'mean_recall': 0.5,
            'sequences': {'a': 0.5}, **more}


def test_average_precision_is_a_column_if_measured():
    rows = streaming_rows({'runs': [run('always_read', 10, ap50={'mean': 0.25, 'classes': {}})]})
    assert rows == [{'policy': 'always_read', 'rate': 10, 'processed': 0.5, 'read_ratio': 1.0,
                     'unanswered': 0, 'age_ms': 100.0, 'mean_recall': 0.5, 'ap50': 0.25}]


@pytest.mark.parametrize(('more', 'label'), [
    ({}, 'streaming recall'), ({'coco': {'mean': 0.5}}, 'streaming COCO AP')])
def test_streaming_figure_has_a_line_for_each_policy(more, label):
    result = {'runs': [run(policy, rate, **more) for policy in ('always_read', 'alternate(1)')
                       for rate in (30, 10)]}
    figure = draw_streaming(result, 'title')
    left, right = figure.axes
    assert left.get_ylabel() == label
    lines = {line.get_label(): line for line in right.get_lines()}
    assert list(lines) == ['always_read', 'alternate(1)']
    assert lines['always_read'].get_xdata().tolist() == [10, 30]
    assert lines['always_read'].get_ydata().tolist() == pytest.approx([100, 1000 / 30])
