# SPDX-License-Identifier: Apache-2.0
"""What a stream's frames cost, and what that allows."""

from math import inf, isnan

from forecast_detector_ros.detector.pace import Pace, WEIGHT
from hypothesis import given
from hypothesis import strategies as st
import pytest

costs = st.lists(st.tuples(st.booleans(), st.floats(0.1, 1000.0)), max_size=50)


def test_first_cost_is_the_mean():
    pace = Pace().after(True, 30.0, inf)
    assert pace.read_ms == 30.0 and isnan(pace.forecast_ms)
    assert pace.after(False, 5.0, inf) == Pace(30.0, 5.0, 0.0)


def test_mean_follows():
    pace = Pace(30.0, 5.0).after(True, 40.0, inf)
    assert pace.read_ms == pytest.approx(30.0 + WEIGHT * 10.0) and pace.forecast_ms == 5.0


def test_unknown_cost_is_affordable():
    assert Pace().affords_read(0.001)


def test_no_limit_affords_everything_and_saves_nothing():
    pace = Pace(1e6, 1.0).after(True, 1e6, inf)
    assert pace.affords_read(inf) and pace.saved_ms == 0.0


def test_interruption_is_forgotten_soon():
    # One second lost once must not forbid reads for the next hundred frames.
    pace = Pace(30.0, 5.0, 0.0).after(False, 1000.0, 10.0)
    assert pace.saved_ms == -30.0


@given(costs, st.floats(1.0, 200.0))
def test_saved_time_is_worth_a_read_at_most(frames, budget):
    pace = Pace()
    for read, cost in frames:
        pace = pace.after(read, cost, budget)
        most = pace.read_ms if not isnan(pace.read_ms) else 1000.0
        assert abs(pace.saved_ms) <= most
