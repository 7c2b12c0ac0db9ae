# SPDX-License-Identifier: Apache-2.0
"""Tables come out of their file as they went in."""

from dataclasses import fields

from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.metrics.tables import (
    DetectionTable,
    load_tables,
    one_hot,
    save_tables,
    TruthTable,
)
import numpy as np
import pytest


def test_tables_survive_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    detections = DetectionTable(rng.integers(0, 9, 5), rng.random((5, 4), np.float32),
                                rng.integers(0, 3, 5), rng.random(5, np.float32))
    truth = TruthTable(rng.integers(0, 9, 4), rng.random((4, 4), np.float32),
                       one_hot(rng.integers(0, 3, 4), 3), rng.integers(0, 9, 2),
                       rng.random((2, 4), np.float32))
    groups = {'/camera/left': {'shown': detections, 'truth': truth, 'annotated': np.arange(3)},
              '/camera/right': {'shown': DetectionTable.join([])}}
    save_tables(tmp_path / 'tables.npz', groups)
    found = load_tables(tmp_path / 'tables.npz')
    assert {name: set(group) for name, group in found.items()} == {
        name: set(group) for name, group in groups.items()}
    for name, group in groups.items():
        for key, value in group.items():
            again = found[name][key]
            assert type(again) is type(value)
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(again, value)
                continue
            for field in fields(value):
                one, other = getattr(value, field.name), getattr(again, field.name)
                assert one.dtype == other.dtype and one.shape == other.shape
                np.testing.assert_array_equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ['tables.npz']


def test_other_files_are_one_line(tmp_path):
    (tmp_path / 'text').write_text('something else')
    np.savez(tmp_path / 'other.npz', a=np.zeros(2))
    for name in ('text', 'other.npz', 'none'):
        with pytest.raises(DataError) as caught:
            load_tables(tmp_path / name)
        assert name in str(caught.value) and '\n' not in str(caught.value)
