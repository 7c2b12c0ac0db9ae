# SPDX-License-Identifier: Apache-2.0
"""A run along one axis: seconds or numbers, moving ratio, boxes over time, latencies."""

from dataclasses import replace

from forecast_detector_ros.detector.policy import FORECAST, READ
from forecast_detector_ros.recording.frame_record import DROPPED
from forecast_detector_ros.report.run_record import SequenceRecord
from forecast_detector_ros.report.run_record import latency_rows, RATIO_FRAMES, RunView
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from ..helpers.runs import frame, run, two_sequences


def of(kinds, *labels):
    frames = tuple(frame(number, kind, *labels) for number, kind in enumerate(kinds))
    return RunView.of(run(sequences=(SequenceRecord('walk', frames, True),)))


def test_one_timed_sequence_lies_on_seconds():
    view = RunView.of(run())
    np.testing.assert_allclose(view.x, [0, 0.1, 0.2, 0.3, 0.4])
    assert view.unit == 'time, s' and view.starts == (('walk', 0.0),)
    assert view.rows(DROPPED).tolist() == [2]
    np.testing.assert_array_equal(view.values('confidence'), [0.4, 0.8, np.nan, 0.4, 0.8])


def test_a_clock_that_was_set_back_does_not_fold_the_axis():
    frames = tuple(replace(frame(n), stamp_ns=stamp) for n, stamp in enumerate((7, 9, 3, 20)))
    view = RunView.of(run(sequences=(SequenceRecord('walk', frames, True),)))
    assert np.all(np.diff(view.x) >= 0)


def test_several_sequences_lie_one_behind_the_other():
    view = RunView.of(two_sequences())
    assert view.x.tolist() == list(range(7)) and view.unit == 'frame'
    assert view.starts == (('a/long name', 0.0), ('b', 5.0))


@given(st.lists(st.sampled_from([READ, FORECAST, DROPPED]), min_size=1, max_size=80))
def test_moving_ratio_is_the_mean_over_the_answered_neighbours(kinds):
    view = of(kinds)
    places, ratio = view.read_ratio()
    answered = [number for number, kind in enumerate(kinds) if kind != DROPPED]
    np.testing.assert_array_equal(places, view.x[answered])
    half = RATIO_FRAMES // 2
    wanted = [np.mean([kinds[n] == READ for n in answered[max(0, i - half):i + half + 1]])
              for i in range(len(answered))]
    np.testing.assert_allclose(ratio, wanted)


@given(st.lists(st.sampled_from([READ, DROPPED]), min_size=1, max_size=30), st.integers(1, 40))
def test_density_keeps_every_box(kinds, bins):
    view = of(kinds, 'dog', 'dog', 'cat')
    edges, density = view.density(['dog', 'cat'], bins)
    assert len(edges) == density.shape[1] + 1 <= bins + 1 and np.all(np.diff(edges) > 0)
    known = density[:, ~np.isnan(density[0])]
    # Whatever the bins, every answered frame has two dogs and a cat.
    np.testing.assert_allclose(known, np.array([[2.0], [1.0]]) * np.ones(known.shape))
    assert known.shape[1] > 0 or READ not in kinds


def test_latencies_by_decision():
    rows = latency_rows(RunView.of(run()))
    assert [row['decision'] for row in rows] == [READ, FORECAST, 'all']
    read = rows[0]
    assert (read['frames'], read['mean'], read['max']) == (2, 41.5, 43.0)
    assert read['p50'] == pytest.approx(41.5) and read['p90'] == pytest.approx(42.7)
    assert latency_rows(of([DROPPED])) == []
