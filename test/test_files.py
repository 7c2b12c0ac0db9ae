# SPDX-License-Identifier: Apache-2.0
"""Check that JSON files are complete and follow the standard; walk through folders."""
import json
import math
import os

from forecast_detector_ros.files import walk, write_json
import pytest


def test_json_file_has_the_values_and_ends_with_a_line(tmp_path):
    values = {'b': [1, 2.5], 'a': None}
    for indent in (None, 1):
        write_json(tmp_path / 'x.json', values, indent=indent)
        text = (tmp_path / 'x.json').read_text()
        assert text.endswith('}\n') and (text.count('\n') > 1) == (indent is not None)
        assert list(json.loads(text).items()) == list(values.items())


def test_number_that_is_not_finite_leaves_the_file_as_it_was(tmp_path):
    write_json(tmp_path / 'x.json', {})
    with pytest.raises(ValueError, match='JSON'):
        write_json(tmp_path / 'x.json', {'a': math.nan})
    assert [path.name for path in tmp_path.iterdir()] == ['x.json']
    assert (tmp_path / 'x.json').read_text() == '{}\n'
    write_json(tmp_path / 'x.json', {'a': math.nan}, nan=True)
    assert math.isnan(json.loads((tmp_path / 'x.json').read_text())['a'])


def test_walk_visits_each_folder_once_and_warns_of_unreadable_ones(
        tmp_path, caplog):
    (tmp_path / 'root/a').mkdir(parents=True)
    (tmp_path / 'other/deep').mkdir(parents=True)
    (tmp_path / 'root/link').symlink_to(tmp_path / 'other')
    (tmp_path / 'root/a/above').symlink_to(tmp_path / 'root')
    (tmp_path / 'other/deep/self').symlink_to(tmp_path / 'other/deep')
    found = [os.path.relpath(place, tmp_path) for place, _, _ in walk(tmp_path / 'root')]
    assert sorted(found) == ['root', 'root/a', 'root/link', 'root/link/deep']
    assert list(walk(tmp_path / 'gone')) == []
    assert 'gone: left out: No such file' in caplog.text
