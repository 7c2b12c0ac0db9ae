# SPDX-License-Identifier: Apache-2.0
"""Check values for JSON, and tables of text."""

from forecast_detector_ros.layout import markdown, mean, plain, table
import numpy as np


def test_columns_are_aligned():
    assert table(('name', 'a', 'b'), [['x', 0.12345, None], ['long name', 12, 'y']], 2) == (
        'name          a  b\n'
        '---------  ----  -\n'
        'x          0.12  -\n'
        'long name    12  y')
    assert table(('a',), [[1]], title='of what').splitlines()[0] == 'of what'


def test_tables_in_markdown():
    rows = [('name', 'a'), ('one', 1), ('two', None)]
    assert markdown(rows) == '| name | a |\n| --- | --- |\n| one | 1 |\n| two |  |'
    assert markdown(rows, right=True).splitlines()[1] == '| --- | ---: |'


def test_unknown_value_is_none():
    assert (plain(float('nan')), plain(np.float64(0.5))) == (None, 0.5)
    assert mean([1.0, None, float('nan'), 2.0]) == 1.5 and mean([None]) is None
