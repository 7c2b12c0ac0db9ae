# SPDX-License-Identifier: Apache-2.0
"""Recorded latencies: reading them, and drawing from them in a repeatable way."""

import json

from forecast_detector_ros.evaluation.latencies import Latencies, load_latencies, milliseconds
from forecast_detector_ros.evaluation.sequences import EvaluationError
import numpy as np
import pytest


@pytest.fixture
def write(tmp_path):
    """Give a function that writes a document."""
    def write(document: object):
        path = tmp_path / 'result.json'
        path.write_text(json.dumps(document))
        return path
    return write


def test_lists_are_read_and_the_rest_is_passed_over(write):
    found = load_latencies(write({'latencies_ms': {'read': [40.5, 20, 30], 'forecast': []},
                                  'frames': 3}))
    assert found.values['read'].tolist() == [20, 30, 40.5]
    assert found.values['forecast'].tolist() == []


def test_share_of_the_distribution_gives_a_recorded_value(write):
    found = load_latencies(write({'latencies_ms': {'read': [40, 20, 30, 10]}}))
    assert [found.at('read', share) for share in (0, 0.24, 0.25, 0.5, 0.999)] == [
        10, 10, 20, 30, 40]


def test_missing_kind_is_named_when_it_is_needed(write):
    with pytest.raises(EvaluationError, match='result.json: latencies_ms: .* of a forecast frame'):
        load_latencies(write({'latencies_ms': {'read': [1]}})).at('forecast', 0.5)


def test_draws_depend_on_seed_and_name_alone(tmp_path):
    def shares(seed: int, name: str, frames: int = 50) -> np.ndarray:
        return Latencies(tmp_path, {}, seed).shares(name, frames)

    np.testing.assert_array_equal(shares(0, 'walk'), shares(0, 'walk'))
    np.testing.assert_array_equal(shares(0, 'walk'), shares(0, 'walk', 60)[:50])
    assert not np.array_equal(shares(0, 'walk'), shares(1, 'walk'))
    assert not np.array_equal(shares(0, 'walk'), shares(0, 'run'))
    assert shares(0, 'walk').min() >= 0 and shares(0, 'walk').max() < 1


@pytest.mark.parametrize('document, message', [
    ([], 'latencies_ms: must hold an object'),
    ({'latency_ms': {}}, 'latencies_ms: must hold an object'),
    ({'latencies_ms': [1, 2]}, 'latencies_ms: must hold an object'),
    ({'latencies_ms': {'read': 5}}, 'latencies_ms.read: must be a list'),
    ({'latencies_ms': {'read': [5], 'forecast': [-1]}}, 'latencies_ms.forecast: must be a list'),
    ({'latencies_ms': {'read': [True]}}, 'latencies_ms.read: must be a list'),
    ({'latencies_ms': {'read': [float('nan')]}}, 'latencies_ms.read: must be a list'),
])
def test_faulty_documents_are_refused(write, document, message):
    with pytest.raises(EvaluationError, match=f'result.json: {message}'):
        load_latencies(write(document))


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match='none.json: cannot be read'):
        load_latencies(tmp_path / 'none.json')
    (tmp_path / 'text.json').write_text('{')
    with pytest.raises(EvaluationError, match='text.json: not valid JSON'):
        load_latencies(tmp_path / 'text.json')


def test_written_values_are_plain_numbers():
    assert json.dumps(milliseconds(np.array([1.23456, 2.0]))) == '[1.235, 2.0]'
