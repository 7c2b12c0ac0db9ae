# SPDX-License-Identifier: Apache-2.0
"""What a stream carries, what its frames cost, and every reason for which one is read or not."""
from math import inf, isnan, nan

from forecast_detector_ros.detector.policy import (
    AlternatePolicy,
    AlwaysReadPolicy,
    BudgetPolicy,
    Decision,
    FORECAST,
    READ,
    REASONS,
    ThresholdPolicy,
)
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import decide, Pace, StreamState, WEIGHT
from hypothesis import given
from hypothesis import strategies as st
import pytest

SIZE = (48, 80)
HALF = ThresholdPolicy(0.5)


def running(confidence=0.8, consecutive=0):
    """Give the state of a stream that has read at least one frame."""
    return StreamState('a state', confidence, consecutive, SIZE)


@pytest.mark.parametrize('state, size, policy, expected', [
    (StreamState.initial(), SIZE, HALF, (READ, 'first_frame', nan, 0.5, 0)),
    (StreamState.initial('reset'), SIZE, HALF, (READ, 'reset', nan, 0.5, 0)),
    (StreamState.initial('gap'), None, HALF, (READ, 'gap', nan, 0.5, 0)),
    (StreamState.initial(), SIZE, AlternatePolicy(1), (READ, 'first_frame', nan, nan, 0)),
    (running(0.8), SIZE, HALF, (FORECAST, 'scheduler', 0.8, 0.5, 1)),
    (running(0.8), None, HALF, (FORECAST, 'scheduler', 0.8, 0.5, 1)),
    (running(0.5), SIZE, HALF, (READ, 'scheduler', 0.5, 0.5, 0)),
    (running(0.8), (80, 48), HALF, (READ, 'size_changed', 0.8, 0.5, 0)),
    (running(0.8, 1), SIZE, HALF, (FORECAST, 'scheduler', 0.8, 0.5, 2)),
    (running(0.8, 2), SIZE, HALF, (READ, 'max_consecutive', 0.8, 0.5, 0)),
    (running(0.2, 2), SIZE, HALF, (READ, 'scheduler', 0.2, 0.5, 0)),
    (running(0.2), SIZE, AlternatePolicy(1), (FORECAST, 'policy', 0.2, nan, 1)),
    (running(0.8, 1), SIZE, AlternatePolicy(1), (READ, 'policy', 0.8, nan, 0)),
    (running(0.8, 2), SIZE, AlternatePolicy(2), (READ, 'policy', 0.8, nan, 0)),
    (running(nan), SIZE, HALF, (READ, 'second_frame', nan, 0.5, 0)),
    (running(nan), SIZE, ThresholdPolicy(0.0), (READ, 'second_frame', nan, 0.0, 0)),
    (running(nan), (80, 48), HALF, (READ, 'size_changed', nan, 0.5, 0)),
    (running(nan), SIZE, AlternatePolicy(1), (FORECAST, 'policy', nan, nan, 1)),
    (running(1.0), SIZE, AlwaysReadPolicy(), (READ, 'policy', 1.0, nan, 0)),
    (running(1.0), SIZE, ThresholdPolicy(1.0), (READ, 'scheduler', 1.0, 1.0, 0))])
def test_reasons(state, size, policy, expected):
    decision = decide(state, size, DetectorSettings(policy, max_consecutive_forecasts=2))
    for value, wanted in zip(
            (decision.kind, decision.reason, decision.confidence, decision.threshold,
             decision.consecutive_forecasts), expected, strict=True):
        assert value == wanted or (isnan(value) and isnan(wanted))


@given(st.floats(0, 1), st.integers(0, 10), st.floats(0, 1), st.integers(1, 5),
       st.sampled_from([None, SIZE, (1, 1)]))
def test_invariants(confidence, consecutive, p, limit, size):
    decision = decide(running(confidence, consecutive), size,
                      DetectorSettings(ThresholdPolicy(p), max_consecutive_forecasts=limit))
    assert isinstance(decision, Decision) and decision.reason in REASONS
    assert (decision.kind == FORECAST) == (
        size != (1, 1) and confidence > p and consecutive < limit)
    assert decision.consecutive_forecasts == (
        consecutive + 1 if decision.kind == FORECAST else 0)


RICH, POOR = Pace(30.0, 5.0, 20.0), Pace(30.0, 5.0, 19.0)
"""With 10 ms a frame, a read of 30 ms needs 20 ms that were saved."""


@pytest.mark.parametrize('pace, policy, consecutive, expected', [
    (RICH, BudgetPolicy(100.0), 0, (READ, 'budget')),
    (POOR, BudgetPolicy(100.0), 0, (FORECAST, 'budget')),
    (POOR, BudgetPolicy(100.0), 2, (READ, 'max_consecutive')),
    (RICH, BudgetPolicy(100.0), 2, (READ, 'budget')),
    (Pace(), BudgetPolicy(100.0), 0, (READ, 'budget'))])
def test_budget(pace, policy, consecutive, expected):
    decision = decide(StreamState('a state', 0.9, consecutive, SIZE, pace=pace), SIZE,
                      DetectorSettings(policy, max_consecutive_forecasts=2))
    assert (decision.kind, decision.reason) == expected


@pytest.mark.parametrize('pace, confidence, expected', [
    (RICH, 0.2, (READ, 'scheduler')), (RICH, 0.8, (FORECAST, 'scheduler')),
    (POOR, 0.2, (FORECAST, 'budget')), (POOR, 0.8, (FORECAST, 'scheduler')),
    (RICH, nan, (READ, 'second_frame')), (POOR, nan, (FORECAST, 'budget'))])
def test_target_rate_limits_any_policy(pace, confidence, expected):
    decision = decide(StreamState('a state', confidence, 0, SIZE, pace=pace), SIZE,
                      DetectorSettings(HALF, target_rate=50.0, streams=2))
    assert (decision.kind, decision.reason) == expected


@given(st.floats(1, 200), st.floats(0.1, 50), st.floats(1, 500), st.integers(1, 400))
def test_mean_cost_stays_within_the_budget(read_ms, forecast_ms, budget_ms, frames):
    settings = DetectorSettings(BudgetPolicy(1e3 / budget_ms), max_consecutive_forecasts=1000)
    budget_ms, state, spent = settings.budget_ms, StreamState.initial(), 0.0
    reads = 0
    for _ in range(frames):
        read = decide(state, SIZE, settings).kind == READ
        cost = read_ms if read else forecast_ms
        reads, spent = reads + read, spent + cost
        state = StreamState('a state', 0.9, 0, SIZE,
                            pace=state.pace.after(read, cost, budget_ms))
    if forecast_ms <= budget_ms:
        # The first frame is read whatever it costs.
        assert spent <= frames * budget_ms + read_ms + 1e-6
        # What is left over is never worth more than two reads.
        if reads < frames:
            possible = (frames * budget_ms - frames * forecast_ms) / max(
                read_ms - forecast_ms, 1e-9)
            assert reads >= min(frames, int(possible)) - 2
    else:
        assert reads == 1 or read_ms <= budget_ms


def test_unknown_reason():
    with pytest.raises(ValueError, match="reason is 'tired', must be one of"):
        StreamState.initial('tired')


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
