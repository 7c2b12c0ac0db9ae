# SPDX-License-Identifier: Apache-2.0
"""When a run is slower than an earlier one, and when that is noise."""
from __future__ import annotations

from typing import Any

from forecast_detector_ros.benchmark.compare import compare, SIGMAS, TOLERANCE
from hypothesis import given
from hypothesis import strategies as st
import pytest


def row(name: str, median_ms: float, noise: float = 0.0) -> dict[str, Any]:
    return {'name': name, 'median_ms': median_ms, 'noise': noise}


@pytest.mark.parametrize(('now', 'noise', 'regressed'), [
    (10.0, 0.0, False), (8.0, 0.0, False), (10.4, 0.0, False), (10.6, 0.0, True),
    (12.0, 0.1, False), (13.0, 0.1, True)])
def test_slower_beyond_noise_is_a_regression(now: float, noise: float, regressed: bool) -> None:
    (change,) = compare([row('a', 10.0, noise)], [row('a', now, noise)])
    assert change.regressed is regressed
    assert change.growth == pytest.approx(now / 10.0 - 1.0)


def test_only_what_both_have_is_compared() -> None:
    changes = compare([row('a', 1.0), row('b', 1.0)], [row('c', 9.0), row('b', 1.0)])
    assert [change.name for change in changes] == ['b']


@given(st.floats(0.01, 1000), st.floats(0, 1), st.floats(0, 1))
def test_the_same_again_is_never_a_regression(median: float, one: float, other: float) -> None:
    (change,) = compare([row('a', median, one)], [row('a', median, other)])
    assert not change.regressed
    assert change.allowed >= max(TOLERANCE, SIGMAS * max(one, other))
