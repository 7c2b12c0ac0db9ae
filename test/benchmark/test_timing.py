# SPDX-License-Identifier: Apache-2.0
"""Timing in turns, on a simulated clock."""
from __future__ import annotations

from collections import Counter

from forecast_detector_ros.benchmark.timing import (
    BLOCKS,
    Contender,
    LONG_MS,
    noise_of,
    time_in_turns,
    WARM_UP,
)
import numpy as np
import pytest


class Clock:
    """A clock that moves only when a contender runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, costs_ms: list[float]) -> Contender:
        """Return a contender whose runs take these times, in turn."""
        calls = iter(range(10**6))

        def run() -> None:
            self.order.append(name)
            self.now += costs_ms[next(calls) % len(costs_ms)] * 1e-3
        return Contender(name, run)


def test_median_and_p95_are_those_of_the_times() -> None:
    clock = Clock()
    (timing,) = time_in_turns([clock.contender('a', [2.0])], 20, clock=clock)
    assert (timing.runs, timing.median_ms, timing.p95_ms) == (
        20, pytest.approx(2.0), pytest.approx(2.0))
    assert timing.noise == pytest.approx(0.0, abs=1e-9)


def test_contenders_take_turns_in_changing_order() -> None:
    clock = Clock()
    time_in_turns([clock.contender(name, [1.0]) for name in 'abc'], 30, clock=clock)
    rounds = np.array(clock.order[3 * WARM_UP:]).reshape(30, 3)
    assert all(sorted(each) == list('abc') for each in rounds)
    assert len({tuple(each) for each in rounds}) == 6


def test_long_contenders_skip_rounds() -> None:
    clock = Clock()
    short, long_ = time_in_turns([clock.contender('short', [1.0]),
                                  clock.contender('long', [4.5 * LONG_MS])], 20, clock=clock)
    assert (short.runs, long_.runs) == (20, 4)
    assert Counter(clock.order)['long'] == 4 + WARM_UP


def test_preparation_of_a_run_is_not_timed() -> None:
    clock = Clock()
    plain = clock.contender('a', [1.0])

    def prepare() -> None:
        clock.now += 1.0
    contender = Contender('a', plain.run, before=prepare)
    (timing,) = time_in_turns([contender], 3, clock=clock)
    assert timing.median_ms == pytest.approx(1.0)


def test_names_must_differ() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match='same name'):
        time_in_turns([clock.contender('a', [1.0])] * 2, 1, clock=clock)


def test_noise_measures_slow_and_fast_changes() -> None:
    rng = np.random.default_rng(0)
    calm = (10.0 + rng.normal(0, 0.05, 100)).tolist()
    assert noise_of(calm) < 0.02
    assert noise_of([*calm[:50], *(1.3 * value for value in calm[50:])]) > 0.25
    assert noise_of((10.0 + rng.normal(0, 3.0, 100)).tolist()) > 0.05
    assert noise_of([1.0] * (2 * BLOCKS - 1)) == 1.0
