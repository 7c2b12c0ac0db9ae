# SPDX-License-Identifier: Apache-2.0
"""The bootstrap agrees with a slow loop, and has the expected properties."""

from forecast_detector_ros.metrics.bootstrap import Bootstrap
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest


def slowly(values, seed, draws):
    """Return mean, low and high of a bootstrap that draws sequence by sequence."""
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        drawn = [values[rng.integers(0, len(values))] for _ in values]
        known = [value for value in drawn if not np.isnan(value)]
        if known:
            means.append(np.mean(known))
    return np.mean([value for value in values if not np.isnan(value)]), *np.percentile(
        means, [2.5, 97.5])


def test_interval_agrees_with_a_loop():
    values = np.random.default_rng(5).random(9)
    values[3] = np.nan
    mean, low, high = slowly(values, 1, 4000)
    found = Bootstrap(9, seed=2).interval(values)
    assert found.mean == pytest.approx(mean)
    # The two sets of draws are independent, so their ends differ by some hundredths of the width.
    width = high - low
    assert found.low == pytest.approx(low, abs=0.06 * width)
    assert found.high == pytest.approx(high, abs=0.06 * width)


def test_interval_of_many_sequences_is_the_normal_one():
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    found = Bootstrap(400).interval(values)
    error = 1.96 * values.std() / 20
    assert (found.low, found.high) == (pytest.approx(values.mean() - error, abs=1e-3),
                                       pytest.approx(values.mean() + error, abs=1e-3))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(-1, 1))
def test_differences_are_paired(values, step):
    bootstrap = Bootstrap(len(values), draws=50)
    values = np.array(values)
    found = bootstrap.difference(values + step, values)
    # An equal difference in all sequences has an interval without width.
    assert (found.mean, found.low, found.high) == (pytest.approx(step, abs=1e-9),) * 3


def test_interval_depends_on_the_seed_and_is_nan_without_values():
    values = np.random.default_rng(0).random(7)
    assert Bootstrap(7, 3).interval(values) == Bootstrap(7, 3).interval(values)
    assert Bootstrap(7, 3).interval(values) != Bootstrap(7, 4).interval(values)
    found = Bootstrap(2).interval([np.nan, np.nan])
    assert np.isnan([found.mean, found.low, found.high]).all()
